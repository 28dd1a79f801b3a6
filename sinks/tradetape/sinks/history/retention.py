"""The months of the history: what each weighs, and how old ones are let go (only of tables that `retention` names).

A month is dropped in one statement that waits for its lock a second at most, then tries again: whoever writes meanwhile
waits no longer than that, and a late event of a dropped month has its partition made again by the sink.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import date, datetime
from typing import NamedTuple

import psycopg
from psycopg import errors as sqlstate
from psycopg.sql import Identifier

from tradetape.sinks.errors import DatabaseUnavailable, RetentionRefused
from tradetape.sinks.history.connection import first_line, passing_errors
from tradetape.sinks.history.queries import query
from tradetape.sinks.history.schema import SCHEMA

COUNTED_BYTES = 64 * 1024**2
"""Partitions up to this size are counted; of larger ones PostgreSQL's own estimate is given."""
ATTEMPTS = 10
PAUSE_S = 0.5


class Month(NamedTuple):
    """One month of one table. `bytes` include indexes; `is_estimate` says that `rows` was not counted."""

    table: str
    month: date
    rows: int
    is_estimate: bool
    bytes: int
    first: datetime | None
    last: datetime | None


class Drop(NamedTuple):
    """A month that goes, with its size in bytes."""

    table: str
    month: date
    bytes: int


def months(connection: psycopg.Connection, table: str | None = None) -> Iterator[Month]:
    """Every month of the history, or of one table."""
    with passing_errors():
        for name, month, estimate, size_bytes, heap_bytes in _partitions(connection, table):
            place, within = Identifier(SCHEMA, name), {"month": month}
            # By the primary key, which begins with the time: no scan.
            first, last = connection.execute(query("month_span").format(table=place), within).fetchone() or (None, None)
            is_estimate = heap_bytes > COUNTED_BYTES
            counted = (
                None if is_estimate else connection.execute(query("month_count").format(table=place), within).fetchone()
            )
            yield Month(name, month, counted[0] if counted else max(0, estimate), is_estimate, size_bytes, first, last)


def _partitions(connection: psycopg.Connection, table: str | None) -> list[tuple[str, date, int, int, int]]:
    rows = connection.execute(query("partitions"), {"table": table}).fetchall()
    return [(name, month, *sizes) for name, month, _, *sizes in rows if month is not None]


def expired(connection: psycopg.Connection, *, keep_months: int, tables: Sequence[str] = ()) -> list[Drop]:
    """The months older than the current one and `keep_months` before it, oldest first.

    Of the given tables, or of all that may lose months. Raises RetentionRefused for one that may not, or not so many.
    """
    with passing_errors():
        least: dict[str, int] = dict(connection.execute(query("retention")).fetchall())
        for table in tables or least:
            if table not in least:
                raise RetentionRefused(
                    f"{table} is kept for ever: only {', '.join(least)} may lose months (table {SCHEMA}.retention)"
                )
            if keep_months < least[table]:
                raise RetentionRefused(f"of {table} at least {least[table]} months before the current one are kept")
        (oldest_kept,) = connection.execute(query("oldest_kept"), {"months": keep_months}).fetchone() or (date.min,)
        found = [
            Drop(name, month, size_bytes)
            for table in tables or least
            for name, month, _, size_bytes, _ in _partitions(connection, table)
            if month < oldest_kept
        ]
    return sorted(found, key=lambda one: (one.month, one.table))


def drop(connection: psycopg.Connection, one: Drop) -> bool:
    """Drop a month; False where it was gone already. Raises DatabaseUnavailable when others never let go of it."""
    for _ in range(ATTEMPTS):
        try:
            found = connection.execute(query("drop_month"), {"table": one.table, "month": one.month}).fetchone()
        except sqlstate.LockNotAvailable:
            time.sleep(PAUSE_S)
            continue
        except sqlstate.InsufficientPrivilege as error:
            raise RetentionRefused(first_line(error)) from error
        except psycopg.OperationalError as error:
            raise DatabaseUnavailable(f"PostgreSQL: {first_line(error)}") from error
        return bool(found and found[0])
    raise DatabaseUnavailable(
        f"{one.table} {one.month:%Y-%m} is in use by a long query; nothing of it was dropped: try again later"
    )
