"""Compares a copy of the history with the live one, row by row, over what a replay has read.

Live rows whose records retention had deleted before the replay, or that came after its end, are no differences.
"""

from __future__ import annotations

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from tradetape.producers.sql_blocks import sql_blocks
from tradetape.schemas import Catalogue, times
from tradetape.sinks.history.queries import query
from tradetape.sinks.history.schema import SCHEMA
from tradetape.sinks.replay.plan import Plan
from tradetape.sinks.replay.runs import STATEMENTS
from tradetape.sinks.replay.targets.target import Difference


def compared(connection: psycopg.Connection, schema: str, *, plan: Plan, catalogue: Catalogue) -> list[Difference]:
    """The tables of the topics that were read."""
    # As long as it takes: the rows of a range may be many millions, and nobody waits for these locks.
    connection.execute("SET statement_timeout = 0")
    return [_compared(connection, schema, catalogue.by_topic(topic).table, topic, plan) for topic in plan.topics]


def _compared(connection: psycopg.Connection, schema: str, table: str, topic: str, plan: Plan) -> Difference:
    start_us, end_us = plan.request.stretch
    places = [one for one in plan.places if one.topic == topic]
    parameters = {
        "start": None if start_us is None else times.to_datetime(start_us),
        "end": None if end_us is None else times.to_datetime(end_us),
        "topic": topic,
        "partitions": [one.partition for one in places],
        "begins": [one.begin for one in places],
        "ends": [one.end for one in places],
    }
    columns = _columns(connection, schema, table)
    statement = SQL(sql_blocks(STATEMENTS)["compare"]).format(
        live=Identifier(SCHEMA, table),
        copy=Identifier(schema, table),
        live_row=_row("live", columns),
        copy_row=_row("copy", columns),
    )
    found = connection.execute(statement, parameters).fetchone()
    assert found is not None
    return Difference(table, *found)


def _columns(connection: psycopg.Connection, schema: str, table: str) -> list[str]:
    """The copy's: a live table may have more, which somebody added."""
    return [row[0] for row in connection.execute(query("columns"), {"schema": schema, "table": table}).fetchall()]


def _row(table: str, columns: list[str]) -> Composed:
    return SQL("({})").format(SQL(", ").join(Identifier(table, name) for name in columns))
