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
from contextlib import ExitStack
from typing import IO, NamedTuple

import msgspec

from tradetape.streams.record import Record

RUN_BYTES = 64 * 1024 * 1024
"""How much is sorted in memory at once; an event counts its payload and what Python adds to it."""
ENTRY_OVERHEAD_BYTES = 300


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
    with ExitStack() as files:
        runs: list[Iterable[Timed]] = []
        held: list[Timed] = []
        held_bytes = 0
        for entry in entries:
            held.append(entry)
            held_bytes += len(entry.record.value or b"") + ENTRY_OVERHEAD_BYTES
            if held_bytes >= run_bytes:
                file = files.enter_context(tempfile.TemporaryFile(prefix="tradetape-order-"))
                runs.append(_spilled(sorted(held, key=_order), file))
                held, held_bytes = [], 0
        held.sort(key=_order)
        yield from heapq.merge(*runs, held, key=_order)


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
