"""The order among topics, repetition and restarts do not change a close, ids included (I9); money agrees with Decimal's own."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from positions_rig import WIDE, Run, Story, content
from tradetape.schemas import (
    Action,
    CloseStatus,
    DecodeError,
    Direction,
    DispatchOutcome,
    Event,
    Fill,
    Leg,
    RunMode,
    Side,
    Trade,
    TradeClosed,
)
from tradetape.streams.effects import MemoryEffects, Output
from tradetape.streams.errors import EffectsRefused
from tradetape.streams.record import Record

Contents = dict[str, dict[str, Any]]


def quantities(digits: int = 8) -> st.SearchStrategy[Decimal]:
    """Amounts as venues have them."""
    return st.integers(1, 10**12).map(lambda number: Decimal(number).scaleb(-digits))


@st.composite
def positions(draw: st.DrawFn) -> Story:
    """The stories of two positions of one symbol, interleaved: legs, partial fills, partial closes, fees of any kind."""
    story = Story()
    todo = [list(_steps(draw, story)) for _ in range(2)]
    while todo:
        steps = draw(st.sampled_from(todo))
        steps.pop(0)()
        if not steps:
            todo.remove(steps)
    return story


def _steps(draw: st.DrawFn, story: Story) -> Sequence[Callable[[], object]]:
    """What happens to one position, in order; each step puts one record onto the tape."""
    direction = draw(st.sampled_from([Direction.LONG, Direction.SHORT]))
    into, out = (Side.BUY, Side.SELL) if direction is Direction.LONG else (Side.SELL, Side.BUY)
    trades: dict[str, Trade] = {}
    steps: list[Callable[[], object]] = [
        lambda: trades.update(enter=story.trade(direction=direction, legs=[Leg(leg_index=1)], leverage=2.0))
    ]
    if draw(st.integers(0, 5)) == 0:
        outcome = draw(st.sampled_from([DispatchOutcome.REJECTED, DispatchOutcome.EXPIRED]))
        steps += [lambda leg=leg: story.dispatch(trades["enter"], outcome, leg=leg, seconds=leg) for leg in (0, 1)]  # type: ignore[misc]
        return steps

    def fill(name: str, side: Side, quantity: Decimal) -> Callable[[], object]:
        price = draw(quantities(6))
        fee = draw(st.none() | quantities(12))
        asset = draw(st.sampled_from(["USDT", "BNB"])) if fee is not None else None
        names = draw(st.sampled_from(["trade", "position", "both"]))
        seconds = draw(st.integers(0, 10_000))

        def do() -> object:
            position = trades["enter"].trade_id if names != "trade" else None
            return story.fill(
                trades[name] if names != "position" else None, side, str(quantity), str(price), fee=fee,
                fee_asset=asset, position_ref=position, seconds=seconds, leg_index=draw(st.sampled_from([None, 0, 1])),
            )  # fmt: skip

        return do

    entered = draw(st.lists(quantities(), min_size=1, max_size=3))
    steps += [fill("enter", into, quantity) for quantity in entered]
    steps.append(lambda: story.dispatch(trades["enter"], DispatchOutcome.ACKED))
    if draw(st.booleans()):
        added = draw(quantities())
        steps.append(
            lambda: trades.update(add=story.trade(Action.ADD, direction, position_ref=trades["enter"].trade_id))
        )
        steps.append(fill("add", into, added))
        entered.append(added)
    steps.append(
        lambda: trades.update(
            exit=story.trade(
                Action.EXIT, direction, position_ref=trades["enter"].trade_id, tags={"exit_reason": "done"}
            )
        )
    )
    held = WIDE.create_decimal(sum(entered))
    parts = draw(st.lists(st.integers(1, 99), max_size=2))
    for part in parts:
        some = (held * part / 100).quantize(Decimal("1e-10"))
        steps.append(fill("exit", out, some))
        held -= some
    steps.append(fill("exit", out, held))
    return steps


@st.composite
def interleavings(draw: st.DrawFn, records: list[Record]) -> list[Record]:
    """Another order of the records, in which each topic keeps its own."""
    topics: dict[str, list[Record]] = {}
    for record in records:
        topics.setdefault(record.topic, []).append(record)
    order = draw(st.permutations([record.topic for record in records]))
    queues = {topic: iter(queue) for topic, queue in topics.items()}
    return [next(queues[topic]) for topic in order]


def contents(closes: Sequence[TradeClosed]) -> Contents:
    found = {one.trade_id: content(one) for one in closes}
    assert len(found) == len(closes), "one position was closed twice"
    return found


def in_order(story: Story) -> Contents:
    run = Run(story.records, story.codec)
    run.deliver(story.records)
    return contents(run.closes())


def events(story: Story) -> list[Event]:
    return [story.codec.decode(record.topic, record.value) for record in story.records]


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_any_order_among_the_topics_gives_the_same_closes(data: st.DataObject) -> None:
    """Also while the tape is still being written: nothing can be read ahead that has not come yet."""
    story = data.draw(positions())
    order = data.draw(interleavings(story.records))
    written: list[Record] = []
    run = Run(written, story.codec)
    start = 0
    while start < len(order):
        size = data.draw(st.integers(1, 4))
        written += order[start : start + size]
        run.deliver(order[start : start + size])
        start += size
    assert contents(run.closes()) == in_order(story)


@settings(max_examples=30, deadline=None)
@given(st.data())
def test_a_whole_tape_delivered_in_any_order_gives_the_same_closes(data: st.DataObject) -> None:
    story = data.draw(positions())
    run = Run(story.records, story.codec)
    run.deliver(data.draw(interleavings(story.records)), batch=data.draw(st.integers(1, 5)))
    assert contents(run.closes()) == in_order(story)


@settings(max_examples=40, deadline=None)
@given(st.data())
def test_a_worker_that_is_killed_anywhere_loses_no_close_and_changes_none(data: st.DataObject) -> None:
    """Before it emitted, after it emitted and before the offset moved, or in between two batches."""
    story = data.draw(positions())
    tape: list[Record] = list(story.records)
    order, size = data.draw(interleavings(story.records)), data.draw(st.integers(1, 5))
    run = Run(tape, story.codec)
    start = emitted = 0
    while start < len(order):
        batch = order[start : start + size]
        run.deliver(batch)
        for output in run.effects.outputs[emitted:]:
            tape.append(on_tape(output, len(tape)))
        emitted = len(run.effects.outputs)
        fate = data.draw(st.sampled_from(["goes on", "killed", "killed before its offset moved"]))
        if fate != "goes on":
            run.restarted()
        if fate != "killed before its offset moved":
            start += size
    assert contents(run.closes()) == in_order(story)


def on_tape(output: Output, offset: int) -> Record:
    return Record(output.topic, 0, offset, output.key, output.value, (), output.timestamp_ms)


@settings(max_examples=60, deadline=None)
@given(positions())
def test_the_money_agrees_with_decimal_arithmetic(story: Story) -> None:
    all_events = events(story)
    fills = {one.fill_id: one for one in all_events if isinstance(one, Fill)}
    closes = in_order(story)
    trades = [one for one in all_events if isinstance(one, Trade) and one.action is Action.ENTER]
    assert set(closes) == {one.trade_id for one in trades}
    for closed in closes.values():
        mine = [fills[fill_id] for fill_id in closed["fill_ids"]]
        sides = (Side.BUY, Side.SELL) if closed["direction"] is Direction.LONG else (Side.SELL, Side.BUY)
        entry, exit_ = ([one for one in mine if one.side is side] for side in sides)
        bought, sold = (total(one.amount_quote for one in mine if one.side is side) for side in (Side.BUY, Side.SELL))
        fees = total(one.fee or 0 for one in mine if one.fee_asset == "USDT")
        assert closed["pnl_quote"] == WIDE.subtract(WIDE.subtract(sold, bought), fees), "the money that changed hands"
        assert closed["fees_quote"] == fees
        assert closed["entry_cost_quote"] == total(one.amount_quote for one in entry)
        assert closed["exit_value_quote"] == total(one.amount_quote for one in exit_)
        assert closed["entry_price_avg"] == average(entry)
        assert closed["exit_price_avg"] == average(exit_)
        assert (closed["close_status"] in (CloseStatus.FAILED, CloseStatus.EXPIRED)) == (not mine)
        if mine:
            assert closed["closed_at"] == mine[-1].event_time
            assert closed["opened_at"] == min(one.event_time for one in mine)


def total(amounts: Any) -> Decimal:
    found = Decimal(0)
    for amount in amounts:
        found = WIDE.add(found, Decimal(amount))
    return found


def average(fills: Sequence[Fill]) -> Decimal | None:
    if not fills:
        return None
    exact = WIDE.divide(total(one.amount_quote for one in fills), total(one.quantity for one in fills))
    return exact.quantize(Decimal("1e-18"), context=WIDE)


def a_story() -> Story:
    """One position, which is closed."""
    story = Story()
    enter = story.trade()
    story.fill(enter, Side.BUY, "1", "100")
    story.fill(story.trade(Action.EXIT, position_ref=enter.trade_id), Side.SELL, "1", "110")
    return story


class RefusesOnce(MemoryEffects):
    """Kafka does not acknowledge the first attempt."""

    refusals = 1

    def send(self, outputs: Sequence[Output]) -> None:
        if outputs and self.refusals:
            self.refusals -= 1
            raise EffectsRefused("away")
        super().send(outputs)


def test_a_close_that_was_not_acknowledged_is_emitted_with_the_batch_that_comes_again() -> None:
    story = a_story()
    run = Run(story.records, story.codec)
    run.effects = RefusesOnce(codec=story.codec, worker="positions")
    run.restarted()
    run.deliver(story.records)
    assert len(run.closes()) == 1


def test_records_that_somebody_else_was_given_meanwhile_are_not_missing() -> None:
    story = Story()
    enter = story.trade()
    story.fill(enter, Side.BUY, "1", "100")
    run = Run(story.records, story.codec)
    run.deliver(story.records)
    missed = len(story.records)
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id)
    story.fill(leave, Side.SELL, "0.5", "110")
    given_to_us = len(story.records)
    story.fill(leave, Side.SELL, "0.5", "120")
    assert missed < given_to_us
    run.deliver(story.records[given_to_us:])
    assert [one.pnl_quote for one in run.closes()] == [15]


def test_a_close_that_somebody_else_emitted_meanwhile_is_not_emitted_again() -> None:
    story = a_story()
    tape = story.records[:2]
    ours, theirs = Run(tape, story.codec), Run(story.records, story.codec)
    ours.deliver(tape)
    theirs.deliver(story.records)
    (output,) = theirs.effects.outputs
    story.put(output.topic, output.key, output.value)
    story.fill(None, Side.SELL, "1", "110", position_ref=theirs.closes()[0].trade_id)
    tape += story.records[2:]
    ours.deliver(story.records[-1:])
    assert ours.closes() == []


def test_a_fill_whose_trade_is_not_on_the_tape_holds_nobody_up_for_long() -> None:
    story = Story()
    stray = story.trade(signal_id="of another system")
    story.records.clear()
    enter = story.trade()
    story.fill(stray, Side.BUY, "7", "100")
    story.fill(enter, Side.BUY, "1", "100")
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id)
    story.fill(leave, Side.SELL, "0.5", "110")
    run = Run(story.records, story.codec)
    run.deliver(story.records)
    assert run.closes() == []
    seen = len(story.records)
    story.emitted_at += timedelta(seconds=61)
    story.fill(leave, Side.SELL, "0.5", "110")
    run.deliver(story.records[seen:])
    assert [one.pnl_quote for one in run.closes()] == [10]


def test_a_trade_that_lies_on_the_tape_is_read_before_a_later_fill_overtakes_its_own() -> None:
    story = Story()
    enter = story.trade()
    story.fill(enter, Side.BUY, "1", "100")
    run = Run(story.records, story.codec)
    run.deliver(story.records)
    add = story.trade(Action.ADD, position_ref=enter.trade_id)
    not_delivered = len(story.records)
    story.fill(add, Side.BUY, "1", "100")
    story.emitted_at += timedelta(minutes=5)
    story.fill(None, Side.SELL, "1", "110", position_ref=enter.trade_id)
    story.fill(None, Side.SELL, "1", "110", position_ref=enter.trade_id)
    run.deliver(story.records[not_delivered:])
    assert [(one.quantity, one.pnl_quote) for one in run.closes()] == [(Decimal(2), Decimal(20))]


def test_a_fill_that_lies_on_the_tape_is_read_before_its_order_is_taken_for_failed() -> None:
    story = Story()
    enter = story.trade()
    run = Run(story.records, story.codec)
    run.deliver(story.records)
    story.fill(enter, Side.BUY, "1", "100")
    story.dispatch(enter, DispatchOutcome.REJECTED)
    run.deliver(story.records[-1:])
    assert run.closes() == []


def test_records_of_another_run_mode_are_counted_and_passed_over() -> None:
    story = a_story()
    run = Run(story.records, story.codec, run_mode=RunMode.LIVE)
    run.deliver(story.records)
    assert run.closes() == []
    assert run.positions.counts == {"other_mode": 4}


def test_rubbish_goes_to_the_dead_letters_once_and_its_neighbours_are_folded() -> None:
    story = a_story()
    topic = story.records[0].topic
    story.put(topic, b"binance:BTCUSDT", b"rubbish")
    story.put(topic, b"binance:BTCUSDT", b"")
    run = Run(story.records, story.codec)
    run.deliver(story.records[:2])
    run.deliver(story.records[2:])
    assert len(run.closes()) == 1
    assert [letter.reason for letter in run.dead_letters.letters] == ["bad_magic", "empty"]
    with pytest.raises(DecodeError):
        run.positions.examine(story.records[-1])
    run.positions.examine(story.records[0])
    run.positions.pass_over(story.records)
