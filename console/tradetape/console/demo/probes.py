"""How long an event takes from `emit` until it can be read again: asked from outside, of one event after the other.

An event is picked when it has just been emitted, and asked for until it is there. What takes longer than the limit
counts as the limit.
"""

from __future__ import annotations

import statistics
import threading
import time
from collections import deque
from collections.abc import Callable

from tradetape.schemas import Event, times
from tradetape.schemas.stamping import wall_clock_us

LIMIT_S = 30.0
IDLE_INTERVAL_S = 0.02
SAMPLES_KEPT = 1_000


class Probe:
    """Measures one path. `pick` gives an event that was just emitted, `is_there` says whether it has arrived.

    Runs in a thread of its own; `ask_interval_s` is the resolution of what it measures.
    """

    def __init__(
        self,
        *,
        name: str,
        pick: Callable[[], Event | None],
        is_there: Callable[[Event], bool],
        ask_interval_s: float,
    ) -> None:
        self.name = name
        self.failure: Exception | None = None
        self._pick = pick
        self._is_there = is_there
        self._ask_interval_s = ask_interval_s
        self._latencies_s: deque[float] = deque(maxlen=SAMPLES_KEPT)
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name=f"probe-{name}", daemon=True)

    def start(self) -> None:
        """Begin to measure."""
        self._thread.start()

    def stop(self) -> None:
        """Stop measuring."""
        self._stop.set()
        self._thread.join()

    def median_s(self) -> float | None:
        """The median of what was measured so far, in seconds; None when there is nothing yet."""
        taken = list(self._latencies_s)
        return statistics.median(taken) if taken else None

    def _run(self) -> None:
        last: Event | None = None
        try:
            while not self._stop.is_set():
                event = self._pick()
                if event is None or event is last:
                    self._stop.wait(IDLE_INTERVAL_S)
                    continue
                last = event
                self._await(event)
        except Exception as error:  # noqa: BLE001  # a probe only watches: what it cannot ask must not end the run
            self.failure = error

    def _await(self, event: Event) -> None:
        deadline = time.monotonic() + LIMIT_S
        while not self._is_there(event) and time.monotonic() < deadline:
            if self._stop.wait(self._ask_interval_s):
                return
        assert event.emitted_at
        self._latencies_s.append((wall_clock_us() - times.from_datetime(event.emitted_at)) / 1_000_000)
