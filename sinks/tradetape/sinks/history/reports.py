"""What can be asked of the history by name: its views, and the queries that are shipped as .sql files in `report_files`.

Both are asked in the same way: a range of time, a symbol, a venue, newest first. A query never changes anything.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from importlib import resources
from typing import Any, NamedTuple

import psycopg
from psycopg.sql import SQL, Composable, Composed, Identifier

from tradetape.sinks.errors import ReportUnknown
from tradetape.sinks.history.connection import connect, passing_errors
from tradetape.sinks.history.queries import query
from tradetape.sinks.history.schema import SCHEMA

ROWS_A_FETCH = 2_000
TIME_TYPES = {"timestamptz", "date"}
ORDERING_TYPES = {"text", "uuid"}
_SETTINGS = SQL(
    "SET default_transaction_read_only = on; SET statement_timeout = '10min'; SET idle_in_transaction_session_timeout = 0"
)
"""Whoever reads the rows in a pager may take as long as they like; nobody waits for a reader."""


class Report(NamedTuple):
    """Something that can be asked by name; `source` is what stands behind FROM."""

    name: str
    comment: str
    source: Composable


class Filter(NamedTuple):
    """Which rows: start <= time < end, None for all."""

    start: datetime | None = None
    end: datetime | None = None
    symbol: str | None = None
    venue: str | None = None
    limit: int | None = None


class Answer(NamedTuple):
    """The names of the columns, and the rows as they come."""

    columns: tuple[str, ...]
    rows: Iterator[tuple[Any, ...]]


@contextmanager
def reading(dsn: str) -> Iterator[psycopg.Connection]:
    """A session that can change nothing. Raises DatabaseUnavailable, SchemaBehind."""
    with passing_errors(), connect(dsn, application="tradetape-query") as connection:
        connection.execute(_SETTINGS)
        yield connection


def reports(connection: psycopg.Connection) -> list[Report]:
    """All that can be asked: the database's views, then the shipped queries. Raises SchemaBehind."""
    views = [
        Report(name, comment, Identifier(SCHEMA, name))
        for name, comment in connection.execute(query("views")).fetchall()
    ]
    return [*views, *_shipped()]


def _shipped() -> list[Report]:
    folder = resources.files("tradetape.sinks.history").joinpath("report_files")
    texts = {one.name[:-4]: one.read_text(encoding="utf-8") for one in folder.iterdir() if one.name.endswith(".sql")}
    return [
        Report(name, text.partition("\n")[0].removeprefix("-- "), SQL("({})").format(SQL(text)))
        for name, text in sorted(texts.items())
    ]


def named(known: list[Report], name: str) -> Report:
    """The report of that name. Raises ReportUnknown, which names the nearest."""
    found = next((one for one in known if one.name == name), None)
    if found is None:
        names = [one.name for one in known]
        close = difflib.get_close_matches(name, names, n=1)
        hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(names)}"
        raise ReportUnknown(f"there is no view or query {name!r}; {hint}")
    return found


def ask(connection: psycopg.Connection, report: Report, which: Filter) -> Answer:
    """What a report says, newest first.

    Its first column of a time or a day is what `start` and `end` are about, a day by its beginning in UTC. Raises
    ReportUnknown for a filter that it has no column for.
    """
    kinds = _kinds(connection, report)
    statement, parameters = _statement(report, kinds, which)
    return Answer(tuple(kinds), _rows(connection, statement, parameters))


def _rows(connection: psycopg.Connection, statement: Composed, parameters: dict[str, Any]) -> Iterator[tuple[Any, ...]]:
    with passing_errors(), connection.transaction(), connection.cursor("report") as cursor:
        cursor.itersize = ROWS_A_FETCH
        cursor.execute(statement, parameters)
        yield from cursor


def _statement(report: Report, kinds: dict[str, str], which: Filter) -> tuple[Composed, dict[str, Any]]:
    time = next((name for name, kind in kinds.items() if kind in TIME_TYPES), None)
    given = {"start": which.start, "end": which.end, "symbol": which.symbol, "venue": which.venue}
    given = {name: value for name, value in given.items() if value is not None}
    column_of = {"start": time, "end": time, "symbol": "symbol", "venue": "venue"}
    if lacking := [name for name in given if column_of[name] not in kinds]:
        raise ReportUnknown(f"{report.name} has no column for {', '.join(lacking)}; it has {', '.join(kinds)}")
    where = SQL(" AND ").join([SQL("true"), *(_CONDITIONS[name].format(time=_instant(time, kinds)) for name in given)])
    # Texts and ids decide between equal times, so that two answers are in one order.
    order: list[Composable] = [SQL("{} DESC").format(Identifier(time))] if time else []
    order += [Identifier(name) for name, kind in kinds.items() if kind in ORDERING_TYPES]
    text = _ASKED.format(source=report.source, where=where, order=SQL(", ").join(order or [SQL("1")]))
    return text, {**given, "limit": which.limit}


_ASKED = SQL("SELECT * FROM {source} AS report WHERE {where} ORDER BY {order} LIMIT %(limit)s")
_CONDITIONS = {
    "start": SQL("{time} >= %(start)s"),
    "end": SQL("{time} < %(end)s"),
    "symbol": SQL("symbol = %(symbol)s"),
    "venue": SQL("venue = %(venue)s"),
}


def _instant(time: str | None, kinds: dict[str, str]) -> Composable:
    """The column as an instant, whatever the session's time zone."""
    if time is None:
        return SQL("NULL")
    column = Identifier(time)
    return SQL("({}::timestamp AT TIME ZONE 'UTC')").format(column) if kinds[time] == "date" else column


def _kinds(connection: psycopg.Connection, report: Report) -> dict[str, str]:
    """The types of its columns, as PostgreSQL names them."""
    probe = connection.execute(SQL("SELECT * FROM {} AS report LIMIT 0").format(report.source))
    types = connection.adapters.types
    found = {}
    for one in probe.description or ():
        info = types.get(one.type_code)
        found[one.name] = info.name if info else ""
    return found
