"""What stands in PostgreSQL of one run, asked in plain SQL."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.resources import files

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from tradetape.console.demo.trading import Order, PaperOrder
from tradetape.schemas import Event, EventType


def event_ids(connection: psycopg.Connection, event_type: EventType, venue: str) -> list[str]:
    """The event ids of a venue in an event type's table, one for each row."""
    return [row[0] for row in connection.execute(_statement("rows.sql", event_type), {"venue": venue})]


def venues(connection: psycopg.Connection, event_type: EventType) -> list[str]:
    """Every venue that an event type's table holds."""
    return [row[0] for row in connection.execute(_statement("venues.sql", event_type))]


def is_stored(connection: psycopg.Connection, event_type: EventType, event: Event) -> bool:
    """Whether an event's row can be seen."""
    given = {"event_time": event.event_time, "event_id": event.event_id}
    return connection.execute(_statement("stored.sql", event_type), given).fetchone() is not None


def paper_orders(connection: psycopg.Connection, trade_ids: Iterable[str]) -> dict[Order, PaperOrder]:
    """What the paper executor says of the orders of these trades."""
    found = connection.execute(_text("orders.sql"), {"trade_ids": list(trade_ids)})
    return {(trade_id, leg_index): PaperOrder(fills, is_done) for trade_id, leg_index, fills, is_done in found}


def _statement(name: str, event_type: EventType) -> Composed:
    return _text(name).format(table=Identifier(event_type.table))


def _text(name: str) -> SQL:
    # The text is part of the package: nobody's input reaches it.
    return SQL((files(__package__) / name).read_text(encoding="utf-8"))
