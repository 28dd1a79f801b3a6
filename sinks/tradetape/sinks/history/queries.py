"""The SQL of the history, from queries.sql: each a statement with named parameters."""

from __future__ import annotations

from psycopg.sql import SQL

from tradetape.producers.sql_blocks import sql_blocks


def query(name: str) -> SQL:
    """One statement by its name."""
    return SQL(sql_blocks("tradetape.sinks.history", "queries.sql")[name])
