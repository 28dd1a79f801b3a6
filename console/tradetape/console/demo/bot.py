"""A small real bot: it reads bars, computes indicators, and emits what it saw and what it wants.

It knows nothing of Kafka: whatever has `emit` will do. Every signal names the event it rests on by id, so that it can
be walked back to the indicator values behind it (I8). What it does follows from the bars alone, so that a backtest gives
the same signals: it holds a position from its signal on, under the id that the trade will have, and asks nobody.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple, Protocol, TypeVar

from tradetape.console.demo.bars import Bar
from tradetape.console.demo.chart import Chart, Reading, Values
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Candle,
    CloseStatus,
    Direction,
    Event,
    IndicatorUpdate,
    MarketCondition,
    Trade,
    TradeSignal,
)

EventT = TypeVar("EventT", bound=Event)

SOURCE = "demo-bot"
STRATEGY = "rsi-dip"
OVERSOLD_RSI = 30.0
OVERBOUGHT_RSI = 70.0
STOP_RANGES = 8
"""How many average true ranges the price may fall below where a position was entered."""
HOLD_FOR = timedelta(hours=1)
SIGNAL_TIMEFRAME = "1m"
SIGNAL_LIFE = timedelta(days=7)
"""Longer than a run is in its market's time: that goes by so fast that an order may meet it days after its signal."""
AMOUNT_QUOTE = 100
MARKET_SYMBOL = "BTCUSDT"
MARKET_INTERVAL_MINUTES = 15
"""How often the bot says how the market as a whole fares: on every quarter of an hour."""


class Emitter(Protocol):
    """What the bot needs of a producer."""

    def emit(self, event: EventT) -> EventT:
        """Put an event on the tape; the event as stamped."""


class Holding(NamedTuple):
    """A position: the trade that opens it, when it was wanted, and below which price it is given up."""

    trade_id: str
    since: datetime
    stop: float


class Exit(NamedTuple):
    """Why a position is left: a word for it, how it ends by that, and the sentence."""

    reason: str
    status: CloseStatus
    sentence: str


class Bot:
    """Trades one venue's symbols on paper, one position of each at a time."""

    def __init__(self, *, tape: Emitter, venue: str) -> None:
        self._tape = tape
        self._venue = venue
        self._charts: dict[str, Chart] = {}
        self._holdings: dict[str, Holding] = {}

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
        holding, close = self._holdings.get(bar.symbol), float(bar.close)
        if holding is not None:
            if (why := reason_to_leave(holding, reading.values, close=close, at=bar.close_time)) is not None:
                self._leave(holding, why, reading, update)
        elif leaves_a_dip(reading.previous, reading.values, close=close):
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
        bar, spread = reading.bar, reading.values["atr_14"]
        assert update.event_id
        assert spread is not None, "the averages of a dip take longer to warm up"
        signal = self._tape.emit(
            TradeSignal(
                venue=self._venue, symbol=bar.symbol, timeframe=bar.timeframe, bar_close_time=bar.close_time,
                strategy_id=STRATEGY, strategy_version="2", action=Action.ENTER, direction=Direction.LONG,
                reference_price=bar.close, amount_quote=AMOUNT_QUOTE, valid_until=bar.close_time + SIGNAL_LIFE,
                indicators=known(reading.values, "rsi_14", "ema_50", "ema_200", "atr_14"),
                input_event_ids=[update.event_id], causation_id=update.event_id,
                reasons=[f"RSI rose above {OVERSOLD_RSI:.0f}", "the close is above its 200-minute average"],
            )
        )  # fmt: skip
        stop = float(bar.close) - STOP_RANGES * spread
        self._holdings[bar.symbol] = Holding(trade_id_of(signal), bar.close_time, stop)

    def _leave(self, holding: Holding, why: Exit, reading: Reading, update: IndicatorUpdate) -> None:
        bar = reading.bar
        assert update.event_id
        self._tape.emit(
            TradeSignal(
                venue=self._venue, symbol=bar.symbol, timeframe=bar.timeframe, bar_close_time=bar.close_time,
                strategy_id=STRATEGY, strategy_version="2", action=Action.EXIT, direction=Direction.LONG,
                position_ref=holding.trade_id, reference_price=bar.close,
                indicators=known(reading.values, "rsi_14", "ema_50", "ema_200", "atr_14"),
                input_event_ids=[update.event_id], causation_id=update.event_id, reasons=[why.sentence],
                tags={"exit_reason": why.reason, "close_status": why.status.value},
            )
        )  # fmt: skip
        del self._holdings[bar.symbol]


def trade_id_of(signal: TradeSignal) -> str:
    """The id of the trade that approval makes of a signal: it follows from the signal, so nobody has to be asked."""
    derive = CATALOGUE.by_class(Trade).derive_id
    assert derive is not None, "a trade has a natural key"
    return derive({"signal_id": signal.signal_id, "account_id": None})


def reason_to_leave(holding: Holding, now: Values, *, close: float, at: datetime) -> Exit | None:
    """Why a position is to be left at a close; None while it is kept."""
    rsi = now["rsi_14"]
    if rsi is not None and rsi >= OVERBOUGHT_RSI:
        return Exit("overbought", CloseStatus.COMPLETED, f"RSI rose above {OVERBOUGHT_RSI:.0f}")
    if close < holding.stop:
        return Exit("stop", CloseStatus.STOPPED, f"the close is {STOP_RANGES} average ranges below the entry's")
    if at - holding.since >= HOLD_FOR:
        return Exit("time", CloseStatus.COMPLETED, f"held for {HOLD_FOR // timedelta(minutes=1)} minutes")
    return None


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
