"""Whether a worker gets on (I14): what it did last, what it waits for, how far behind it is.

Engines write here; the health page and the metrics read. A worker is alive while it moves or waits for a named
dependency with a live poll loop, not while its process merely exists.
"""

from __future__ import annotations

import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence

from tradetape.streams.processor import Partition
from tradetape.streams.record import Record

STUCK_AFTER_S = 60.0


class Progress:
    """Thread-safe; times are monotonic seconds."""

    def __init__(self, *, clock: Callable[[], float] = time.monotonic, stuck_after_s: float = STUCK_AFTER_S) -> None:
        self._clock = clock
        self._stuck_after_s = stuck_after_s
        self._lock = threading.Lock()
        self._polled_at = self._moved_at = clock()
        self.processed: Counter[str] = Counter()
        self.lag: dict[Partition, int] = {}
        self.waiting_for: str | None = None
        self.is_assigned = False
        self.last_event_age_s = 0.0

    def polled(self) -> None:
        """The engine's loop turned."""
        self._polled_at = self._clock()

    def assigned(self, partitions: Sequence[Partition]) -> None:
        """What the worker reads from now on."""
        with self._lock:
            self.is_assigned = bool(partitions)
            self.lag = {partition: self.lag.get(partition, 0) for partition in partitions}
            self._moved_at = self._clock()

    def moved(self, batch: Sequence[Record]) -> None:
        """A batch was processed whole."""
        with self._lock:
            for record in batch:
                self.processed[record.topic] += 1
            if batch:
                self.last_event_age_s = max(0.0, time.time() - batch[-1].timestamp_ms / 1_000)
            self.waiting_for = None
            self._moved_at = self._clock()

    def waits(self, why: str) -> None:
        """A dependency is away; the loop goes on polling."""
        self.waiting_for = why

    def goes_on(self) -> None:
        """What it waited for is back, or is not needed any more."""
        self.waiting_for = None

    def behind(self, lag: Mapping[Partition, int]) -> None:
        """Records still to be read in each partition."""
        with self._lock:
            self.lag = dict(lag)
            if not any(lag.values()):
                self._moved_at = self._clock()

    def trouble(self) -> str | None:
        """Why the worker is not alive; None while it is."""
        now = self._clock()
        if now - self._polled_at > self._stuck_after_s:
            return f"the loop has not turned for {now - self._polled_at:.0f} s"
        if self.waiting_for is None and any(self.lag.values()) and now - self._moved_at > self._stuck_after_s:
            return f"{sum(self.lag.values())} records wait and none was processed for {now - self._moved_at:.0f} s"
        return None

    def unready(self) -> str | None:
        """Why the worker does not do its work now; None when it does."""
        if not self.is_assigned:
            return "no partitions are assigned yet"
        if self.waiting_for is not None:
            return f"waits: {self.waiting_for}"
        return self.trouble()
