"""Puts records into the order of time with bounded memory: sorted runs, spilled to disk, merged as they are read.

A partition is in order for each key at best, and partitions know nothing of each other; a backtest wants one order. At
equal times records go by topic, partition and offset, so that two reads of one stretch give the same sequence (I9).
"""

from __future__ import annotations

import heapq
import operator
import struct
import tempfile
from collections.abc import Iterable, Iterator
from typing import IO, NamedTuple, Self

import msgspec

from tradetape.streams.record import Record

RUN_BYTES = 64 * 1024 * 1024
"""How much is sorted in memory at once; an event counts its payload and what Python adds to it."""
ENTRY_OVERHEAD_BYTES = 300
MAX_RUNS = 64
"""How many runs lie beside each other, each an open file; that many are merged into one before there are more."""


class Timed(NamedTuple):
    """A record with the time that orders it, in microseconds."""

    time_us: int
    record: Record

    @property
    def order(self) -> tuple[int, str, int, int]:
        """What it is sorted by."""
        return self.time_us, self.record.topic, self.record.partition, self.record.offset


def in_time_order(entries: Iterable[Timed], *, run_bytes: int = RUN_BYTES) -> Iterator[Timed]:
    """The same entries by time, partition and offset. Runs lie in the temporary folder until the iterator ends."""
    with _Runs() as runs:
        held: list[Timed] = []
        held_bytes = 0
        for entry in entries:
            held.append(entry)
            held_bytes += len(entry.record.value or b"") + ENTRY_OVERHEAD_BYTES
            if held_bytes >= run_bytes:
                runs.add(sorted(held, key=_order))
                held, held_bytes = [], 0
        held.sort(key=_order)
        yield from runs.merged(held)


class _Runs:
    """Sorted runs on disk: of each level at most MAX_RUNS, a run of the next level being that many of this one."""

    def __init__(self) -> None:
        self._levels: list[list[tuple[IO[bytes], Iterator[Timed]]]] = [[]]

    def add(self, run: Iterable[Timed], level: int = 0) -> None:
        """Write one more run."""
        file = tempfile.TemporaryFile(prefix="tradetape-order-")  # noqa: SIM115  # closed when it is merged, or at the end
        if level == len(self._levels):
            self._levels.append([])
        runs = self._levels[level]
        runs.append((file, _spilled(run, file)))
        if len(runs) == MAX_RUNS:
            self.add(heapq.merge(*(one for _, one in runs), key=_order), level + 1)
            self._close(runs)

    def merged(self, rest: Iterable[Timed]) -> Iterator[Timed]:
        """All runs and the rest as one."""
        return heapq.merge(*(one for runs in self._levels for _, one in runs), rest, key=_order)

    def _close(self, runs: list[tuple[IO[bytes], Iterator[Timed]]]) -> None:
        for file, _ in runs:
            file.close()
        runs.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        for runs in self._levels:
            self._close(runs)


def _spilled(run: Iterable[Timed], file: IO[bytes]) -> Iterator[Timed]:
    for one in run:
        packed = _encoder.encode(one)
        file.write(_LENGTH.pack(len(packed)))
        file.write(packed)
    file.seek(0)
    return _read(file)


def _read(file: IO[bytes]) -> Iterator[Timed]:
    while length := file.read(_LENGTH.size):
        yield _decoder.decode(file.read(*_LENGTH.unpack(length)))


_order = operator.attrgetter("order")
_LENGTH = struct.Struct(">I")
_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(Timed)
