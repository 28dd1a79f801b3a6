"""Trades and fills become closed trades: the money of each side, told by hand or by decimal arithmetic of its own (I12)."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from positions_rig import Story, at, closes_of
from tradetape.schemas import Action, CloseStatus, Direction, DispatchOutcome, Leg, OrderType, Side

BUY, SELL = Side.BUY, Side.SELL
D = Decimal


def test_a_long_position_is_closed_by_the_fill_after_which_nothing_is_held() -> None:
    story = Story()
    enter = story.trade(leverage=3.0)
    bought = story.fill(enter, BUY, "0.5", "100", seconds=10, fee="0.05", fee_asset="USDT")
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id, seconds=60, tags={"exit_reason": "target reached"})
    sold = story.fill(leave, SELL, "0.5", "110", seconds=70, fee="0.055", fee_asset="USDT")
    (closed,) = closes_of(story)

    assert (closed.trade_id, closed.signal_id, closed.strategy_id) == (enter.trade_id, enter.signal_id, "rsi-dip")
    assert (closed.correlation_id, closed.causation_id) == (enter.correlation_id, sold.event_id)
    assert (closed.run_mode, closed.producer) == (enter.run_mode, "positions")
    assert (closed.direction, closed.leverage) == (Direction.LONG, 3.0)
    assert (closed.opened_at, closed.closed_at, closed.event_time) == (at(10), at(70), at(70))
    assert (closed.entry_price_avg, closed.exit_price_avg, closed.quantity) == (D(100), D(110), D("0.5"))
    assert (closed.entry_cost_quote, closed.exit_value_quote) == (D(50), D(55))
    assert (closed.fees_quote, closed.pnl_quote) == (D("0.105"), D("4.895"))
    assert closed.pnl_ratio == 0.0979
    assert closed.fill_ids == (bought.event_id, sold.event_id)
    assert (closed.close_status, closed.exit_reason) == (CloseStatus.COMPLETED, "target reached")
    assert (closed.legs_filled, closed.legs_max) == (1, 1)
    assert (closed.min_price, closed.max_price, closed.tags) == (None, None, {})


def test_a_short_position_earns_where_the_price_falls() -> None:
    story = Story()
    enter = story.trade(direction=Direction.SHORT)
    story.fill(enter, SELL, "2", "50", seconds=1, fee="0.1", fee_asset="USDT")
    leave = story.trade(Action.EXIT, Direction.SHORT, position_ref=enter.trade_id)
    story.fill(leave, BUY, "2", "45.5", seconds=2, fee="0.091", fee_asset="USDT")
    (closed,) = closes_of(story)
    assert (closed.entry_cost_quote, closed.exit_value_quote) == (D(100), D(91))
    assert (closed.pnl_quote, closed.pnl_ratio) == (D("8.809"), 0.08809)
    assert closed.direction == Direction.SHORT


def test_added_legs_and_partial_closes_are_one_position_with_its_averages() -> None:
    story = Story()
    legs = [Leg(leg_index=0), Leg(leg_index=1, trigger_price="90"), Leg(leg_index=2, trigger_price="80")]
    enter = story.trade(legs=legs)
    story.fill(enter, BUY, "0.4", "100", seconds=1)
    story.fill(enter, BUY, "0.6", "101", seconds=2)
    story.fill(enter, BUY, "1", "90", seconds=3, leg_index=1)
    add = story.trade(Action.ADD, position_ref=enter.trade_id, seconds=4)
    story.fill(add, BUY, "1", "85", seconds=5)
    reduce = story.trade(Action.REDUCE, position_ref=enter.trade_id, seconds=6)
    story.fill(reduce, SELL, "1.5", "95", seconds=7)
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id, seconds=8)
    story.fill(leave, SELL, "1", "96", seconds=9)
    story.fill(leave, SELL, "0.5", "97", seconds=10)
    (closed,) = closes_of(story)
    # 40 + 60.6 + 90 + 85 for 3; 142.5 + 96 + 48.5 for the same 3.
    assert (closed.entry_cost_quote, closed.exit_value_quote) == (D("275.6"), D(287))
    assert closed.entry_price_avg == D("91.866666666666666667")
    assert closed.exit_price_avg == D("95.666666666666666667")
    assert (closed.pnl_quote, closed.quantity) == (D("11.4"), D(3))
    assert (closed.legs_filled, closed.legs_max, len(closed.fill_ids)) == (3, 3, 7)
    assert (closed.opened_at, closed.closed_at) == (at(1), at(10))


def test_a_fee_in_the_traded_asset_is_money_too_and_counted_once() -> None:
    story = Story()
    enter = story.trade()
    story.fill(enter, BUY, "1", "100", fee="0.001", fee_asset="BTC")
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id)
    story.fill(leave, SELL, "0.999", "110", fee="0.10989", fee_asset="usdt")
    (closed,) = closes_of(story)
    # 100 paid, 109.89 received less 0.10989: what the account gained is what is told.
    assert closed.pnl_quote == D("109.89") - D("0.10989") - 100
    assert closed.fees_quote == D("0.1") + D("0.10989")
    assert closed.pnl_quote == closed.exit_value_quote - closed.entry_cost_quote - closed.fees_quote
    assert (closed.quantity, closed.entry_price_avg) == (D("0.999"), D(100))


def test_fees_that_no_price_here_turns_into_quote_are_named_and_never_guessed() -> None:
    story = Story()
    enter = story.trade()
    story.fill(enter, BUY, "1", "100", fee="0.0003", fee_asset="BNB")
    story.fill(enter, BUY, "1", "100")
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id)
    story.fill(leave, SELL, "2", "100", fee="0.0002", fee_asset="BNB")
    (closed,) = closes_of(story)
    assert (closed.fees_quote, closed.pnl_quote) == (D(0), D(0))
    assert closed.tags == {"fees_left_out": "0.0005 BNB", "fills_without_fee": "1"}


def test_what_the_closing_fill_moves_beyond_the_position_does_not_count() -> None:
    story = Story()
    enter = story.trade()
    story.fill(enter, BUY, "1", "100")
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id)
    story.fill(leave, SELL, "1.25", "120", fee="1.5", fee_asset="USDT")
    (closed,) = closes_of(story)
    assert (closed.exit_value_quote, closed.fees_quote, closed.pnl_quote) == (D(120), D("1.2"), D("18.8"))
    assert closed.tags == {"quantity_beyond_position": "0.25", "fills_without_fee": "1"}


def test_a_fill_belongs_by_its_position_where_it_names_no_trade() -> None:
    story = Story()
    enter = story.trade(stop_loss_price="95")
    story.fill(None, BUY, "1", "100", position_ref=enter.trade_id)
    story.fill(None, SELL, "1", "94.5", position_ref=enter.trade_id)
    (closed,) = closes_of(story)
    assert (closed.pnl_quote, closed.close_status) == (D("-5.5"), CloseStatus.STOPPED)


@pytest.mark.parametrize(
    ("more", "status"),
    [
        ({"order_type": OrderType.STOP}, CloseStatus.STOPPED),
        ({"order_type": OrderType.LIMIT}, CloseStatus.COMPLETED),
        ({"tags": {"close_status": "FORCED"}}, CloseStatus.FORCED),
        ({"tags": {"close_status": "no such status"}}, CloseStatus.COMPLETED),
    ],
)
def test_how_it_ended_is_told_by_the_trade_that_ended_it(more: dict[str, Any], status: CloseStatus) -> None:
    story = Story()
    enter = story.trade(stop_loss_price="200")
    story.fill(enter, BUY, "1", "100")
    story.fill(story.trade(Action.EXIT, position_ref=enter.trade_id, **more), SELL, "1", "101")
    (closed,) = closes_of(story)
    assert closed.close_status == status


@pytest.mark.parametrize(
    ("outcome", "status"),
    [(DispatchOutcome.EXPIRED, CloseStatus.EXPIRED), (DispatchOutcome.REJECTED, CloseStatus.FAILED)],
)
def test_an_order_that_came_to_nothing_closes_its_trade(outcome: DispatchOutcome, status: CloseStatus) -> None:
    story = Story()
    enter = story.trade()
    story.dispatch(enter, DispatchOutcome.INTENDED, seconds=5)
    ended = story.dispatch(enter, outcome, seconds=5, error="too late")
    (closed,) = closes_of(story)
    assert (closed.close_status, closed.exit_reason, closed.causation_id) == (status, "too late", ended.event_id)
    assert (closed.event_time, closed.opened_at, closed.closed_at) == (at(5), None, at(5))
    assert (closed.entry_price_avg, closed.exit_price_avg, closed.pnl_ratio) == (None, None, None)
    assert (closed.quantity, closed.entry_cost_quote, closed.fees_quote, closed.pnl_quote) == (D(0), D(0), D(0), D(0))
    assert (closed.legs_filled, closed.fill_ids) == (0, ())


def test_a_cancelled_entry_closes_its_trade() -> None:
    story = Story()
    enter = story.trade()
    story.dispatch(enter, DispatchOutcome.ACKED)
    cancel = story.trade(Action.CANCEL, position_ref=enter.trade_id)
    story.dispatch(cancel, DispatchOutcome.INTENDED, seconds=20)
    story.dispatch(cancel, DispatchOutcome.ACKED, seconds=20)
    (closed,) = closes_of(story)
    assert (closed.trade_id, closed.close_status, closed.closed_at) == (enter.trade_id, CloseStatus.CANCELLED, at(20))


@pytest.mark.parametrize("outcome", [one for one in DispatchOutcome if one.name not in ("REJECTED", "EXPIRED")])
def test_an_order_that_may_have_been_taken_keeps_its_trade_open(outcome: DispatchOutcome) -> None:
    story = Story()
    enter = story.trade()
    story.dispatch(enter, outcome)
    assert closes_of(story) == []


def test_a_trade_stays_open_while_one_of_its_legs_has_an_order() -> None:
    story = Story()
    enter = story.trade(legs=[Leg(leg_index=1, trigger_price="90")])
    story.dispatch(enter, DispatchOutcome.REJECTED)
    assert closes_of(story) == []
    story.dispatch(enter, DispatchOutcome.REJECTED, leg=1, seconds=3)
    (closed,) = closes_of(story)
    assert (closed.close_status, closed.closed_at, closed.legs_max) == (CloseStatus.FAILED, at(3), 2)


def test_a_doubt_that_is_resolved_closes_the_trade_and_a_repeated_intent_does_not_bring_the_order_back() -> None:
    story = Story()
    enter = story.trade()
    story.dispatch(enter, DispatchOutcome.INTENDED)
    intent = len(story.records) - 1
    story.dispatch(enter, DispatchOutcome.IN_DOUBT)
    story.dispatch(enter, DispatchOutcome.REJECTED)
    story.again(intent)
    (closed,) = closes_of(story)
    assert closed.close_status == CloseStatus.FAILED


def test_a_fill_disproves_the_dispatch_that_says_there_is_no_order() -> None:
    story = Story()
    enter = story.trade()
    story.dispatch(enter, DispatchOutcome.REJECTED)
    story.fill(enter, BUY, "1", "100")
    assert closes_of(story) == []


def test_repeated_records_and_a_late_reconciliation_change_nothing() -> None:
    story = Story()
    enter = story.trade()
    story.again()
    story.fill(enter, BUY, "1", "100")
    story.again()
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id)
    story.fill(leave, SELL, "0.5", "110")
    story.again()
    story.fill(leave, SELL, "0.5", "120", seconds=9)
    story.again()
    story.fill(leave, SELL, "0.5", "130", seconds=20, is_reconciliation=True)
    story.fill(None, BUY, "0.5", "130", seconds=20, is_reconciliation=True, position_ref=enter.trade_id)
    (closed,) = closes_of(story)
    assert (closed.pnl_quote, closed.closed_at, len(closed.fill_ids)) == (D(15), at(9), 3)


def test_an_exit_that_is_known_before_its_entry_closes_once_both_are() -> None:
    story = Story()
    enter = story.trade()
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id)
    story.fill(leave, SELL, "1", "110", seconds=9)
    story.fill(enter, BUY, "1", "100", seconds=1, is_reconciliation=True)
    (closed,) = closes_of(story)
    assert (closed.pnl_quote, closed.quantity, closed.opened_at) == (D(10), D(1), at(1))


def test_positions_of_one_symbol_are_kept_apart() -> None:
    story = Story()
    first, second = story.trade(account_id="a"), story.trade(account_id="b", direction=Direction.SHORT)
    story.fill(first, BUY, "1", "100")
    story.fill(second, SELL, "1", "100")
    story.fill(story.trade(Action.EXIT, position_ref=second.trade_id), BUY, "1", "90")
    story.fill(story.trade(Action.EXIT, position_ref=first.trade_id), SELL, "1", "130")
    assert [(one.trade_id, one.pnl_quote) for one in closes_of(story)] == [
        (second.trade_id, D(10)),
        (first.trade_id, D(30)),
    ]


class TestPriceRange:
    """The prices between the first fill and the closing one, or none at all."""

    def story(self) -> Story:
        """Open from second 30 to second 270: candles from 60 to 240 lie within."""
        story = Story()
        enter = story.trade()
        story.fill(enter, BUY, "1", "100", seconds=30)
        story.fill(story.trade(Action.EXIT, position_ref=enter.trade_id), SELL, "1", "103", seconds=270)
        return story

    def range(self, story: Story) -> tuple[Decimal | None, Decimal | None]:
        (closed,) = closes_of(story)
        return closed.min_price, closed.max_price

    def test_candles_from_before_and_after_do_not_count(self) -> None:
        story = self.story()
        story.candle(0, "1", "1000")
        for opens, low, high in ((60, "99", "101"), (120, "98.5", "102"), (180, "99", "104.25")):
            story.candle(opens, low, high)
        story.candle(240, "2", "2000")
        assert self.range(story) == (D("98.5"), D("104.25"))

    def test_fills_count_where_no_candle_saw_them(self) -> None:
        story = self.story()
        for opens in (60, 120, 180):
            story.candle(opens, "101", "102")
        assert self.range(story) == (D(100), D(103))

    @pytest.mark.parametrize("missing", [60, 120, 180])
    def test_it_is_unknown_where_a_candle_is_missing(self, missing: int) -> None:
        story = self.story()
        for opens in {60, 120, 180} - {missing}:
            story.candle(opens, "99", "104")
        assert self.range(story) == (None, None)

    def test_a_coarser_timeframe_stands_in_where_the_finer_one_has_a_gap(self) -> None:
        story = self.story()
        story.candle(60, "99", "101")
        story.candle(180, "99", "101")
        story.candle(60, "97", "105", timeframe="3m", length_s=180)
        assert self.range(story) == (D(97), D(105))

    def test_a_candle_in_progress_does_not_count(self) -> None:
        story = self.story()
        for opens in (60, 120, 180):
            story.candle(opens, "99", "104", is_final=False, event_time=at(opens + 30))
        assert self.range(story) == (None, None)

    def test_candles_of_another_symbol_do_not_count(self) -> None:
        story = self.story()
        story.symbol = "ETHUSDT"
        for opens in (60, 120, 180):
            story.candle(opens, "99", "104")
        assert self.range(story) == (None, None)
