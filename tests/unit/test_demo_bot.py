"""The bot says what it saw in order, by rules that can be recomputed, and names by id what each signal rests on."""

from __future__ import annotations

from collections import Counter
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from itertools import pairwise

import pytest

from tradetape.console.demo.bars import MINUTE, Bar, read_sample
from tradetape.console.demo.bot import SOURCE, Bot, Holding, leaves_a_dip, market_condition, reason_to_leave
from tradetape.console.demo.chart import Chart, Reading
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Candle,
    Direction,
    IndicatorUpdate,
    MarketCondition,
    Trade,
    TradeSignal,
)
from tradetape.schemas.names import CANONICAL_INDICATORS
from tradetape.streams.approval.answering import trade_of

DAY = 24 * 60


@pytest.fixture(scope="module")
def emitted() -> RecordingProducer:
    """What the bot emits for the sample's last day of one symbol."""
    tape = RecordingProducer(source=SOURCE)
    bot = Bot(tape=tape, venue="demo1")
    for minute in read_sample("BTCUSDT")[-DAY:]:
        bot.on_minute(minute)
    return tape


def test_every_minute_and_every_whole_hour_gives_a_candle_and_an_update(emitted: RecordingProducer) -> None:
    assert Counter(event.timeframe for event in emitted.of(Candle)) == {"1m": DAY, "1h": 23}
    assert Counter(event.timeframe for event in emitted.of(IndicatorUpdate)) == {"1m": DAY, "1h": 23}
    assert len({event.event_id for event in emitted.events}) == len(emitted.events)


def test_candles_carry_the_samples_prices_exactly(emitted: RecordingProducer) -> None:
    minutes = [candle for candle in emitted.of(Candle) if candle.timeframe == "1m"]
    for candle, bar in zip(minutes, read_sample("BTCUSDT")[-DAY:], strict=True):
        assert (candle.open, candle.high, candle.low, candle.close, candle.volume) == bar[4:]
        assert (candle.open_time, candle.close_time) == (bar.open_time, bar.close_time)
        assert candle.event_time == bar.close_time
        assert candle.is_final


def test_an_update_names_the_candle_it_was_computed_from(emitted: RecordingProducer) -> None:
    candles = {candle.event_id: candle for candle in emitted.of(Candle)}
    for update in emitted.of(IndicatorUpdate):
        candle = candles[str(update.candle_event_id)]
        assert (update.timeframe, update.bar_close_time) == (candle.timeframe, candle.close_time)
        assert update.close == candle.close


def test_a_value_that_has_not_warmed_up_is_listed_as_invalid_and_never_sent(emitted: RecordingProducer) -> None:
    updates = [update for update in emitted.of(IndicatorUpdate) if update.timeframe == "1m"]
    for number, update in enumerate(updates, start=1):
        assert update.bars_used == number
        assert ("ema_200" in update.values) == (number >= 200)
        assert ("ema_200" in update.invalid) == (number < 200)
        assert set(update.values) | set(update.invalid) <= set(CANONICAL_INDICATORS)
        assert not set(update.values) & set(update.invalid)
    assert updates[-1].invalid == ()


def test_the_moving_average_is_the_textbooks() -> None:
    closes = [float(bar.close) for bar in read_sample("SOLUSDT")[:300]]
    expected = sum(closes[:50]) / 50
    for close in closes[50:]:
        expected += (close - expected) * 2 / 51
    readings = _readings("SOLUSDT", 300)
    assert readings[-1].values["ema_50"] == pytest.approx(expected, rel=1e-12)


def test_the_relative_strength_is_wilders() -> None:
    closes = [float(bar.close) for bar in read_sample("SOLUSDT")[:1000]]
    gain = loss = 0.0
    for before, after in pairwise(closes):
        gain += (max(after - before, 0.0) - gain) / 14
        loss += (max(before - after, 0.0) - loss) / 14
    # The two start from different seeds, which fade by a fourteenth a bar.
    assert _readings("SOLUSDT", 1000)[-1].values["rsi_14"] == pytest.approx(100 - 100 / (1 + gain / loss), abs=1e-6)


def test_the_histogram_before_is_the_one_of_the_bar_before() -> None:
    readings = _readings("SOLUSDT", 60)
    for before, after in pairwise(readings):
        assert after.values["macd_hist_prev"] == before.values["macd_hist"]
        assert after.previous is before.values


def closes_at(signal: TradeSignal) -> datetime:
    """When the bar closed that it rests on."""
    assert signal.bar_close_time is not None
    return signal.bar_close_time


def test_a_signal_rests_on_the_update_of_its_bar_by_id(emitted: RecordingProducer) -> None:
    updates = {update.event_id: update for update in emitted.of(IndicatorUpdate)}
    signals = emitted.of(TradeSignal)
    assert signals
    for signal in signals:
        (update_id,) = signal.input_event_ids
        update = updates[update_id]
        assert (signal.symbol, signal.bar_close_time) == (update.symbol, update.bar_close_time)
        assert signal.causation_id == update_id
        assert signal.reference_price == update.close
        assert signal.indicators == {name: update.values[name] for name in signal.indicators}
        assert signal.direction is Direction.LONG


