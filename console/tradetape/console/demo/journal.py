"""The journal of one trade: from the indicator values that it rests on to its profit, walked by ids alone in the history."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal
from importlib.resources import files
from typing import NamedTuple

import psycopg
from psycopg.rows import class_row
from psycopg.sql import SQL


class Step(NamedTuple):
    """One fill, everything that led to it, and the close of its position, which is the same for all of them."""

    close_id: str
    symbol: str
    closed_at: datetime
    close_status: str
    exit_reason: str | None
    entry_price_avg: Decimal
    exit_price_avg: Decimal
    fees_quote: Decimal
    pnl_quote: Decimal
    pnl_ratio: float
    min_price: Decimal | None
    max_price: Decimal | None
    candle_id: str
    timeframe: str
    close: Decimal
    update_id: str
    rsi_14: float
    signal_id: str
    event_time: datetime
    action: str
    direction: str
    reasons: list[str]
    decision_id: str
    outcome: str
    stage: str
    trade_id: str
    planned_entry_price: Decimal
    dispatch_id: str
    dispatch_outcome: str
    executor: str
    fill_id: str
    side: str
    quantity: Decimal
    price: Decimal


def newest(connection: psycopg.Connection, venue: str) -> list[Step]:
    """The newest closed trade of a venue, fill by fill; empty where none was closed."""
    statement = SQL((files(__package__) / "journal.sql").read_text(encoding="utf-8"))
    with connection.cursor(row_factory=class_row(Step)) as cursor:
        return cursor.execute(statement, {"venue": venue}).fetchall()
