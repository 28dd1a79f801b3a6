"""The one transaction of the history: rows by COPY, then the fence, or nothing.

Between the two it waits for what has to be acknowledged before the offsets move, which by then mostly is. It takes rows
for COPY and knows neither Avro nor Kafka. When some are there already it writes the same rows through a staging table,
which counts the repeats; when a row cannot be stored it says which halves can.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import psycopg
from psycopg import errors as sqlstate
from psycopg.sql import SQL, Composed, Identifier

from tradetape.sinks.errors import DatabaseUnavailable
from tradetape.sinks.history.connection import passing_errors
from tradetape.sinks.history.copy_rows import CopyRows
from tradetape.sinks.history.offsets import Offsets
from tradetape.sinks.history.schema import SCHEMA
from tradetape.streams.processor import Partition

_COPY = SQL("COPY {table} ({columns}) FROM STDIN (FORMAT BINARY)")
# Not LIKE the table, for which one would have to be allowed to read it.
_STAGE = SQL("CREATE TEMPORARY TABLE {stage} ({columns}) ON COMMIT DROP")
_MERGE = SQL("INSERT INTO {table} ({columns}) SELECT {columns} FROM {stage} ON CONFLICT DO NOTHING")


class HistoryWriter:
    """Writes rows and offsets in one transaction of a session in autocommit mode."""

    def __init__(
        self,
        connection: psycopg.Connection,
        offsets: Offsets,
        acknowledged: Callable[[], None],
        schema: str = SCHEMA,
    ) -> None:
        self._connection = connection
        self._offsets = offsets
        self._acknowledged = acknowledged
        self._schema = schema

    def write(self, tables: Sequence[CopyRows], ends: Mapping[Partition, int]) -> int:
        """Store rows that are all new; how many. Raises psycopg's UniqueViolation when one is not."""
        return self._transact(tables, ends, self._copy)

    def merge(self, tables: Sequence[CopyRows], ends: Mapping[Partition, int]) -> int:
        """Store rows of which some may be there already; how many were new."""
        return self._transact(tables, ends, self._copy_through_stage)

    def _transact(
        self, tables: Sequence[CopyRows], ends: Mapping[Partition, int], store: Callable[[CopyRows], int]
    ) -> int:
        with passing_errors(), self._connection.transaction():
            # Step 1: the rows. Step 2: the dead letters among their records. Step 3: only now may the offsets move.
            stored = sum(store(rows) for rows in tables)
            self._acknowledged()
            self._offsets.advance(self._connection, ends)
        self._offsets.advanced(ends)
        return stored

    def can_store(self, rows: CopyRows) -> psycopg.Error | None:
        """Whether the rows could be stored, without storing them; the error when not."""
        try:
            with passing_errors(), self._connection.transaction(force_rollback=True):
                self._copy_through_stage(rows)
        except (psycopg.DataError, psycopg.IntegrityError) as error:
            return error
        return None

    def _copy(self, rows: CopyRows) -> int:
        return self._copy_into(Identifier(self._schema, rows.table), rows)

    def _copy_through_stage(self, rows: CopyRows) -> int:
        stage = Identifier("pg_temp", f"stage_{rows.table}")
        table = Identifier(self._schema, rows.table)
        self._connection.execute(_STAGE.format(stage=stage, columns=_typed_columns(rows)))
        self._copy_into(stage, rows)
        merge = _MERGE.format(table=table, columns=_columns(rows), stage=stage)
        try:
            return self._connection.execute(merge).rowcount
        except sqlstate.CheckViolation as error:
            if error.diag.constraint_name is None:
                # No partition, though all were there a moment ago: retention, and no fault of any row.
                raise DatabaseUnavailable(
                    f"a month of {rows.table} was dropped while its events were stored"
                ) from error
            raise

    def _copy_into(self, table: Identifier, rows: CopyRows) -> int:
        with self._connection.cursor() as cursor:
            with cursor.copy(_COPY.format(table=table, columns=_columns(rows))) as copy:
                for piece in rows.pieces():
                    copy.write(piece)
            return cursor.rowcount


def _columns(rows: CopyRows) -> Composed:
    return SQL(", ").join(map(Identifier, rows.columns))


def _typed_columns(rows: CopyRows) -> Composed:
    return SQL(", ").join(
        SQL("{} {}").format(Identifier(name), SQL(kind)) for name, kind in zip(rows.columns, rows.kinds, strict=True)
    )
