"""The history sink: a batch of records becomes rows and offsets in one transaction, each event exactly once (I6).

A record that cannot be decoded or stored goes to the dead letters, acknowledged there before the offset moves past it;
the rest of its batch is stored.
"""

from __future__ import annotations

import logging
import struct
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import lru_cache
from typing import NamedTuple

import msgspec
import psycopg

from tradetape.schemas import Catalogue, Codec, DecodeError, times
from tradetape.sinks.errors import DatabaseUnavailable
from tradetape.sinks.history.connection import connect, passing_errors
from tradetape.sinks.history.copy_rows import CopyRows
from tradetape.sinks.history.offsets import Offsets
from tradetape.sinks.history.queries import query
from tradetape.sinks.history.schema import SCHEMA
from tradetape.sinks.history.tables import HistoryTable, Values, read_tables
from tradetape.sinks.history.writer import HistoryWriter
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.sinks")

DECODING = "VALUE_CONVERTER"
STORING = "TASK_PUT"
TOPICS_CHECKED_EVERY_US = 10_000_000
UNENCODABLE = (ValueError, OverflowError, struct.error)
"""What a value raises that no column can hold."""


class _Row(msgspec.Struct, gc=False):
    record: Record
    table: HistoryTable
    month: str
    plain: Values
    data: bytes | None = None
    is_refused: bool = False

    def encoded(self) -> bytes:
        """For COPY; worked out when it is wanted, once. Raises one of UNENCODABLE."""
        if self.data is None:
            self.data = self.table.row(self.record, self.plain)
        return self.data


class _Session(NamedTuple):
    connection: psycopg.Connection
    writer: HistoryWriter
    tables: dict[str, HistoryTable]


