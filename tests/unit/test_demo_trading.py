"""The proof of what was traded finds each step that is missing, doubled, altered or wrong, and knows what is still to come."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest

from tradetape.console.demo.roles import APPROVAL, TRADING, made_by
from tradetape.console.demo.topic_content import contents_of
from tradetape.console.demo.trading import Book, PaperOrder, Trading, expected_ids, still_to_come
from tradetape.console.demo.trading_reconciliation import TradingLine, reconcile_trading
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import (
    CATALOGUE,
    Action,
    CloseStatus,
    Codec,
    DecisionOutcome,
    Direction,
    DispatchOutcome,
    Event,
    Fill,
    RunMode,
    Side,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
    times,
)
from tradetape.schemas.stamping import Stamper
from tradetape.streams.record import Record

AT = datetime(2025, 6, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
UPDATE = "5b0f1f6e-0000-4000-8000-000000000001"
END_US = times.from_datetime(AT + 60 * MINUTE)
"""When the market's last bar closed."""
ALL = made_by(TRADING)
Events = list[Event]


def signal(at: datetime, action: Action, position_ref: str | None = None) -> TradeSignal:
    return TradeSignal(
        venue="demo7", symbol="BTCUSDT", strategy_id="s", timeframe="1m", bar_close_time=at, action=action,
        direction=Direction.LONG, amount_quote=100, position_ref=position_ref, input_event_ids=[UPDATE],
    )  # fmt: skip


class Story:
    """What a run leaves on the tape of one position, entered at 10 and left at 12, with 0.1 of fees at each."""

    def __init__(self) -> None:
        self.tape = RecordingProducer(source="story", run_mode=RunMode.PAPER)
        self.entry = self._passed(signal(AT, Action.ENTER))
        self.exit = self._passed(signal(AT + 5 * MINUTE, Action.EXIT, self.entry.trade_id))
        self.fills = [self._filled(self.entry, Side.BUY, 10), self._filled(self.exit, Side.SELL, 12)]
        self.close = self.tape.emit(
            TradeClosed(
                venue="demo7", symbol="BTCUSDT", trade_id=self.entry.trade_id, signal_id=self.entry.signal_id,
                strategy_id="s", direction=Direction.LONG, opened_at=AT, closed_at=AT + 5 * MINUTE,
                entry_price_avg=10, exit_price_avg=12, quantity=2, entry_cost_quote=20, exit_value_quote=24,
                fees_quote=Decimal("0.2"), pnl_quote=Decimal("3.8"), pnl_ratio=0.19, legs_filled=1, legs_max=1,
                fill_ids=[str(one.fill_id) for one in self.fills], close_status=CloseStatus.COMPLETED,
            )
        )  # fmt: skip

    def _passed(self, wanted: TradeSignal) -> Trade:
        given = self.tape.emit(wanted)
        chain: dict[str, Any] = {"venue": "demo7", "symbol": "BTCUSDT", "event_time": given.event_time}
        trade = Trade(
            **chain, signal_id=str(given.signal_id), strategy_id="s", action=given.action,
            direction=given.direction, position_ref=given.position_ref, approved_at=given.event_time,
            approved_by="approval", idempotency_key="k",
        )  # fmt: skip
        trade = self.tape.emit(trade)
        self.tape.emit(
            SignalDecision(
                **chain, signal_id=str(given.signal_id), stage="approval", outcome=DecisionOutcome.PASSED,
                trade_id=trade.trade_id,
            )
        )  # fmt: skip
        for outcome in (DispatchOutcome.INTENDED, DispatchOutcome.ACKED):
            self.tape.emit(
                TradeDispatch(
                    **chain, trade_id=str(trade.trade_id), leg_index=0, attempt=1, outcome=outcome, executor="paper"
                )
            )
        return trade

    def _filled(self, trade: Trade, side: Side, price: int) -> Fill:
        return self.tape.emit(
            Fill(
                venue="demo7", symbol="BTCUSDT", event_time=trade.event_time, trade_id=trade.trade_id, leg_index=0,
                venue_order_id=f"paper-{trade.trade_id}-0", venue_trade_id="1", side=side, price=price, quantity=2,
                amount_quote=2 * price, fee=Decimal("0.1"), fee_asset="USDT",
                position_ref=trade.position_ref or trade.trade_id,
            )
        )  # fmt: skip

    @property
    def events(self) -> Events:
        return list(self.tape.events)

    @property
    def signal_ids(self) -> list[str]:
        return [str(one.signal_id) for one in self.tape.of(TradeSignal)]

    @property
    def book(self) -> Book:
        return {(str(one.trade_id), 0): PaperOrder(1, True) for one in (self.entry, self.exit)}


