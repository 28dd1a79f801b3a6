"""Compares what is on the tape with what is in the history, by content, for a stretch of event time.

Each topic is read to ends captured at the beginning, the tables in one snapshot taken after that; both come in the order
(event_time, event_id), the tape sorted on disk, so memory is bounded. A row is right when it equals, in every column, the
record at the place that it names. What the sink has refused is accounted for by its dead letters, what it has not come to
yet is pending, what retention dropped is not missing, and a row whose record is no longer on the tape is unchecked.
"""

from __future__ import annotations

import struct
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime
from itertools import groupby
from typing import Any, NamedTuple

import psycopg
from psycopg.rows import dict_row
from psycopg.sql import Identifier

from tradetape.schemas import Codec, DecodeError, EventType, times
from tradetape.sinks.history.connection import passing_errors
from tradetape.sinks.history.entry_order import RUN_ENTRIES, sorted_entries
from tradetape.sinks.history.queries import query
from tradetape.sinks.history.row_content import DIGEST_BYTES, RowContent, differing, digest
from tradetape.sinks.history.schema import SCHEMA
from tradetape.streams.dead_letters import CONNECT
from tradetape.streams.processor import Partition
from tradetape.streams.topic_reader import TopicReader

EXAMPLES = 5
ROWS_A_FETCH = 2_000
MARGIN_US = times.DAY_US
"""No event is emitted more than this before its event time."""
WRONG = ("missing", "extra", "different")
DUE, REFUSED, PENDING = range(3)
"""Whether a record has to have its row."""
_KEY = struct.Struct(">Q16s")
_ENTRY = struct.Struct(f">24sIQB{DIGEST_BYTES}s")
_TIME_SHIFT = 1 << 63


class Example(NamedTuple):
    """One difference. `columns` names what differs, where both are there."""

    kind: str
    event_id: str
    event_time: datetime | None
    place: str
    columns: tuple[str, ...] = ()


@dataclass
class Finding:
    """What was found of one topic. `counts` by equal, missing, extra, different, refused, pending, dropped, unchecked."""

    topic: str
    table: str
    counts: Counter[str] = field(default_factory=Counter)
    examples: list[Example] = field(default_factory=list)

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.counts[kind] for kind in WRONG)

    def add(self, example: Example) -> None:
        """Count a difference; the first few are kept."""
        self.counts[example.kind] += 1
        if sum(one.kind == example.kind for one in self.examples) < EXAMPLES:
            self.examples.append(example)


class _Entry(NamedTuple):
    key: bytes
    partition: int
    offset: int
    state: int
    digest: bytes

    @property
    def place(self) -> tuple[int, int]:
        return self.partition, self.offset


class _Range(NamedTuple):
    """What is read of a topic, and how far the sink has come there."""

    starts: Mapping[Partition, int]
    ends: Mapping[Partition, int]
    reached: Mapping[int, int]
    dropped: frozenset[date]

    def holds(self, topic: str, partition: int, offset: int) -> bool:
        """Whether a record that lies there must have been read."""
        place = Partition(topic, partition)
        return place in self.ends and self.starts[place] <= offset < self.ends[place]