class HistorySink:
    """Processor and keeper of its own offsets. `counts` holds stored, repeated, skipped."""

    def __init__(
        self,
        *,
        dsn: str,
        catalogue: Catalogue,
        dead_letters: DeadLetters,
        topic_uuid: Callable[[str], str],
        codec: Codec | None = None,
        name: str = "history",
        offsets: Offsets | None = None,
        schema: str = SCHEMA,
    ) -> None:
        self.name = name
        self.topics = tuple(catalogue.topic_name(one) for one in catalogue)
        self.counts: Counter[str] = Counter()
        self._event_types = {catalogue.topic_name(one): one for one in catalogue}
        self._dsn = dsn
        self._codec = codec or Codec(catalogue)
        self._dead_letters = dead_letters
        self._offsets = offsets or Offsets(name, topic_uuid)
        self._schema = schema
        self._known_months: set[tuple[str, str]] = set()
        self._session: _Session | None = None
        self._topics_checked_us = 0

    def tick(self, now_us: int) -> None:
        """See that no topic was made anew under us: Kafka may just read on in it. Raises HistoryLost, BrokersUnreachable.

        What was stored of the new topic by then is found again after the restart, and counts as repeated.
        """
        if now_us - self._topics_checked_us >= TOPICS_CHECKED_EVERY_US:
            self._topics_checked_us = now_us
            self._offsets.check_topics()

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Take the partitions from their previous owner; where to start in each."""
        session = self._connected()
        with self._lost_session_forgotten(), passing_errors():
            return self._offsets.claim(session.connection, partitions)

    def released(self, partitions: Iterable[Partition]) -> None:
        """They are somebody else's now. No batch is being written meanwhile, so their next owner need not end our session."""
        released = self._offsets.release(partitions)
        if not self._offsets.held:
            self.forget_session()
        elif released and self._session is not None:
            try:
                with self._lost_session_forgotten(), passing_errors():
                    self._offsets.disown(self._session.connection, released)
            except DatabaseUnavailable as error:
                logger.warning("still the owner of what is released: %s", error, extra={"action": "release"})

    def process(self, batch: Sequence[Record]) -> None:
        """Store what the batch holds. Raises DatabaseUnavailable, RegistryUnreachable, Fenced, WentBack, SchemaBehind."""
        session = self._connected()
        with self._lost_session_forgotten():
            news = self._new(batch)
            if news:
                rows = self._rows(session, news)
                self._store(session, rows, _ends(news))

    def examine(self, record: Record) -> None:
        """Decode it, and make its row."""
        plain = self._codec.decode_fields(record.topic, record.value)
        if self._session is not None:
            self._session.tables[record.topic].row(record, plain)

    def pass_over(self, records: Sequence[Record]) -> None:
        """Move the offsets past dead letters. Raises as `process` does."""
        session = self._connected()
        with self._lost_session_forgotten():
            if news := self._new(records):
                self._store(session, [], _ends(news))

    def _connected(self) -> _Session:
        """The session, made anew after a loss; what we hold is taken again before anything is written."""
        if self._session is None:
            connection = connect(self._dsn, application=f"tradetape-{self.name}")
            try:
                with passing_errors():
                    tables = read_tables(connection, self._event_types, self._schema)
                    self._offsets.retake(connection)
            except BaseException:
                connection.close()
                raise
            self._session = _Session(
                connection, HistoryWriter(connection, self._offsets, self._dead_letters.flush, self._schema), tables
            )
        return self._session

    def _lost_session_forgotten(self) -> _ForgetOnLoss:
        return _ForgetOnLoss(self)

    def forget_session(self) -> None:
        """Close the session; the next batch makes another."""
        # The next one may lead to another server, or to one that was restored without these months.
        self._known_months.clear()
        if self._session is not None:
            self._session.connection.close()
            self._session = None

    close = forget_session

    def _new(self, batch: Sequence[Record]) -> list[Record]:
        """Those that are not stored yet: a batch may come again after a COMMIT whose answer was lost."""
        news = self._offsets.unstored(batch)
        self.counts["skipped"] += len(batch) - len(news)
        return news

    def _rows(self, session: _Session, records: Sequence[Record]) -> list[_Row]:
        rows: list[_Row] = []
        refused: list[tuple[Record, DecodeError]] = []
        for record in records:
            try:
                plain = self._codec.decode_fields(record.topic, record.value)
            except DecodeError as error:
                refused.append((record, error))
            else:
                rows.append(
                    _Row(record, session.tables[record.topic], _month(plain["event_time"] // times.DAY_US), plain)
                )
        # Last: while a schema cannot be had the batch comes again and again, and each time would repeat its dead letters.
        for record, why in refused:
            self._dead_letters.send(record, why.reason, why, stage=DECODING)
        return self._with_months(session, rows)

    def _with_months(self, session: _Session, rows: list[_Row]) -> list[_Row]:
        """Make the monthly partitions that are missing; rows of a month that is refused are dead letters."""
        refused: dict[tuple[str, str], psycopg.DataError] = {}
        for key in {(row.table.name, row.month) for row in rows} - self._known_months:
            try:
                with passing_errors():
                    session.connection.execute(query("ensure_month", self._schema), {"table": key[0], "month": key[1]})
                self._known_months.add(key)
            except psycopg.DataError as error:
                refused[key] = error
        for row in rows if refused else ():
            if (error_of := refused.get((row.table.name, row.month))) is not None:
                self._dead_letters.send(row.record, "no_month", error_of, stage=STORING)
        return [row for row in rows if (row.table.name, row.month) not in refused] if refused else rows

    def _store(self, session: _Session, rows: list[_Row], ends: Mapping[Partition, int]) -> None:
        """The ladder: all at once; else through staging, which finds repeats; else without the rows that cannot be stored."""
        try:
            stored = session.writer.write(self._for_copy(rows), ends)
        except (psycopg.IntegrityError, psycopg.DataError) as error:
            # A month that we know may have been dropped since, by retention.
            self._known_months.clear()
            rows = self._with_months(session, _unrefused(rows))
            if isinstance(error, psycopg.DataError):
                self._refuse_among(session, rows)
            stored = self._merge(session, rows, ends)
        self.counts["stored"] += stored
        self.counts["repeated"] += len(_unrefused(rows)) - stored

    def _merge(self, session: _Session, rows: list[_Row], ends: Mapping[Partition, int]) -> int:
        try:
            return session.writer.merge(self._for_copy(rows), ends)
        except (psycopg.IntegrityError, psycopg.DataError):
            self._refuse_among(session, _unrefused(rows))
            return session.writer.merge(self._for_copy(rows), ends)

    def _refuse_among(self, session: _Session, rows: Sequence[_Row]) -> None:
        """Bisect rows that the database refuses together to those that it refuses alone: they are dead letters."""
        if len(rows) <= 1:
            if (error := self._error_of(session, rows)) is not None:
                self._refuse(rows[0], error)
            return
        first, second = rows[: len(rows) // 2], rows[len(rows) // 2 :]
        is_in_first = self._error_of(session, first) is not None
        if is_in_first:
            self._refuse_among(session, first)
        if not is_in_first or self._error_of(session, second) is not None:
            self._refuse_among(session, second)

    def _error_of(self, session: _Session, rows: Sequence[_Row]) -> psycopg.Error | None:
        return next(
            (one for table in self._for_copy(rows) if (one := session.writer.can_store(table)) is not None), None
        )

    def _for_copy(self, rows: Sequence[_Row]) -> list[CopyRows]:
        by_table: dict[HistoryTable, list[_Row]] = {}
        for row in rows:
            by_table.setdefault(row.table, []).append(row)
        return [CopyRows(table.name, table.columns, table.kinds, self._encoded(own)) for table, own in by_table.items()]

    def _encoded(self, rows: Sequence[_Row]) -> Iterator[bytes]:
        """For COPY, which goes on without the rows that have no form in their table's columns: they are dead letters."""
        for row in rows:
            if not row.is_refused:
                try:
                    encoded = row.encoded()
                except UNENCODABLE as error:
                    self._refuse(row, error)
                else:
                    yield encoded

    def _refuse(self, row: _Row, error: BaseException) -> None:
        row.is_refused = True
        self._dead_letters.send(row.record, "unstorable", error, stage=STORING)


class _ForgetOnLoss:
    """Drops the session when what failed may have been the session."""

    def __init__(self, sink: HistorySink) -> None:
        self._sink = sink

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: object) -> None:
        if isinstance(error, DatabaseUnavailable):
            self._sink.forget_session()


@lru_cache(maxsize=4_096)
def _month(day: int) -> str:
    """The first day of the month in which a day since 1970 lies; neighbours on the tape share their day."""
    return times.to_datetime(day * times.DAY_US).strftime("%Y-%m-01")


def _ends(records: Sequence[Record]) -> dict[Partition, int]:
    last = {(record.topic, record.partition): record.offset for record in records}
    return {Partition(*place): offset + 1 for place, offset in last.items()}


def _unrefused(rows: Sequence[_Row]) -> list[_Row]:
    return [row for row in rows if not row.is_refused]
