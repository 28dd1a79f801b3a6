"""The SQL of the benchmarks, a file for each statement."""

from __future__ import annotations

from pathlib import Path

from psycopg.sql import SQL

FOLDER = Path(__file__).with_name("sql")


def statement(name: str) -> SQL:
    """A statement by the name of its file."""
    return SQL((FOLDER / f"{name}.sql").read_text(encoding="utf-8"))
