"""The workers that bench/scale measures: what each is given to do, and what has come of it when it is done."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import psycopg

from bench.sample import VENUE, symbol, updates
from bench.services import Services
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Catalogue,
    Codec,
    Direction,
    Event,
    Fill,
    RunMode,
    Side,
    Trade,
    TradeClosed,
)
from tradetape.schemas.names import record_key
from tradetape.schemas.stamping import Stamper

RUN_MODE = RunMode.PAPER
RECORDS_OF_A_TRIP = 4


class Sent(NamedTuple):
    """A record as a producer of ours puts it on the tape."""

    record: str
    key: bytes
    value: bytes
    timestamp_ms: int


class Ground(NamedTuple):
    """Where one run takes place."""

    services: Services
    catalogue: Catalogue
    dsn: str


class Work(NamedTuple):
    """A worker: its words behind `tradetape work`, and how many records it is given."""

    name: str
    words: tuple[str, ...]
    records: int
    quick_records: int
    emit: Callable[[Recording, int, int], None]
    """Emits as many, of so many symbols."""
    found: Callable[[Ground], int]
    """How much has come of the records,"""
    expected: Callable[[Sequence[Sent]], int]
    """and how much it has to be in the end."""
    is_done_later: bool = False
    """Whether a record that counts as processed may still be at work."""


class Recording:
    """Encodes what is emitted, and keeps it."""

    def __init__(self) -> None:
        self.sent: list[Sent] = []
        self._stamper = Stamper(codec=Codec(CATALOGUE), source="bench", run_mode=RUN_MODE)

    def emit(self, event: Event) -> Any:
        """The event as stamped."""
        event_type, stamped, value, emitted_at_us = self._stamper.stamp(event)
        self._stamper.keep()
        key = record_key(stamped.venue, stamped.symbol)
        self.sent.append(Sent(event_type.record, key, value, emitted_at_us // 1_000))
        return stamped


def recorded(work: Work, records: int, symbols: int) -> list[Sent]:
    """As many records for a worker, of so many symbols."""
    recording = Recording()
    work.emit(recording, records, symbols)
    return recording.sent


def _bars(recording: Recording, records: int, symbols: int) -> None:
    first_close = datetime.now(UTC) - timedelta(minutes=30)
    for update in updates(records, series=symbols, first_close=first_close, step=timedelta(seconds=1)):
        recording.emit(update)


def _orders(recording: Recording, records: int, symbols: int) -> None:
    for number in range(records):
        recording.emit(_trade(number, symbol(number % symbols), Action.ENTER))


def _round_trips(recording: Recording, records: int, symbols: int) -> None:
    """Entry, fill, exit, fill; in one position of a symbol after the other."""
    for number in range(records // RECORDS_OF_A_TRIP):
        of = symbol(number % symbols)
        entry = recording.emit(_trade(number, of, Action.ENTER))
        recording.emit(_fill(entry, Side.BUY, "100"))
        leaving = recording.emit(_trade(number, of, Action.EXIT, position_ref=entry.trade_id))
        recording.emit(_fill(leaving, Side.SELL, "101"))


def _trade(number: int, of: str, action: Action, **more: Any) -> Trade:
    now = datetime.now(UTC)
    return Trade(
        venue=VENUE, symbol=of, event_time=now, signal_id=f"{action}-{number}", strategy_id="bench", action=action,
        direction=Direction.LONG, quantity="2", approved_at=now, approved_by="bench", idempotency_key=f"{action}-{number}",
        **more,
    )  # fmt: skip


def _fill(trade: Trade, side: Side, price: str) -> Fill:
    return Fill(
        venue=VENUE, symbol=trade.symbol, event_time=datetime.now(UTC), trade_id=trade.trade_id, side=side, price=price,
        quantity="2", amount_quote=str(2 * int(price)), venue_order_id=f"order-{trade.trade_id}",
        venue_trade_id=f"fill-{trade.trade_id}",
    )  # fmt: skip


def _rows(ground: Ground) -> int:
    return _counted(ground, "SELECT count(*) FROM tradetape.indicator_updates")


def _acknowledged(ground: Ground) -> int:
    return _counted(ground, "SELECT count(*) FROM tradetape.dispatch_intents WHERE outcome = 'ACKED'")


def _counted(ground: Ground, statement: str) -> int:
    with psycopg.connect(ground.dsn) as connection:
        row = connection.execute(statement).fetchone()
    return int(row[0]) if row else 0


def _hashes(ground: Ground) -> int:
    with ground.services.redis_client() as client:
        return sum(1 for _ in client.scan_iter(match="tradetape:1:indicators:*", count=1_000))


def _closes(ground: Ground) -> int:
    return ground.services.records(ground.catalogue.topic_name(ground.catalogue.by_class(TradeClosed)))


def _series(records: Sequence[Sent]) -> int:
    return len({one.key for one in records})


def _trips(records: Sequence[Sent]) -> int:
    return len(records) // RECORDS_OF_A_TRIP


FAR = ("--executor", "bench.far_executor:FarExecutor")
WORKS = (
    Work("history", ("history",), 240_000, 8_000, _bars, _rows, len),
    Work("state, plain engine", ("state", "--engine", "kafka"), 120_000, 4_000, _bars, _hashes, _series),
    Work("state, Faust", ("state", "--engine", "faust"), 24_000, 2_000, _bars, _hashes, _series),
    Work("dispatch", ("dispatch", *FAR), 600, 100, _orders, _acknowledged, len, is_done_later=True),
    Work("positions", ("positions",), 40_000, 4_000, _round_trips, _closes, _trips, is_done_later=True),
)
