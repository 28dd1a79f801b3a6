"""The SQL of the history, from queries.sql: each a statement with named parameters."""

from __future__ import annotations

from pathlib import Path

from psycopg.sql import SQL

from tradetape.producers.sql_blocks import sql_blocks
from tradetape.sinks.history.schema import SCHEMA, in_schema

_STATEMENTS = Path(__file__).with_name("queries.sql")


def query(name: str, schema: str = SCHEMA) -> SQL:
    """One statement by its name, for one schema."""
    return SQL(in_schema(sql_blocks(_STATEMENTS)[name], schema))
