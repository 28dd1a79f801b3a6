"""The book of approval: the same whatever order events come in, however often, and whoever writes it down."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from tradetape.schemas import (
    Action,
    CloseStatus,
    Direction,
    DispatchOutcome,
    Leg,
    RunMode,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
)
from tradetape.streams.approval.book import Book, Last, OpenTrade
from tradetape.streams.approval.policy import Policy

AT = datetime(2025, 3, 1, 12, tzinfo=UTC)
COMMON: dict[str, Any] = {"venue": "binance", "run_mode": RunMode.PAPER, "correlation_id": "c"}


def trade(number: int, symbol: str = "BTCUSDT", *, legs: int = 0, **more: Any) -> Trade:
    given: dict[str, Any] = {
        "trade_id": f"trade {number}", "event_time": AT + timedelta(minutes=number), "symbol": symbol,
        "signal_id": f"signal {number}", "strategy_id": "s", "action": Action.ENTER, "direction": Direction.LONG,
        "planned_entry_price": Decimal(100 + number), "legs": [Leg(leg_index=leg + 1) for leg in range(legs)],
        "approved_at": AT, "approved_by": "approval", "idempotency_key": "k",
    }  # fmt: skip
    return Trade(**{**COMMON, **given, **more})


def closed(of: Trade, minute: int) -> TradeClosed:
    nothing: dict[str, Any] = dict.fromkeys(
        ("quantity", "entry_cost_quote", "exit_value_quote", "fees_quote", "pnl_quote"), Decimal(0)
    )
    at = AT + timedelta(minutes=minute)
    return TradeClosed(
        **COMMON, **nothing, event_time=at, closed_at=at, symbol=of.symbol, trade_id=of.trade_id or "", strategy_id="s",
        direction=Direction.LONG, legs_filled=1, legs_max=1, close_status=CloseStatus.COMPLETED,
    )  # fmt: skip


def dispatched(of: Trade, outcome: str, leg: int = 0) -> TradeDispatch:
    return TradeDispatch(
        **COMMON, event_time=AT, symbol=of.symbol, trade_id=of.trade_id or "", leg_index=leg, attempt=1,
        outcome=DispatchOutcome(outcome), executor="paper",
    )  # fmt: skip


def book_of(events: Sequence[object]) -> Book:
    book = Book()
    for event in events:
        if isinstance(event, Trade):
            book.approved(event)
        elif isinstance(event, TradeClosed):
            book.closed(event)
        elif isinstance(event, TradeDispatch):
            book.dispatched(event)
    return book


TRADES = [trade(number, symbol, legs=number % 2) for number, symbol in enumerate(["A", "A", "B", "B", "C"])]
EVENTS = [
    *TRADES, closed(TRADES[0], 9), closed(TRADES[1], 3), dispatched(TRADES[2], "EXPIRED"),
    dispatched(TRADES[3], "EXPIRED"), dispatched(TRADES[4], "REJECTED"), dispatched(TRADES[4], "ACKED"),
]  # fmt: skip
"""Of A both are closed, of B one has expired whole and one in part, C is open."""


@given(st.permutations(EVENTS), st.lists(st.sampled_from(EVENTS)))
def test_order_and_repetition_make_no_other_book(order: list[object], repeated: list[object]) -> None:
    book = book_of([*order, *repeated])
    assert book.trades == {"trade 3": OpenTrade("binance:B", (1,)), "trade 4": OpenTrade("binance:C", (0,))}
    assert book.last == {
        "binance:A": Last(TRADES[1].event_time, "trade 1", Decimal(101), AT + timedelta(minutes=9)),
        "binance:B": Last(TRADES[3].event_time, "trade 3", Decimal(103)),
        "binance:C": Last(TRADES[4].event_time, "trade 4", Decimal(104)),
    }


@given(st.permutations(EVENTS), st.integers(0, len(EVENTS)))
def test_a_book_that_knows_a_part_learns_the_rest_from_the_tape(order: list[object], known: int) -> None:
    part, whole = book_of(order[:known]), book_of(EVENTS)
    part = Book(part.trades, part.last)
    part.merge(whole)
    assert (part.trades, part.last) == (whole.trades, whole.last)


def test_what_is_on_its_way_to_the_tape_is_not_forgotten_for_it() -> None:
    book = book_of([trade(7, "D")])
    book.merge(book_of(EVENTS))
    assert set(book.trades) == {"trade 3", "trade 4", "trade 7"}


def test_only_what_opens_a_position_is_open() -> None:
    book = book_of([trade(number, action=action) for number, action in enumerate(Action) if action != Action.ENTER])
    assert not book.trades
    assert not book.has_changed


def test_facts_are_those_of_the_signals_own_symbol_on_its_own_venue() -> None:
    signal = TradeSignal(
        **COMMON, symbol="B", strategy_id="s", timeframe="1m", action=Action.ENTER, direction=Direction.LONG,
        reference_price=Decimal(5), entry_price=Decimal(4),
    )  # fmt: skip
    facts = book_of([*EVENTS, trade(8, "B", venue="kraken")]).facts(signal, Policy())
    assert (facts.open_trades, facts.open_trades_of_symbol) == (3, 1)
    assert (facts.price, facts.last_price) == (Decimal(4), Decimal(103))
    assert facts.last_opened_at == TRADES[3].event_time
    assert (facts.last_closed_at, facts.is_symbol_allowed) == (None, None)


def test_what_changed_is_told_and_what_did_not_is_not() -> None:
    book = Book(book_of(EVENTS).trades, book_of(EVENTS).last)
    book.closed(closed(TRADES[0], 9))
    book.approved(TRADES[4])
    assert not book.has_changed
    book.closed(closed(TRADES[4], 10))
    assert (book.changed_trades, book.changed_series) == ({"trade 4"}, {"binance:C"})
