"""Reads a replay's plan: what lies between its offsets and in its stretch of event time, in chunks that say how far they come.

As stored, each partition at full speed; or by time over all partitions, the order of each key kept, at a pace. No group
is joined, so no worker is disturbed (I10). What cannot be decoded is counted, and never ends the reading.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

from tradetape.schemas import Codec, DecodeError
from tradetape.sinks.errors import ReplayStopped
from tradetape.sinks.replay.pace import Pace, when_due
from tradetape.sinks.replay.plan import Plan, Progress
from tradetape.sinks.replay.refusals import Refusals
from tradetape.streams.record import Record
from tradetape.streams.time_order import RUN_BYTES, Timed, in_time_order
from tradetape.streams.topic_reader import TopicReader

CHUNK_RECORDS = 5_000
CHUNK_OFFSETS = 50_000
"""Where little lies in the stretch, a chunk ends after so many records were looked at: it says how far we are."""
TELL_RECORDS = 1_000

Tell = Callable[[str, int, int], None]
"""Called with what is going on, how much of it is done, and of how much."""


class Chunk(NamedTuple):
    """Records to write, the event time of the last of them, and how far the replay has come once they are written."""

    records: list[Record]
    stream_time_us: int
    progress: Progress


class Reading:
    """One reading of a plan. `counts` holds read, outside (the stretch), kept; `undecodable` the rest, by reason."""

    def __init__(
        self,
        *,
        plan: Plan,
        reader: TopicReader,
        codec: Codec,
        pace: Pace | None = None,
        stop: threading.Event | None = None,
        tell: Tell = lambda *_: None,
        run_bytes: int = RUN_BYTES,
        chunk_records: int = CHUNK_RECORDS,
    ) -> None:
        self.counts: Counter[str] = Counter()
        self.undecodable = Refusals()
        self._plan = plan
        self._reader = reader
        self._codec = codec
        self._pace = pace
        self._stop = stop or threading.Event()
        self._tell = tell
        self._run_bytes = run_bytes
        self._chunk_records = chunk_records

    def chunks(self, progress: Progress) -> Iterator[Chunk]:
        """What is left. Raises ReplayStopped once `stop` is set, BrokersUnreachable, HistoryLost."""
        return self._by_time(progress) if self._plan.request.is_by_time else self._as_stored(progress)

    def _as_stored(self, progress: Progress) -> Iterator[Chunk]:
        nexts = {one.key: offset for one, offset in zip(self._plan.places, progress.next_offsets, strict=True)}
        ends = {one.key: one.end for one in self._plan.places}
        done, total = self._plan.offsets - sum(ends[one] - nexts[one] for one in ends), self._plan.offsets
        records: list[Record] = []
        looked_at = newest_us = 0
        for record in self._reader.read(dict(nexts), ends):
            event_time_us = self._event_time_us(record)
            nexts[record.topic, record.partition] = record.offset + 1  # type: ignore[index]  # a Partition is this tuple
            looked_at += 1
            if event_time_us is not None:
                records.append(record)
                newest_us = event_time_us
            if len(records) >= self._chunk_records or looked_at >= CHUNK_OFFSETS:
                yield Chunk(records, newest_us, Progress(tuple(nexts[one.key] for one in self._plan.places)))
                done += looked_at
                self._tell("replaying", done, total)
                records, looked_at = [], 0
        # A partition may end with offsets that are no records.
        yield Chunk(records, newest_us, Progress(tuple(one.end for one in self._plan.places)))
        self._tell("replaying", total, total)

    def _by_time(self, progress: Progress) -> Iterator[Chunk]:
        ordered = in_time_order(self._timed(), run_bytes=self._run_bytes)
        left = (one for one in ordered if progress.last is None or one.order > progress.last)
        done = 0
        for batch in self._batches(left):
            last = batch[-1]
            yield Chunk([one.record for one in batch], last.time_us, Progress(progress.next_offsets, last.order))
            done += len(batch)
            self._tell("replaying", done, self.counts["kept"])

    def _batches(self, entries: Iterator[Timed]) -> Iterator[list[Timed]]:
        if self._pace is not None:
            yield from when_due(self._while_wanted(entries), self._pace, most=self._chunk_records)
            return
        wanted = self._while_wanted(entries)
        while batch := list(islice(wanted, self._chunk_records)):
            yield batch

    def _while_wanted(self, entries: Iterator[Timed]) -> Iterator[Timed]:
        for one in entries:
            self._go_on()
            yield one

    def _timed(self) -> Iterator[Timed]:
        """Every record with the time that orders it: its event's, but never before an earlier one of its key."""
        starts = {one.key: one.start for one in self._plan.places}
        ends = {one.key: one.end for one in self._plan.places}
        latest: dict[tuple[str, int, bytes | None], int] = {}
        for record in self._reader.read(starts, ends):
            if self.counts["read"] % TELL_RECORDS == 0:
                self._tell("sorting", self.counts["read"], self._plan.offsets)
            event_time_us = self._event_time_us(record)
            if event_time_us is not None:
                series = record.topic, record.partition, record.key
                latest[series] = max(event_time_us, latest.get(series, event_time_us))
                yield Timed(latest[series], record)

    def _event_time_us(self, record: Record) -> int | None:
        """The record's event time; None where it is not of the stretch, or cannot be decoded."""
        self._go_on()
        self.counts["read"] += 1
        try:
            event_time_us: int = self._codec.decode_fields(record.topic, record.value)["event_time"]
        except DecodeError as error:
            self.undecodable.send(record, error.reason, error, stage="VALUE_CONVERTER")
            return None
        if not self._plan.request.stretch.holds(event_time_us):
            self.counts["outside"] += 1
            return None
        self.counts["kept"] += 1
        return event_time_us

    def _go_on(self) -> None:
        if self._stop.is_set():
            raise ReplayStopped("stopped before all was replayed")
