"""Gives an indicator that arrives in `extra` a column of its own, while sinks go on writing.

No value is lost or doubled at any moment: a row has it in one of the two places, and moves it in one statement. A sink
reads the tables when its session begins, so one that began before the column was there goes on writing to `extra`.
Therefore: 1 add the column; 2 end the sinks' sessions, which they make anew at once, knowing the column; 3 move what lies
in `extra`, batch by batch. Where a session cannot be ended the promotion says so, and is run again later.
"""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from typing import NamedTuple

import psycopg
from psycopg import errors as sqlstate
from psycopg.sql import SQL, Identifier, Literal

from tradetape.sinks.errors import DatabaseUnavailable, PromotionRefused
from tradetape.sinks.history import roles
from tradetape.sinks.history.connection import passing_errors
from tradetape.sinks.history.queries import query
from tradetape.sinks.history.schema import SCHEMA
from tradetape.sinks.history.tables import REST

TABLE = "indicator_updates"
KIND = "double precision"
BATCH_ROWS = 5_000
ATTEMPTS = 20
PAUSE_S = 0.25
_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}")

_SHORT_WAIT = SQL("SET lock_timeout = '500ms'")
"""While it waits for its lock, everybody else waits behind it."""
_ADD = SQL("ALTER TABLE {table} ADD COLUMN IF NOT EXISTS {name} double precision")
_COMMENT = SQL("COMMENT ON COLUMN {table}.{name} IS {comment}")
_MOVE = SQL("""
    WITH batch AS (
        SELECT event_time, event_id FROM {partition}
        WHERE extra ? %(name)s AND (event_time, event_id) > (%(after_time)s, %(after_id)s)
        ORDER BY event_time, event_id LIMIT %(rows)s
    ), moved AS (
        UPDATE {partition} u SET {name} = (u.extra ->> %(name)s)::double precision, extra = nullif(u.extra - %(name)s, '{{}}')
        FROM batch b WHERE u.event_time = b.event_time AND u.event_id = b.event_id AND u.extra ? %(name)s
        RETURNING u.event_time, u.event_id
    )
    SELECT event_time, event_id, count(*) OVER () FROM moved ORDER BY event_time DESC, event_id DESC LIMIT 1
""")
_FIRST = {"after_time": "-infinity", "after_id": "00000000-0000-0000-0000-000000000000"}


class Promoted(NamedTuple):
    """What was done. `has_old_sinks` says that a sink may still write to `extra`: then it has to be run again."""

    is_new: bool
    rows: int
    has_old_sinks: bool


def promote(connection: psycopg.Connection, name: str) -> Promoted:
    """Give an indicator its column and move its values there. Harmless when done already.

    Raises PromotionRefused for a name that cannot have one, DatabaseUnavailable where others never let go of the table.
    """
    with passing_errors():
        columns = {row[0]: row[1:] for row in connection.execute(query("columns"), {"schema": SCHEMA, "table": TABLE})}
        _check(connection, name, columns)
        roles.become_owner(connection)
        if name not in columns:
            _add(connection, name)
        connection.execute(SQL("RESET ROLE"))
        # Also when the column was there: a sink may be older than a promotion that was broken off.
        has_old_sinks = not _renew_sinks(connection)
        rows = sum(_moved(connection, name))
    return Promoted(name not in columns, rows, has_old_sinks)


def _check(connection: psycopg.Connection, name: str, columns: dict[str, tuple[str, bool, bool]]) -> None:
    if not _NAME.fullmatch(name):
        raise PromotionRefused(f"{name!r} is no indicator's name: lower snake case with its period, such as rsi_21")
    if name in columns:
        kind, is_nullable, _ = columns[name]
        if kind != KIND or not is_nullable:
            raise PromotionRefused(f"{name} is a column of {SCHEMA}.{TABLE} that holds no indicator")
    elif not connection.execute(query("has_extra"), {"name": name}).fetchone():
        raise PromotionRefused(
            f"no stored update has {name} in {REST}: see tradetape.latest_indicators for what there is"
        )


def _add(connection: psycopg.Connection, name: str) -> None:
    table, column = Identifier(SCHEMA, TABLE), Identifier(name)
    comment = Literal(f"Indicator {name}; null where it was not computed.")
    connection.execute(_SHORT_WAIT)
    for _ in range(ATTEMPTS):
        try:
            with connection.transaction():
                connection.execute(_ADD.format(table=table, name=column))
                connection.execute(_COMMENT.format(table=table, name=column, comment=comment))
            return
        except sqlstate.LockNotAvailable:
            time.sleep(PAUSE_S)
    raise DatabaseUnavailable(f"{SCHEMA}.{TABLE} is in use by a long query; nothing was changed: try again later")


def _renew_sinks(connection: psycopg.Connection) -> bool:
    """End the sessions of the sinks that are at work; False where one is not ours to end."""
    try:
        return all(ended for (ended,) in connection.execute(query("end_sinks")).fetchall())
    except sqlstate.InsufficientPrivilege:
        return False


def _moved(connection: psycopg.Connection, name: str) -> Iterator[int]:
    """Move month by month, in short transactions of their own; the number of rows of each."""
    for _, _, partition, *_ in connection.execute(query("partitions"), {"table": TABLE}).fetchall():
        statement = _MOVE.format(partition=Identifier(SCHEMA, partition), name=Identifier(name))
        after = _FIRST
        while True:
            parameters = {"name": name, "rows": BATCH_ROWS, **after}
            found = connection.execute(statement, parameters).fetchone()
            if found is None:
                break
            after = {"after_time": found[0], "after_id": found[1]}
            yield found[2]
