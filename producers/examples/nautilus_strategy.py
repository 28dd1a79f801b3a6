"""A nautilus_trader strategy that emits on each bar, and a signal ahead of each order; here in a BacktestEngine.

The strategy is given its producer, so a live node uses it as it is. It goes by finished bars only, which nautilus
stamps with the time they closed at.

Run it: pip install nautilus_trader tradetape, set KAFKA_BOOTSTRAP_SERVERS, and
python producers/examples/nautilus_strategy.py candles.csv
with the columns open_time_ms,open,high,low,close,volume of five-minute candles of BTCUSDT.
Give a backtest a TRADETAPE_TOPIC_PREFIX of its own: on the same bars its signals have the ids of the live ones.
"""

from __future__ import annotations

import csv
import sys
from pathlib import Path
from typing import Any

from nautilus_trader.backtest.engine import BacktestEngine, BacktestEngineConfig
from nautilus_trader.common.component import TestClock
from nautilus_trader.config import LoggingConfig
from nautilus_trader.core.datetime import unix_nanos_to_dt
from nautilus_trader.indicators import ExponentialMovingAverage
from nautilus_trader.model import Bar, BarType, Money, Quantity, Venue
from nautilus_trader.model.currencies import USDT
from nautilus_trader.model.enums import AccountType, OmsType, OrderSide
from nautilus_trader.model.instruments import Instrument
from nautilus_trader.test_kit.providers import TestInstrumentProvider
from nautilus_trader.trading.strategy import Strategy

from tradetape.producers import Producer
from tradetape.schemas import Action, Direction, IndicatorUpdate, RunMode, TradeSignal

MINUTES = 5
VENUE = "BINANCE"


class TapeStrategy(Strategy):
    """Long while the fast average is above the slow one."""

    def __init__(self, tape: Producer, bar_type: BarType, quantity: Quantity) -> None:
        super().__init__()
        self.tape, self.bar_type, self.quantity = tape, bar_type, quantity
        self.fast, self.slow = ExponentialMovingAverage(10), ExponentialMovingAverage(20)

    def on_start(self) -> None:
        # A clock that is set by hand is a backtest's; out of it the producer's own run mode holds.
        self.about: dict[str, Any] = {
            "venue": VENUE, "symbol": self.bar_type.instrument_id.symbol.value, "timeframe": f"{MINUTES}m",
            "run_mode": RunMode.BACKTEST if isinstance(self.clock, TestClock) else None,
        }  # fmt: skip
        self.register_indicator_for_bars(self.bar_type, self.fast)
        self.register_indicator_for_bars(self.bar_type, self.slow)
        self.subscribe_bars(self.bar_type)

    def on_bar(self, bar: Bar) -> None:
        if bar.is_revision:
            return
        averages = {"ema_10": self.fast, "ema_20": self.slow}
        values = {name: average.value if average.initialized else None for name, average in averages.items()}
        closed_at = unix_nanos_to_dt(bar.ts_event)
        update = self.tape.emit(
            IndicatorUpdate(**self.about, bar_close_time=closed_at, close=bar.close.as_decimal(), values=values)
        )
        is_long = self.portfolio.is_net_long(self.bar_type.instrument_id)
        if self.indicators_initialized() and is_long != (self.fast.value > self.slow.value):
            self.trade(update, Action.EXIT if is_long else Action.ENTER)

    def trade(self, update: IndicatorUpdate, action: Action) -> None:
        """The signal first, then the order."""
        self.tape.caused_by(update).emit(
            TradeSignal(
                **self.about, strategy_id="ema-cross", bar_close_time=update.bar_close_time, action=action,
                direction=Direction.LONG, reference_price=update.close, quantity=self.quantity.as_decimal(),
                input_event_ids=[update.event_id],
            )
        )  # fmt: skip
        side = OrderSide.BUY if action is Action.ENTER else OrderSide.SELL
        self.submit_order(self.order_factory.market(self.bar_type.instrument_id, side, self.quantity))


def bars(candles: Path, bar_type: BarType, instrument: Instrument) -> list[Bar]:
    """The candles of a file, each at the time it closed."""
    found = []
    with candles.open(newline="") as lines:
        for row in csv.DictReader(lines):
            prices = [instrument.make_price(float(row[name])) for name in ("open", "high", "low", "close")]
            closed_at_ns = (int(row["open_time_ms"]) + MINUTES * 60_000) * 1_000_000
            found.append(Bar(bar_type, *prices, instrument.make_qty(float(row["volume"])), closed_at_ns, closed_at_ns))
    return found


def main(candles: Path) -> None:
    """Play the candles to the strategy."""
    instrument = TestInstrumentProvider.btcusdt_binance()
    bar_type = BarType.from_str(f"{instrument.id}-{MINUTES}-MINUTE-LAST-EXTERNAL")
    engine = BacktestEngine(BacktestEngineConfig(logging=LoggingConfig(bypass_logging=True)))
    money = [Money(1_000_000, USDT)]
    engine.add_venue(Venue(VENUE), OmsType.NETTING, AccountType.CASH, starting_balances=money)
    engine.add_instrument(instrument)
    engine.add_data(bars(candles, bar_type, instrument))
    with Producer.from_env(source="nautilus-backtest", overflow="wait") as tape:
        engine.add_strategy(TapeStrategy(tape, bar_type, instrument.make_qty(0.1)))
        engine.run()
        print(engine.trader.generate_order_fills_report()[["side", "quantity", "avg_px", "ts_last"]].to_string())
    engine.dispose()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
