"""Holds a replay to the pace of the market: as many seconds of event time in a second of ours as the speed says."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from tradetape.streams.time_order import Timed

SECOND_US = 1_000_000


class Pace:
    """`speed` is a factor of real time. The first event is due at once, each other one as long after it as it was then."""

    def __init__(
        self,
        speed: float,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], object] = time.sleep,
    ) -> None:
        self._speed = speed
        self._clock = clock
        self._sleep = sleep
        self._began: tuple[float, int] | None = None

    def due_in_s(self, event_time_us: int) -> float:
        """How long until an event is due; not above zero when it is, or is late."""
        now = self._clock()
        if self._began is None:
            self._began = now, event_time_us
        clock, first_us = self._began
        return clock + (event_time_us - first_us) / SECOND_US / self._speed - now

    def wait(self, event_time_us: int) -> None:
        """Wait until an event is due."""
        left_s = self.due_in_s(event_time_us)
        if left_s > 0:
            self._sleep(left_s)


def when_due(entries: Iterable[Timed], pace: Pace, *, most: int) -> Iterator[list[Timed]]:
    """The entries, each when it is due; together what is due together, `most` at a time."""
    batch: list[Timed] = []
    for one in entries:
        if batch and (len(batch) >= most or pace.due_in_s(one.time_us) > 0):
            yield batch
            batch = []
        pace.wait(one.time_us)
        batch.append(one)
    if batch:
        yield batch
