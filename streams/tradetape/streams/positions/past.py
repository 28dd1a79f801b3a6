"""Reads back what lies on the tape already: a processor's memory, made anew from the topics that it comes from.

A record that kills whoever decodes it kills a child process here, as in the quarantine, and is passed over: it is a
dead letter, or will be one when the engine brings it.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Protocol

from tradetape.schemas import Codec, DecodeError
from tradetape.streams.processor import Partition
from tradetape.streams.quarantine import FindDeath, deaths, first_death
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.streams")

EXAMINED_RECORDS = 10_000
"""So many are decoded by one child, and held in memory meanwhile."""

Offsets = Mapping[Partition, int]


class Reading(Protocol):
    """What is needed of a TopicReader."""

    def begins(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset of each partition's first record."""

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset behind each partition's last record."""

    def offsets_at(self, partitions: Sequence[Partition], timestamp_ms: int) -> dict[Partition, int]:
        """The offset of the first record that was emitted at or after a time."""

    def read(self, starts: Offsets, ends: Offsets) -> Iterator[Record]:
        """Every record from the starts up to the ends."""


class Decoded(NamedTuple):
    """A record and what it says."""

    record: Record
    plain: dict[str, Any]


class Past:
    """Stretches of single partitions. All methods raise BrokersUnreachable, and HistoryLost for what retention took."""

    def __init__(self, *, reader: Reading, codec: Codec, find_death: FindDeath = first_death) -> None:
        self._reader = reader
        self._codec = codec
        self._find_death = find_death

    def begin(self, partition: Partition) -> int:
        """The offset of its first record."""
        return self._reader.begins([partition])[partition]

    def end(self, partition: Partition) -> int:
        """The offset behind its last record, now."""
        return self._reader.ends([partition])[partition]

    def emitted_at(self, partition: Partition, timestamp_ms: int) -> int:
        """The offset of the first record that was emitted at or after a time."""
        return self._reader.offsets_at([partition], timestamp_ms)[partition]

    def holds_any(self, partition: Partition, start: int, end: int) -> bool:
        """Whether there is a record between two offsets, of which some are no record but a transaction's mark."""
        return any(True for _ in self._reader.read({partition: start}, {partition: end}))

    def read(
        self, partition: Partition, start: int, end: int, *, wanted: Callable[[Record], bool] | None = None
    ) -> Iterator[Decoded]:
        """What lies between two offsets and can be decoded; only `wanted` records are."""
        if start < end:
            records = self._reader.read({partition: start}, {partition: end})
            yield from self._decoded(record for record in records if wanted is None or wanted(record))

    def _decoded(self, records: Iterable[Record]) -> Iterator[Decoded]:
        for chunk in _chunks(records):
            for record in self._survivors(chunk):
                try:
                    yield Decoded(record, self._codec.decode_fields(record.topic, record.value))
                except DecodeError as error:
                    logger.debug("passed over %s: %s", record.place, error)

    def _survivors(self, chunk: list[Record]) -> list[Record]:
        killers = set[int]()
        for number, how in deaths(chunk, self._examine, find=self._find_death):
            logger.error("passed over %s, which kills whoever decodes it: %s", chunk[number].place, how)
            killers.add(number)
        return [record for number, record in enumerate(chunk) if number not in killers]

    def _examine(self, record: Record) -> None:
        self._codec.decode_fields(record.topic, record.value)


def _chunks(records: Iterable[Record]) -> Iterator[list[Record]]:
    chunk: list[Record] = []
    for record in records:
        chunk.append(record)
        if len(chunk) == EXAMINED_RECORDS:
            yield chunk
            chunk = []
    if chunk:
        yield chunk
