"""How fast the run goes: as many minutes of the market in a minute of ours as the speed says."""

from __future__ import annotations

import time
from collections.abc import Callable
from datetime import timedelta

MARKET_MINUTE_S = 60.0


class Pace:
    """Holds the minutes of a run to their time. `speed` is a factor of real time; None is as fast as it goes."""

    def __init__(
        self,
        speed: float | None,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._minute_s = MARKET_MINUTE_S / speed if speed else 0.0
        self._clock = clock
        self._sleep = sleep
        self._started: float | None = None

    def takes(self, minutes: int) -> timedelta:
        """How long that many minutes take."""
        return timedelta(seconds=minutes * self._minute_s)

    def await_close(self, index: int) -> None:
        """Wait until minute `index`, counted from 0, has closed; at once when we are late."""
        now = self._clock()
        if self._started is None:
            self._started = now
        left = self._started + (index + 1) * self._minute_s - now
        if left > 0:
            self._sleep(left)
