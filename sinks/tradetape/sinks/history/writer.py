"""The one transaction of the history: rows by COPY, then the fence, or nothing.

It takes ready buffers and knows neither Avro nor Kafka. When rows are there already it writes the same buffers through
a staging table, which counts the repeats; when a row cannot be stored it says which halves can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from tradetape.sinks.history.connection import passing_errors
from tradetape.sinks.history.copy_rows import CopyBuffer
from tradetape.sinks.history.offsets import Offsets
from tradetape.sinks.history.tables import SCHEMA
from tradetape.streams.processor import Partition

_COPY = SQL("COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)")
_STAGE = SQL("CREATE TEMPORARY TABLE {stage} (LIKE {table}) ON COMMIT DROP")
_MERGE = SQL("INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} ON CONFLICT DO NOTHING")


class HistoryWriter:
    """Writes buffers and offsets in one transaction of a session in autocommit mode."""

    def __init__(self, connection: psycopg.Connection, offsets: Offsets) -> None:
        self._connection = connection
        self._offsets = offsets

    def write(self, buffers: Sequence[CopyBuffer], ends: Mapping[Partition, int]) -> int:
        """Store rows that are all new; how many. Raises psycopg's UniqueViolation when one is not."""
        return self._transact(buffers, ends, self._copy)

    def merge(self, buffers: Sequence[CopyBuffer], ends: Mapping[Partition, int]) -> int:
        """Store rows of which some may be there already; how many were new."""
        return self._transact(buffers, ends, self._copy_through_stage)

    def _transact(
        self, buffers: Sequence[CopyBuffer], ends: Mapping[Partition, int], store: Callable[[CopyBuffer], int]
    ) -> int:
        with passing_errors(), self._connection.transaction():
            stored = sum(store(buffer) for buffer in buffers)
            self._offsets.advance(self._connection, ends)
        self._offsets.advanced(ends)
        return stored

    def can_store(self, buffer: CopyBuffer) -> psycopg.Error | None:
        """Whether the rows could be stored, without storing them; the error when not."""
        try:
            with passing_errors(), self._connection.transaction(force_rollback=True):
                self._copy_through_stage(buffer)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            return error
        return None

    def _copy(self, buffer: CopyBuffer) -> int:
        return self._copy_into(Identifier(SCHEMA, buffer.table), buffer)

    def _copy_through_stage(self, buffer: CopyBuffer) -> int:
        stage = Identifier("pg_temp", f"stage_{buffer.table}")
        table = Identifier(SCHEMA, buffer.table)
        self._connection.execute(_STAGE.format(stage=stage, table=table))
        self._copy_into(stage, buffer)
        return self._connection.execute(_MERGE.format(table=table, columns=_columns(buffer), stage=stage)).rowcount

    def _copy_into(self, table: Identifier, buffer: CopyBuffer) -> int:
        with self._connection.cursor() as cursor:
            with cursor.copy(_COPY.format(table=table, columns=_columns(buffer))) as copy:
                copy.write(buffer.stream())
            return cursor.rowcount


def _columns(buffer: CopyBuffer) -> Composed:
    return SQL(", ").join(map(Identifier, buffer.columns))