def trading_of(events: Events) -> Trading:
    contents = contents_of(Codec(CATALOGUE), "demo7")
    stamper = Stamper(codec=Codec(CATALOGUE), source="story", run_mode=RunMode.PAPER)
    for offset, event in enumerate(events):
        event_type, _, value, _ = stamper.stamp(event)
        topic = CATALOGUE.topic_name(event_type)
        contents[topic].add(Record(topic, 0, offset, b"demo7:BTCUSDT", value, (), 0))
    return Trading.of(contents, CATALOGUE)


def reconciled(events: Events, made: frozenset[str] = ALL) -> TradingLine:
    return reconcile_trading(trading_of(events), update_ids={UPDATE}, made=made)


def coming(events: Events, book: Book, *, made: frozenset[str] = ALL, market_end_us: int = END_US) -> dict[str, int]:
    return dict(still_to_come(trading_of(events), book, made=made, market_end_us=market_end_us))


@pytest.fixture(scope="module")
def story() -> Story:
    return Story()


def without(story: Story, gone: Callable[[Event], bool]) -> Events:
    return [one for one in story.events if not gone(one)]


def altered(story: Story, kind: type[Event], **values: object) -> Events:
    """The story with the last event of a kind changed."""
    events = story.events
    place = max(number for number, one in enumerate(events) if isinstance(one, kind))
    events[place] = msgspec.structs.replace(events[place], **values)
    return events


def test_a_whole_trade_has_no_difference_and_nothing_to_come(story: Story) -> None:
    line = reconciled(story.events)
    assert (line.positions, line.closed, line.difference, line.faults) == (1, 1, 0, ())
    assert (line.pnl_quote, line.fees_quote) == (Decimal("3.8"), Decimal("0.2"))
    assert coming(story.events, story.book) == {}


def test_every_id_that_has_to_follow_is_derived_from_the_signals(story: Story) -> None:
    expected = expected_ids(trading_of(story.events), story.signal_ids, story.book, CATALOGUE)
    for kind in (SignalDecision, Trade, TradeDispatch, Fill, TradeClosed):
        assert expected[kind.__name__] == {one.event_id for one in story.tape.of(kind)}, kind


@pytest.mark.parametrize(
    ("kind", "lacks"),
    [
        (SignalDecision, {"SignalDecision": 2}),
        (Trade, {"Trade": 2}),
        (TradeDispatch, {"TradeDispatch": 2}),
        (TradeClosed, {"TradeClosed": 1}),
    ],
)
def test_what_has_not_followed_yet_is_still_to_come(story: Story, kind: type[Event], lacks: dict[str, int]) -> None:
    assert coming(without(story, lambda one: isinstance(one, kind)), story.book) == lacks


def test_an_order_is_still_to_be_filled_where_the_market_has_a_later_bar(story: Story) -> None:
    is_last = lambda one: isinstance(one, (TradeClosed, Fill)) and one.event_id != story.fills[0].event_id  # noqa: E731
    book = {**story.book, (str(story.exit.trade_id), 0): PaperOrder(0, False)}
    assert coming(without(story, is_last), book) == {"Fill": 1}
    assert coming(without(story, is_last), book, market_end_us=times.from_datetime(AT + 5 * MINUTE)) == {}


def test_a_position_that_is_held_is_not_closed_and_expected_to_be_only_when_it_is_over(story: Story) -> None:
    held = without(story, lambda one: isinstance(one, (TradeClosed, Fill)) and one.event_id != story.fills[0].event_id)
    assert reconciled(held).difference == 0
    assert expected_ids(trading_of(held), story.signal_ids, story.book, CATALOGUE)["TradeClosed"] == set()
    over = without(story, lambda one: isinstance(one, TradeClosed))
    assert expected_ids(trading_of(over), story.signal_ids, story.book, CATALOGUE)["TradeClosed"] == {
        story.close.event_id
    }


def test_an_order_that_nobody_took_closes_its_position(story: Story) -> None:
    events = without(story, lambda one: isinstance(one, (TradeClosed, Fill)) or one.event_id == story.exit.event_id)
    refused = [
        msgspec.structs.replace(one, outcome=DispatchOutcome.REJECTED, event_id=None)
        if isinstance(one, TradeDispatch) and one.outcome is DispatchOutcome.ACKED
        else one
        for one in events
    ]
    assert coming(refused, {})["TradeClosed"] == 1