def test_a_position_is_left_before_the_next_one_is_entered_and_named_by_the_trade_that_entered_it(
    emitted: RecordingProducer,
) -> None:
    signals = emitted.of(TradeSignal)
    assert [signal.action for signal in signals] == [Action.ENTER, Action.EXIT] * (len(signals) // 2)
    for entry, leaving in zip(signals[::2], signals[1::2], strict=True):
        trade = trade_of(entry, trades=CATALOGUE.by_class(Trade))
        assert leaving.position_ref == trade.trade_id
        assert closes_at(leaving) > closes_at(entry)
        assert (entry.amount_quote, leaving.amount_quote) == (Decimal(100), None)
        # What closes a position never expires, and what opens one not within a run.
        assert leaving.valid_until is None
        assert entry.valid_until is not None
        assert entry.valid_until - closes_at(entry) > timedelta(days=3)
        assert leaving.tags["exit_reason"] in ("overbought", "stop", "time")


@pytest.mark.parametrize(
    ("rsi", "close", "minutes", "reason", "status"),
    [
        (70.0, 100.0, 1, "overbought", "COMPLETED"),
        (69.9, 89.9, 1, "stop", "STOPPED"),
        (69.9, 90.0, 59, None, None),
        (69.9, 90.0, 60, "time", "COMPLETED"),
        (None, 90.0, 1, None, None),
    ],
)
def test_a_position_is_left_when_overbought_below_its_stop_or_held_for_an_hour(
    rsi: float | None, close: float, minutes: int, reason: str | None, status: str | None
) -> None:
    since = datetime(2025, 1, 1, tzinfo=UTC)
    found = reason_to_leave(Holding("x", since, 90.0), {"rsi_14": rsi}, close=close, at=since + minutes * MINUTE)
    assert (found and found.reason, found and found.status.value) == (reason, status)


def test_signals_to_enter_are_dips_that_ended_above_the_long_average_while_nothing_was_held(
    emitted: RecordingProducer,
) -> None:
    updates = [update for update in emitted.of(IndicatorUpdate) if update.timeframe == "1m"]
    expected = [
        after.bar_close_time
        for before, after in pairwise(updates)
        if before.values.get("rsi_14", 50) < 30 <= after.values.get("rsi_14", 50)
        and "ema_200" in after.values
        and float(after.close or 0) > after.values["ema_200"]
    ]
    signals = emitted.of(TradeSignal)
    held = [(closes_at(one), closes_at(other)) for one, other in zip(signals[::2], signals[1::2], strict=True)]
    entered = [closes_at(signal) for signal in signals[::2]]
    assert entered
    assert entered == [at for at in expected if not any(since < at <= until for since, until in held)]


def test_the_market_is_described_every_quarter_of_an_hour_once_the_averages_are_warm(
    emitted: RecordingProducer,
) -> None:
    conditions = emitted.of(MarketCondition)
    assert len(conditions) == (DAY - 200) // 15 + 1
    assert {condition.condition for condition in conditions} <= {"bullish", "bearish", "neutral"}
    assert all(condition.event_time and condition.event_time.minute % 15 == 0 for condition in conditions)


@pytest.mark.parametrize(
    ("before", "after", "trend", "close", "enters"),
    [
        (29.9, 30.0, 100.0, 100.1, True),
        (29.9, 30.0, 100.0, 100.0, False),
        (30.0, 31.0, 100.0, 101.0, False),
        (29.0, 29.9, 100.0, 101.0, False),
        (None, 31.0, 100.0, 101.0, False),
        (29.0, 31.0, None, 101.0, False),
    ],
)
def test_a_dip_ends_when_the_rsi_rises_above_the_mark_in_an_upward_trend(
    before: float | None, after: float, trend: float | None, close: float, enters: bool
) -> None:
    assert leaves_a_dip({"rsi_14": before}, {"rsi_14": after, "ema_200": trend}, close=close) is enters


@pytest.mark.parametrize(
    ("close", "short", "long", "condition"),
    [
        (12.0, 11.0, 10.0, "bullish"),
        (8.0, 9.0, 10.0, "bearish"),
        (12.0, 9.0, 10.0, "neutral"),
        (12.0, 11.0, None, None),
    ],
)
def test_the_market_is_named_by_where_price_and_average_stand(
    close: float, short: float, long: float | None, condition: str | None
) -> None:
    assert market_condition({"ema_50": short, "ema_200": long}, close=close) == condition


def test_a_second_run_a_minute_later_on_another_venue_shares_no_id() -> None:
    ids: list[set[str | None]] = []
    for venue in ("demo1", "demo2"):
        tape = RecordingProducer(source=SOURCE)
        bot = Bot(tape=tape, venue=venue)
        for minute in _flat(70):
            bot.on_minute(minute)
        ids.append({event.event_id for event in tape.events})
    assert not ids[0] & ids[1]


def _readings(symbol: str, count: int) -> list[Reading]:
    chart = Chart()
    return [chart.add(minute)[0] for minute in read_sample(symbol)[:count]]


def _flat(count: int) -> list[Bar]:
    start, one = datetime(2025, 1, 1, tzinfo=UTC), Decimal(1)
    return [
        Bar("BTCUSDT", "1m", start + index * MINUTE, start + (index + 1) * MINUTE, one, one, one, one, one)
        for index in range(count)
    ]
