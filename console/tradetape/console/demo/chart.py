"""What a bot sees of one symbol: indicators of its minutes and of its hours, bar by bar.

The indicators are computed by talipp, a streaming library; this module gives them their canonical names. A value that
has not warmed up is None and never 0.
"""

from __future__ import annotations

from typing import Any, NamedTuple

from talipp.indicators import ADX, ATR, EMA, MACD, RSI, ParabolicSAR, StochRSI
from talipp.ohlcv import OHLCV

from tradetape.console.demo.bars import Bar, HourBars

Values = dict[str, float | None]


class Reading(NamedTuple):
    """One finished bar with the indicators at its close, and those at the close before; `bars_used` counts warm-up."""

    bar: Bar
    values: Values
    previous: Values
    bars_used: int


class Indicators:
    """The indicators of one symbol and timeframe."""

    def __init__(self) -> None:
        self._of_closes: dict[str, Any] = {"ema_50": EMA(50), "ema_200": EMA(200), "rsi_14": RSI(14)}
        self._macd: Any = MACD(12, 26, 9)
        self._stochastic: Any = StochRSI(14, 14, 3, 3)
        self._of_bars: dict[str, Any] = {
            "adx_14": ADX(14, 14),
            "atr_14": ATR(14),
            "psar": ParabolicSAR(0.02, 0.02, 0.2),
        }
        self._values: Values = {}
        self._bars = 0

    def add(self, bar: Bar) -> Reading:
        """Take the next bar."""
        close = float(bar.close)
        whole = OHLCV(float(bar.open), float(bar.high), float(bar.low), close, float(bar.volume))
        for indicator in (*self._of_closes.values(), self._macd, self._stochastic):
            indicator.add(close)
        for indicator in self._of_bars.values():
            indicator.add(whole)
        previous, self._values = self._values, self._latest()
        self._bars += 1
        return Reading(bar, self._values, previous, self._bars)

    def _latest(self) -> Values:
        macd, stochastic = self._macd[-1], self._stochastic[-1]
        return {
            **{name: indicator[-1] for name, indicator in self._of_closes.items()},
            "adx_14": _part(self._of_bars["adx_14"][-1], "adx"),
            "atr_14": self._of_bars["atr_14"][-1],
            "psar": _part(self._of_bars["psar"][-1], "value"),
            "stochrsi_k": _part(stochastic, "k"),
            "stochrsi_d": _part(stochastic, "d"),
            "macd": _part(macd, "macd"),
            "macd_signal": _part(macd, "signal"),
            "macd_hist": _part(macd, "histogram"),
            "macd_hist_prev": self._values.get("macd_hist"),
        }


def _part(composite: Any, name: str) -> float | None:
    return None if composite is None else getattr(composite, name)


class Chart:
    """One symbol's minutes and hours."""

    def __init__(self) -> None:
        self._minutes = Indicators()
        self._hours = Indicators()
        self._hour_bars = HourBars()

    def add(self, minute: Bar) -> list[Reading]:
        """Take the next minute; its reading, and that of the hour it completes, if it does."""
        readings = [self._minutes.add(minute)]
        if (hour := self._hour_bars.add(minute)) is not None:
            readings.append(self._hours.add(hour))
        return readings