def test_a_signal_without_a_decision_and_an_order_without_an_end_are_found(story: Story) -> None:
    line = reconciled(without(story, lambda one: isinstance(one, SignalDecision)))
    assert "2 a signal without exactly one decision" in line.faults[0]
    line = reconciled(without(story, lambda one: isinstance(one, TradeDispatch)))
    assert "2 an order without exactly one outcome" in line.faults[0]


def test_an_order_with_two_ends_is_found(story: Story) -> None:
    (last,) = story.tape.of(TradeDispatch)[-1:]
    another = msgspec.structs.replace(last, outcome=DispatchOutcome.EXPIRED, event_id=None)
    line = reconciled([*story.events, another])
    assert line.difference == 1
    assert "exactly one outcome" in line.faults[0]


@pytest.mark.parametrize(
    ("name", "value", "says"),
    [
        ("pnl_quote", Decimal("3.9"), "pnl_quote is 3.9, its fills say 3.8"),
        ("fees_quote", Decimal("0.1"), "fees_quote is 0.1, its fills say 0.2"),
        ("quantity", Decimal(3), "quantity is 3, its fills say 2"),
        ("entry_cost_quote", Decimal("20.000000000000000001"), "entry_cost_quote is 20.000000000000000001"),
        ("fill_ids", [], "fills in which position"),
    ],
)
def test_a_close_that_says_something_else_than_its_fills_is_found(
    story: Story, name: str, value: object, says: str
) -> None:
    line = reconciled(altered(story, TradeClosed, **{name: value}))
    assert line.difference >= 1
    assert says in line.faults[0]


def test_a_closed_trade_whose_signal_or_input_is_not_there_is_found(story: Story) -> None:
    for events in (
        without(story, lambda one: isinstance(one, TradeSignal)),
        altered(story, TradeSignal, input_event_ids=["another"]),
        altered(story, TradeSignal, input_event_ids=[]),
    ):
        line = reconciled(events)
        assert line.difference == 1
        assert "not to be walked back" in line.faults[0]


def test_a_fill_by_a_later_candle_than_the_first_is_found(story: Story) -> None:
    line = reconciled(altered(story, Fill, event_time=AT + 6 * MINUTE))
    assert line.difference == 1
    assert "filled on paper by a later candle" in line.faults[0]


def test_an_event_that_comes_again_may_not_say_something_else(story: Story) -> None:
    contents = contents_of(Codec(CATALOGUE), "demo7")
    stamper = Stamper(codec=Codec(CATALOGUE), source="story", run_mode=RunMode.PAPER)
    content = contents["tradetape.trades-closed"]
    for offset, pnl in enumerate(("3.8", "3.8", "3.9")):
        again = msgspec.structs.replace(story.close, pnl_quote=Decimal(pnl), emitted_at=None, producer_seq=None)
        _, _, value, _ = stamper.stamp(again)
        stamper.keep()
        content.add(Record(content.topic, 0, offset, b"demo7:BTCUSDT", value, (), 0))
        assert content.altered == ({story.close.event_id} if pnl == "3.9" else set())


def test_nothing_is_expected_of_workers_that_are_not_there(story: Story) -> None:
    """Only approval is at work: its trades go nowhere, and that is no difference."""
    made = made_by([APPROVAL])
    events = without(story, lambda one: isinstance(one, (TradeDispatch, Fill, TradeClosed)))
    assert coming(events, {}, made=made) == {}
    assert reconciled(events, made).difference == 0
    assert coming(events, {}) == {"TradeDispatch": 2}
    signals = without(story, lambda one: not isinstance(one, TradeSignal))
    assert coming(signals, {}, made=frozenset()) == {}
    assert coming(signals, {}, made=made) == {"SignalDecision": 2}


def test_the_fills_of_another_venue_than_the_one_on_paper_are_what_they_are(story: Story) -> None:
    events = [
        msgspec.structs.replace(one, executor="webhook") if isinstance(one, TradeDispatch) else one
        for one in story.events
    ]
    expected = expected_ids(trading_of(events), story.signal_ids, {}, CATALOGUE)
    assert expected["Fill"] == {one.event_id for one in story.fills}
    assert expected_ids(trading_of(story.events), story.signal_ids, {}, CATALOGUE)["Fill"] == set()
