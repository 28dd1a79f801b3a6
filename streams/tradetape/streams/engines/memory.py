"""The engine of tests and backtests: records from lists, a clock under control, the contract of the others."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence

from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.errors import Transient
from tradetape.streams.processor import OffsetKeeper, Partition, Processor, attempt, tick
from tradetape.streams.record import Record

ATTEMPTS = 100


class MemoryEngine:
    """Feeds records in the order given, `max_batch_records` at a time; `committed` is the next offset of each partition."""

    def __init__(
        self,
        *,
        processor: Processor,
        dead_letters: DeadLetters,
        records: Sequence[Record],
        max_batch_records: int = 500,
        now_us: Callable[[], int] = lambda: 0,
        max_attempts: int = ATTEMPTS,
    ) -> None:
        self._processor = processor
        self._dead_letters = dead_letters
        self._records = [record for record in records if record.topic in processor.topics]
        self._max_batch_records = max_batch_records
        self._now_us = now_us
        self._max_attempts = max_attempts
        self.committed: dict[Partition, int] = {}

    def run(self, stop: threading.Event | None = None) -> None:
        """Feed everything, then return, sooner when `stop` is set.

        Raises what the processor raises; Transient after `max_attempts`.
        """
        waiting = self._from_start()
        for start in range(0, len(waiting), self._max_batch_records):
            if stop is not None and stop.is_set():
                return
            batch = waiting[start : start + self._max_batch_records]
            self._deliver(batch)
            for record in batch:
                self.committed[Partition(record.topic, record.partition)] = record.offset + 1
            tick(self._processor, self._now_us())

    def _from_start(self) -> list[Record]:
        starts = dict(self.committed)
        if isinstance(self._processor, OffsetKeeper):
            partitions = sorted({Partition(record.topic, record.partition) for record in self._records})
            starts = {one: start or 0 for one, start in self._processor.assigned(partitions).items()}
        return [one for one in self._records if one.offset >= starts.get(Partition(one.topic, one.partition), 0)]

    def _deliver(self, batch: Sequence[Record]) -> None:
        for tried in range(1, self._max_attempts + 1):
            try:
                attempt(self._processor, batch, self._dead_letters)
                return
            except Transient:
                if tried == self._max_attempts:
                    raise


class MemoryReader:
    """What a TopicReader is to a broker, for records in a list, which may grow."""

    def __init__(self, records: Sequence[Record]) -> None:
        self._records = records

    def begins(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """Every partition begins with its first offset."""
        return dict.fromkeys(partitions, 0)

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset behind each partition's last record."""
        return {one: max((record.offset + 1 for record in self._of(one)), default=0) for one in partitions}

    def offsets_at(self, partitions: Sequence[Partition], timestamp_ms: int) -> dict[Partition, int]:
        """The offset of the first record that was emitted at or after a time; the end where there is none."""
        ends = self.ends(partitions)
        return {
            one: min((record.offset for record in self._of(one) if record.timestamp_ms >= timestamp_ms), default=ends[one])
            for one in partitions
        }  # fmt: skip

    def read(self, starts: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[Record]:
        """Every record from the starts up to the ends."""
        for one, start in starts.items():
            yield from (record for record in self._of(one) if start <= record.offset < ends[one])

    def _of(self, one: Partition) -> list[Record]:
        return [record for record in self._records if (record.topic, record.partition) == one]
