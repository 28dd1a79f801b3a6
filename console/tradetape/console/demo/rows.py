"""What stands in PostgreSQL of one run, asked in plain SQL."""

from __future__ import annotations

from importlib.resources import files

import psycopg
from psycopg.sql import SQL, Identifier

from tradetape.schemas import EventType

# The text is part of the package: nobody's input reaches it.
_EVENT_IDS = SQL((files(__package__) / "rows.sql").read_text(encoding="utf-8"))


def event_ids(connection: psycopg.Connection, event_type: EventType, venue: str) -> list[str]:
    """The event ids of a venue in an event type's table, one for each row."""
    statement = _EVENT_IDS.format(table=Identifier(event_type.table))
    return [row[0] for row in connection.execute(statement, {"venue": venue})]
