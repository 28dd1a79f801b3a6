"""Runs a processor in its engine until it has taken so many records, and times it from its first batch to its last.

Joining a group and leaving it are not timed: they are paid once, and a bare loop has no group.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from bench.errors import BenchFailed
from tradetape.streams.processor import OffsetKeeper, Partition, Processor, Ticking
from tradetape.streams.record import Record
from tradetape.streams.worker import Engine

DEADLINE_S = 300.0


class Stopwatch:
    """A processor around a processor; sets `stop` when `expected` records are processed."""

    def __init__(self, inner: Processor, *, expected: int) -> None:
        self.name = inner.name
        self.topics = inner.topics
        self.stop = threading.Event()
        self.taken = 0
        self._inner = inner
        self._expected = expected
        self._began = self._ended = 0.0

    def process(self, batch: Sequence[Record]) -> None:
        """Pass the batch on; only what is processed counts."""
        self._began = self._began or time.perf_counter()
        self._inner.process(batch)
        self._ended = time.perf_counter()
        self.taken += len(batch)
        if self.taken >= self._expected:
            self.stop.set()

    def tick(self, now_us: int) -> None:
        """Pass the time on."""
        if isinstance(self._inner, Ticking):
            self._inner.tick(now_us)

    def records_per_s(self, build: Callable[[Processor], Engine]) -> float:
        """Run the engine that `build` puts around this processor. Raises BenchFailed when records stay away."""
        deadline = threading.Timer(DEADLINE_S, self.stop.set)
        deadline.start()
        try:
            build(self).run(self.stop)
        finally:
            deadline.cancel()
        if self.taken < self._expected:
            raise BenchFailed(f"{self.name} took {self.taken} of {self._expected} records in {DEADLINE_S:.0f} s")
        return self.taken / (self._ended - self._began)


class KeeperStopwatch(Stopwatch):
    """The same around a processor that keeps its own offsets."""

    def __init__(self, inner: Processor, keeper: OffsetKeeper, *, expected: int) -> None:
        super().__init__(inner, expected=expected)
        self._keeper = keeper

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Where to start."""
        return self._keeper.assigned(partitions)

    def released(self, partitions: Iterable[Partition]) -> None:
        """No longer ours."""
        self._keeper.released(partitions)