class Verification:
    """Compares the topics of a codec's catalogue with one history. `topic_uuid` as Kafka gives it."""

    def __init__(
        self,
        *,
        connection: psycopg.Connection,
        reader: TopicReader,
        codec: Codec,
        topic_uuid: Callable[[str], str],
        sink: str = "history",
        run_entries: int = RUN_ENTRIES,
    ) -> None:
        self._connection = connection
        self._reader = reader
        self._catalogue = codec.catalogue
        self._codec = codec
        self._topic_uuid = topic_uuid
        self._sink = sink
        self._run_entries = run_entries

    def run(
        self, event_types: Sequence[EventType], start: datetime | None = None, end: datetime | None = None
    ) -> Iterator[Finding]:
        """What is found of each event type, for start <= event_time < end.

        Raises TopicMissing, BrokersUnreachable, DatabaseUnavailable, HistoryLost where retention takes what is being read.
        """
        self._connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        ends = {one: self._ends(one) for one in event_types}
        with passing_errors(), self._connection.transaction():
            ranges = {one: self._range(one, ends[one], start) for one in event_types}
            # After the snapshot: the sink's dead letters are acknowledged before its offsets move.
            refused = self._refused()
            for one in event_types:
                yield self._compared(one, ranges[one], refused, start, end)

    def _ends(self, event_type: EventType) -> dict[Partition, int]:
        return self._reader.ends(self._reader.partitions_of(self._catalogue.topic_name(event_type)))

    def _range(self, event_type: EventType, ends: dict[Partition, int], start: datetime | None) -> _Range:
        topic, partitions = self._catalogue.topic_name(event_type), list(ends)
        starts = self._reader.begins(partitions)
        if start is not None:
            hint = self._reader.offsets_at(partitions, (times.from_datetime(start) - MARGIN_US) // 1_000)
            starts = {one: min(max(offset, hint[one]), ends[one]) for one, offset in starts.items()}
        given = {"sink": self._sink, "topic": topic, "uuid": self._topic_uuid(topic)}
        reached: dict[int, int] = dict(self._connection.execute(query("reached"), given).fetchall())
        dropped = self._connection.execute(query("dropped_months"), {"table": event_type.table}).fetchall()
        return _Range(starts, ends, reached, frozenset(month for (month,) in dropped))

    def _refused(self) -> set[tuple[str, int, int]]:
        """Where the records lie that the sink refused: the one thing held in memory for each of them."""
        partitions = self._reader.partitions([self._catalogue.dead_letters_topic])
        found = set()
        for record in self._reader.read(self._reader.begins(partitions), self._reader.ends(partitions)):
            # A record may have been a dead letter before: the last header of a name is the newest.
            headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
            if headers.get("x-worker") == self._sink:
                topic, partition, offset = (
                    headers.get(CONNECT + name, "") for name in ("topic", "partition", "offset")
                )
                found.add((topic, int(partition), int(offset)))
        return found

    def _compared(
        self,
        event_type: EventType,
        what: _Range,
        refused: set[tuple[str, int, int]],
        start: datetime | None,
        end: datetime | None,
    ) -> Finding:
        topic, table = self._catalogue.topic_name(event_type), Identifier(SCHEMA, event_type.table)
        finding = Finding(topic, event_type.table)
        columns = self._connection.execute(query("columns"), {"schema": SCHEMA, "table": event_type.table}).fetchall()
        content = RowContent(event_type, [name for name, *_ in columns])
        within = (times.from_datetime(start) if start else None, times.from_datetime(end) if end else None)
        unsorted = self._entries(content, what, refused, within, finding)
        entries = map(
            _Entry._make, map(_ENTRY.unpack, sorted_entries(unsorted, size=_ENTRY.size, run_entries=self._run_entries))
        )
        groups = ((key, list(group)) for key, group in groupby(entries, key=lambda one: one.key))
        with self._connection.cursor("verified", row_factory=dict_row) as cursor:
            cursor.itersize = ROWS_A_FETCH
            cursor.execute(query("rows").format(table=table), {"start": start, "end": end})
            for group, row in _beside(groups, ((_key_of(row), row) for row in cursor)):
                _judge(finding, what, content, group, row)
        finding.examples = [self._explained(event_type, content, one) for one in finding.examples]
        return finding

    def _entries(
        self,
        content: RowContent,
        what: _Range,
        refused: set[tuple[str, int, int]],
        within: tuple[int | None, int | None],
        finding: Finding,
    ) -> Iterator[bytes]:
        first, last = within
        for record in self._reader.read(what.starts, what.ends):
            state = DUE
            if (record.topic, record.partition, record.offset) in refused:
                state = REFUSED
            elif record.offset >= what.reached.get(record.partition, 0):
                state = PENDING
            try:
                plain = self._codec.decode_fields(record.topic, record.value)
                event_time_us = plain["event_time"]
                if (first is not None and event_time_us < first) or (last is not None and event_time_us >= last):
                    continue
                key = _KEY.pack(event_time_us + _TIME_SHIFT, uuid.UUID(plain["event_id"]).bytes)
                hashed = digest(content.of_event(record, plain))
            except (DecodeError, ValueError):
                # It can have no row. Of what time it is cannot be told, so it counts whatever the stretch.
                if state == DUE:
                    finding.add(Example("missing", "cannot be read", None, record.place))
                else:
                    finding.counts["refused" if state == REFUSED else "pending"] += 1
                continue
            yield _ENTRY.pack(key, record.partition, record.offset, state, hashed)

    def _explained(self, event_type: EventType, content: RowContent, example: Example) -> Example:
        """With the columns that differ: the record and the row are read once more."""
        if example.kind != "different":
            return example
        topic, _, rest = example.place.rpartition("[")
        partition, _, offset = rest.partition("]@")
        place, at = Partition(topic, int(partition)), int(offset)
        given = {"event_time": example.event_time, "event_id": example.event_id}
        with self._connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(query("row").format(table=Identifier(SCHEMA, event_type.table)), given).fetchone()
        for record in self._reader.read({place: at}, {place: at + 1}):
            plain = self._codec.decode_fields(record.topic, record.value)
            return example._replace(
                columns=tuple(differing(content.of_event(record, plain), content.of_row(row or {})))
            )
        return example


def _key_of(row: Mapping[str, Any]) -> bytes:
    return _KEY.pack(times.from_datetime(row["event_time"]) + _TIME_SHIFT, row["event_id"].bytes)


def _beside(
    groups: Iterator[tuple[bytes, list[_Entry]]], rows: Iterator[tuple[bytes, dict[str, Any]]]
) -> Iterator[tuple[list[_Entry], dict[str, Any] | None]]:
    """The records and the row of each key, either of which may be missing; both come in the order of the keys."""
    group, row = next(groups, None), next(rows, None)
    while group is not None or row is not None:
        if row is None or (group is not None and group[0] < row[0]):
            assert group is not None
            yield group[1], None
            group = next(groups, None)
        elif group is None or row[0] < group[0]:
            yield [], row[1]
            row = next(rows, None)
        else:
            yield group[1], row[1]
            group, row = next(groups, None), next(rows, None)


def _judge(
    finding: Finding, what: _Range, content: RowContent, group: list[_Entry], row: dict[str, Any] | None
) -> None:
    """What a key's records and its row mean."""
    if row is None:
        _judge_absence(finding, what, group)
        return
    place = (row["partition"], row["offset"])
    must_be_read = row["topic"] == finding.topic and what.holds(finding.topic, *place)
    record = next((one for one in group if one.place == place), None) if row["topic"] == finding.topic else None
    if record is not None and record.digest == digest(content.of_row(row)):
        finding.counts["equal"] += 1
    elif record is not None or (group and must_be_read):
        named = record or group[0]
        finding.add(_example("different", named.key, f"{finding.topic}[{named.partition}]@{named.offset}"))
    elif must_be_read or row["offset"] < 0:
        finding.add(_example("extra", _key_of(row), f"{row['topic']}[{row['partition']}]@{row['offset']}"))
    else:
        finding.counts["unchecked"] += 1


def _judge_absence(finding: Finding, what: _Range, group: list[_Entry]) -> None:
    due = next((one for one in group if one.state == DUE), None)
    if due is None:
        finding.counts["pending" if any(one.state == PENDING for one in group) else "refused"] += 1
        return
    example = _example("missing", due.key, f"{finding.topic}[{due.partition}]@{due.offset}")
    if example.event_time is not None and example.event_time.date().replace(day=1) in what.dropped:
        finding.counts["dropped"] += 1
    else:
        finding.add(example)


def _example(kind: str, key: bytes, place: str) -> Example:
    shifted, raw = _KEY.unpack(key)
    try:
        event_time = times.to_datetime(shifted - _TIME_SHIFT)
    except OverflowError:
        event_time = None
    return Example(kind, str(uuid.UUID(bytes=raw)), event_time, place)
