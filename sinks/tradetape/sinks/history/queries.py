"""The SQL of the history, from queries.sql: each a statement with named parameters."""

from __future__ import annotations

from psycopg.sql import SQL

from tradetape.producers.sql_blocks import sql_blocks
from tradetape.sinks.history.schema import SCHEMA, in_schema


def query(name: str, schema: str = SCHEMA) -> SQL:
    """One statement by its name, for one schema."""
    return SQL(in_schema(sql_blocks("tradetape.sinks.history", "queries.sql")[name], schema))
