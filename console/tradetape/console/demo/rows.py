"""What stands in PostgreSQL of one run, asked in plain SQL."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg.sql import SQL, Composed, Identifier

from tradetape.schemas import Event, EventType


class Journal(NamedTuple):
    """A signal walked back to what it rested on: its indicator values and the candle behind them."""

    signal_id: str
    strategy_id: str
    symbol: str
    action: str
    direction: str
    event_time: datetime
    reference_price: Decimal
    reasons: list[str]
    update_id: str
    timeframe: str
    rsi_14: float
    ema_50: float
    ema_200: float
    candle_id: str
    candle_open_time: datetime
    candle_close: Decimal
    candle_volume: Decimal


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


def newest_signal(connection: psycopg.Connection, venue: str) -> Journal | None:
    """The newest signal of a venue, walked back by ids; None where there is none."""
    found = connection.execute(_text("journal.sql"), {"venue": venue}).fetchone()
    return Journal._make(found) if found else None


def _statement(name: str, event_type: EventType) -> Composed:
    return _text(name).format(table=Identifier(event_type.table))


def _text(name: str) -> SQL:
    # The text is part of the package: nobody's input reaches it.
    return SQL((files(__package__) / name).read_text(encoding="utf-8"))
