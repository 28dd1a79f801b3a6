"""A small real bot: it reads bars, computes indicators, and emits what it saw and what it wants.

It knows nothing of Kafka: whatever has `emit` will do. Every signal names the event it rests on by id, so that it can
be walked back to the indicator values behind it (I8).
"""

from __future__ import annotations

from datetime import timedelta
from typing import Protocol, TypeVar

from tradetape.console.demo.bars import Bar
from tradetape.console.demo.chart import Chart, Reading, Values
from tradetape.schemas import Action, Candle, Direction, Event, IndicatorUpdate, MarketCondition, TradeSignal

EventT = TypeVar("EventT", bound=Event)

SOURCE = "demo-bot"
STRATEGY = "rsi-dip"
OVERSOLD_RSI = 30.0
SIGNAL_TIMEFRAME = "1m"
SIGNAL_LIFE = timedelta(minutes=5)
AMOUNT_QUOTE = 100
MARKET_SYMBOL = "BTCUSDT"
MARKET_INTERVAL_MINUTES = 15
"""How often the bot says how the market as a whole fares: on every quarter of an hour."""


class Emitter(Protocol):
    """What the bot needs of a producer."""

    def emit(self, event: EventT) -> EventT:
        """Put an event on the tape; the event as stamped."""


class Bot:
    """Trades one venue's symbols on paper."""

    def __init__(self, *, tape: Emitter, venue: str) -> None:
        self._tape = tape
        self._venue = venue
        self._charts: dict[str, Chart] = {}

    def on_minute(self, minute: Bar) -> None:
        """Look at the next finished minute and emit what follows from it."""
        for reading in self._chart(minute.symbol).add(minute):
            update = self._report(reading)
            if reading.bar.timeframe == SIGNAL_TIMEFRAME:
                self._decide(reading, update)

    def _chart(self, symbol: str) -> Chart:
        return self._charts.setdefault(symbol, Chart())

    def _report(self, reading: Reading) -> IndicatorUpdate:
        bar = reading.bar
        candle = self._tape.emit(
            Candle(
                venue=self._venue, symbol=bar.symbol, timeframe=bar.timeframe,
                open_time=bar.open_time, close_time=bar.close_time, is_final=True, source="binance-usdm",
                open=bar.open, high=bar.high, low=bar.low, close=bar.close, volume=bar.volume,
            )
        )  # fmt: skip
        return self._tape.emit(
            IndicatorUpdate(
                venue=self._venue, symbol=bar.symbol, timeframe=bar.timeframe,
                bar_open_time=bar.open_time, bar_close_time=bar.close_time, bars_used=reading.bars_used,
                close=bar.close, values=reading.values,
                candle_event_id=candle.event_id, causation_id=candle.event_id,
            )
        )  # fmt: skip

    def _decide(self, reading: Reading, update: IndicatorUpdate) -> None:
        bar = reading.bar
        if bar.symbol == MARKET_SYMBOL and bar.close_time.minute % MARKET_INTERVAL_MINUTES == 0:
            self._describe_market(reading, update)
        if leaves_a_dip(reading.previous, reading.values, close=float(bar.close)):
            self._enter(reading, update)

    def _describe_market(self, reading: Reading, update: IndicatorUpdate) -> None:
        bar = reading.bar
        condition = market_condition(reading.values, close=float(bar.close))
        if condition is not None:
            self._tape.emit(
                MarketCondition(
                    venue=self._venue, symbol=bar.symbol, scope="btc", condition=condition, event_time=bar.close_time,
                    values=known(reading.values, "ema_50", "ema_200", "rsi_14", "adx_14"),
                    valid_until=bar.close_time + timedelta(minutes=2 * MARKET_INTERVAL_MINUTES),
                    causation_id=update.event_id,
                )
            )  # fmt: skip

    def _enter(self, reading: Reading, update: IndicatorUpdate) -> None:
        bar = reading.bar
        assert update.event_id
        self._tape.emit(
            TradeSignal(
                venue=self._venue, symbol=bar.symbol, timeframe=bar.timeframe, bar_close_time=bar.close_time,
                strategy_id=STRATEGY, strategy_version="1", action=Action.ENTER, direction=Direction.LONG,
                reference_price=bar.close, amount_quote=AMOUNT_QUOTE, valid_until=bar.close_time + SIGNAL_LIFE,
                indicators=known(reading.values, "rsi_14", "ema_50", "ema_200", "atr_14"),
                input_event_ids=[update.event_id], causation_id=update.event_id,
                reasons=[f"RSI rose above {OVERSOLD_RSI:.0f}", "the close is above its 200-minute average"],
            )
        )  # fmt: skip


def leaves_a_dip(previous: Values, now: Values, *, close: float) -> bool:
    """Whether the RSI has just risen above the oversold mark while the price is above its long average."""
    before, after, trend = previous.get("rsi_14"), now["rsi_14"], now["ema_200"]
    if before is None or after is None or trend is None:
        return False
    return before < OVERSOLD_RSI <= after and close > trend


def market_condition(values: Values, *, close: float) -> str | None:
    """Bullish where price and short average stand above the long one, bearish where both stand below; None unwarmed."""
    short, long = values["ema_50"], values["ema_200"]
    if short is None or long is None:
        return None
    if min(close, short) > long:
        return "bullish"
    return "bearish" if max(close, short) < long else "neutral"


def known(values: Values, *names: str) -> dict[str, float]:
    """Those of the named values that have warmed up."""
    return {name: value for name in names if (value := values[name]) is not None}
