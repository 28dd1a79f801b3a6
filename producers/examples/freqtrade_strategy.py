"""A freqtrade strategy whose indicators and trades are on the tape: in a backtest, in a dry run and live.

freqtrade shows populate_indicators finished candles only: all of them in a backtest, and otherwise, at each new one, the
last thousand, of which the last row is new. The events' ids become a column, so a signal names the very row behind it.
A signal is what the bot acts on: the confirm_… calls are its last word before an order. If `emit` raises in them,
freqtrade logs it and trades on.

Run it: pip install freqtrade tradetape, set KAFKA_BOOTSTRAP_SERVERS, and
freqtrade backtesting --strategy TapeStrategy --strategy-path producers/examples …
Give a backtest a TRADETAPE_TOPIC_PREFIX of its own: on the same bars its signals have the ids of the live ones.
"""

from __future__ import annotations

from typing import Any, ClassVar

import talib.abstract as ta
from freqtrade.persistence import Trade
from freqtrade.strategy import IStrategy
from pandas import DataFrame, Timedelta

from tradetape.producers import Producer
from tradetape.schemas import Action, Direction, IndicatorUpdate, RunMode, TradeSignal

RUN_MODES = {"live": RunMode.LIVE, "dry_run": RunMode.PAPER, "backtest": RunMode.BACKTEST}


class TapeStrategy(IStrategy):
    """Buys what is oversold."""

    timeframe = "5m"
    startup_candle_count = 50
    minimal_roi: ClassVar[dict[str, float]] = {}
    stoploss = -0.02

    def bot_start(self, **_: Any) -> None:
        mode = RUN_MODES[self.config["runmode"].value]
        self.is_backtest = mode is RunMode.BACKTEST
        self.about: dict[str, Any] = {
            "venue": self.config["exchange"]["name"], "timeframe": self.timeframe, "run_mode": mode,
        }  # fmt: skip
        self.tape = Producer.from_env(
            source=f"{self.get_strategy_name()}-{mode}", overflow="wait" if self.is_backtest else "drop"
        )

    def ft_bot_cleanup(self) -> None:
        # At the bot's end, and before /reload_config makes another strategy, which needs the outbox.
        super().ft_bot_cleanup()
        self.tape.close()

    def populate_indicators(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe["rsi_14"] = ta.RSI(dataframe, timeperiod=14)
        dataframe["ema_50"] = ta.EMA(dataframe, timeperiod=50)
        dataframe["closed_at"] = dataframe["date"] + Timedelta(self.timeframe)
        dataframe["event_id"] = ""
        new = dataframe if self.is_backtest else dataframe.tail(1)
        dataframe.loc[new.index, "event_id"] = [self.emit_row(metadata["pair"], row) for row in new.itertuples()]
        return dataframe

    def populate_entry_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["rsi_14"] < 30, ["enter_long", "enter_tag"]] = (1, "oversold")
        return dataframe

    def populate_exit_trend(self, dataframe: DataFrame, metadata: dict[str, Any]) -> DataFrame:
        dataframe.loc[dataframe["rsi_14"] > 60, "exit_long"] = 1
        return dataframe

    def confirm_trade_entry(self, pair: str, *, side: str, entry_tag: str, rate: float, **_: Any) -> bool:
        self.emit_signal(pair, Action.ENTER, side, rate, reason=entry_tag)
        return True

    def confirm_trade_exit(self, pair: str, *, trade: Trade, exit_reason: str, rate: float, **_: Any) -> bool:
        self.emit_signal(pair, Action.EXIT, trade.trade_direction, rate, reason=exit_reason)
        return True

    def emit_row(self, pair: str, row: Any) -> str:
        """Emit the indicators of a candle; the event's id."""
        update = IndicatorUpdate(
            **self.about, symbol=pair, bar_close_time=row.closed_at, close=row.close,
            values={"rsi_14": row.rsi_14, "ema_50": row.ema_50},
        )  # fmt: skip
        return self.tape.emit(update).event_id

    def emit_signal(self, pair: str, action: Action, side: str, rate: float, *, reason: str) -> None:
        """Emit what the bot is about to do, on the last candle that it has seen."""
        seen, _ = self.dp.get_analyzed_dataframe(pair, self.timeframe)
        last = seen.iloc[-1]
        signal = TradeSignal(
            **self.about, strategy_id=self.get_strategy_name(), symbol=pair, bar_close_time=last["closed_at"],
            action=action, direction=Direction(side.upper()), reference_price=rate, reasons=[reason],
            causation_id=last["event_id"], input_event_ids=[last["event_id"]],
        )  # fmt: skip
        self.tape.emit(signal)
