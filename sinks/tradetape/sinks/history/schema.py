"""The PostgreSQL schema that a history lives in: the live one, or a copy of it under another name, for a replay.

Migrations and statements are written for the live schema; for a copy its name is put in their place, word by word.
"""

from __future__ import annotations

import re

from tradetape.sinks.errors import SchemaNameRefused

SCHEMA = "tradetape"
"""The live one."""
_NAME = re.compile(r"[a-z_][a-z0-9_]{0,62}")
_WORD = re.compile(rf"\b{SCHEMA}\b")


def checked(name: str) -> str:
    """A name fit for a schema: one that SQL takes without quotes. Raises SchemaNameRefused."""
    if _NAME.fullmatch(name) is None or name.startswith("pg_"):
        raise SchemaNameRefused(
            f"{name!r} is no name of a schema: lower-case letters, digits and _, at most 63, not beginning with pg_"
        )
    return name


def in_schema(text: str, schema: str) -> str:
    """SQL that is written for the live schema, for another one. Raises SchemaNameRefused."""
    return text if schema == SCHEMA else _WORD.sub(checked(schema), text)
