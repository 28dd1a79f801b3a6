"""The SQL of the history, from queries.sql: blocks of `-- name: …`, each a statement with named parameters."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources

import psycopg
from psycopg.sql import SQL


@lru_cache(maxsize=1)
def _blocks() -> dict[str, str]:
    text = resources.files("tradetape.sinks.history").joinpath("queries.sql").read_text(encoding="utf-8")
    blocks = [block.partition("\n") for block in text.split("-- name: ")[1:]]
    return {name.strip(): body.strip() for name, _, body in blocks}


def query(name: str) -> psycopg.sql.SQL:
    """One statement by its name."""
    return SQL(_blocks()[name])
