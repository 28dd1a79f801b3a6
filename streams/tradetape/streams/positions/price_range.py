"""The lowest and the highest price while a position was open, from the finest candles that cover it without a gap.

Only candles that lie within the position's life count: one that began before it saw prices from before as well. What
is left at its two ends is shorter than a candle, and there the fills' own prices count. Where a candle is missing the
range is unknown, and never a guess.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from typing import NamedTuple

from tradetape.schemas import decimals, names
from tradetape.streams.positions.position import Plain

PriceRange = tuple[int, int]
"""Lowest and highest price, in units of 10**-18."""


class Life(NamedTuple):
    """When a position was open, and the prices at which it was filled."""

    opened_at_us: int
    closed_at_us: int
    fill_prices: PriceRange


class _Bar(NamedTuple):
    close_time_us: int
    low: int
    high: int


class PricesSeen:
    """Collects the candles of one life, in any order."""

    def __init__(self, life: Life) -> None:
        self._life = life
        self._bars: defaultdict[str, dict[int, _Bar]] = defaultdict(dict)
        """By timeframe and opening time."""
        self._has_ended = False

    @property
    def is_settled(self) -> bool:
        """Whether no candle is still to be expected: all are there, or one was seen that came after the life."""
        return self._has_ended or self.range() is not None

    def see(self, candle: Plain) -> None:
        """A candle of the symbol. One that does not lie within the life, or is not finished, adds no price."""
        start, end = candle["open_time"], candle["close_time"]
        self._has_ended = self._has_ended or candle["event_time"] > self._life.closed_at_us
        if candle["is_final"] and start >= self._life.opened_at_us and end <= self._life.closed_at_us:
            low, high = decimals.unscaled(candle["low"]), decimals.unscaled(candle["high"])
            self._bars[candle["timeframe"]][start] = _Bar(end, low, high)

    def range(self) -> PriceRange | None:
        """What was seen; None where no timeframe covers the life."""
        for timeframe in sorted(self._bars, key=names.timeframe_us):
            bars = self._bars[timeframe]
            if self._cover(bars, names.timeframe_us(timeframe)):
                lowest, highest = self._life.fill_prices
                return (
                    min(lowest, *(bar.low for bar in bars.values())),
                    max(highest, *(bar.high for bar in bars.values())),
                )
        return None

    def _cover(self, bars: Mapping[int, _Bar], length_us: int) -> bool:
        """Whether they follow each other, with less than a bar left before and behind them."""
        starts = sorted(bars)
        if starts[0] - self._life.opened_at_us >= length_us:
            return False
        reached = starts[0]
        for start in starts:
            if start != reached:
                return False
            reached = bars[start].close_time_us
        return self._life.closed_at_us - reached < length_us
