"""Price bars: the shipped one-minute sample, moved in time, and the hours that are built from its minutes.

Prices stay decimals from the sample's text to the tape; only indicators look at them as floats.
"""

from __future__ import annotations

import csv
import gzip
import io
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from typing import NamedTuple

MINUTE = timedelta(minutes=1)
HOUR = timedelta(hours=1)
MINUTES_PER_HOUR = 60
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
"""What the sample holds; a run of fewer symbols takes the first ones."""


class Bar(NamedTuple):
    """One finished bar; `close_time` is its exclusive end. Prices in quote currency, volume in base currency."""

    symbol: str
    timeframe: str
    open_time: datetime
    close_time: datetime
    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


def read_sample(symbol: str) -> list[Bar]:
    """The sample's minutes of one symbol, oldest first, at the times they were recorded."""
    packed = (files(__package__) / "sample" / f"{symbol}_1m.csv.gz").read_bytes()
    rows = csv.DictReader(io.StringIO(gzip.decompress(packed).decode("ascii")))
    return [_minute(symbol, row) for row in rows]


def _minute(symbol: str, row: dict[str, str]) -> Bar:
    open_time = datetime.fromtimestamp(int(row["open_time_ms"]) // 1000, UTC)
    prices = (Decimal(row[name]) for name in ("open", "high", "low", "close", "volume"))
    return Bar(symbol, "1m", open_time, open_time + MINUTE, *prices)


def moved(bars: Sequence[Bar], by: timedelta) -> list[Bar]:
    """The same bars at other times."""
    return [bar._replace(open_time=bar.open_time + by, close_time=bar.close_time + by) for bar in bars]


def shift_to(last_close: datetime, closes_at: datetime) -> timedelta:
    """By how many whole minutes a bar is moved so that it closes in the minute of `closes_at`, never after it."""
    return (closes_at - last_close) // MINUTE * MINUTE


def by_minute(series: Sequence[Sequence[Bar]]) -> Iterator[tuple[Bar, ...]]:
    """What closes together, minute by minute: one bar of each symbol. The series cover the same minutes."""
    return zip(*series, strict=True)


class HourBars:
    """Builds the hours of one symbol from its minutes; an hour of which a minute is missing is left out."""

    def __init__(self) -> None:
        self._minutes: list[Bar] = []

    def add(self, minute: Bar) -> Bar | None:
        """Take the next minute; the hour that it completes, if it does."""
        opens = minute.open_time.replace(minute=0)
        if self._minutes and self._minutes[0].open_time < opens:
            self._minutes.clear()
        self._minutes.append(minute)
        if minute.close_time < opens + HOUR or len(self._minutes) < MINUTES_PER_HOUR:
            return None
        return _hour(opens, self._minutes)


def _hour(opens: datetime, minutes: Sequence[Bar]) -> Bar:
    return Bar(
        minutes[0].symbol, "1h", opens, opens + HOUR,
        minutes[0].open, max(one.high for one in minutes), min(one.low for one in minutes), minutes[-1].close,
        sum((one.volume for one in minutes), start=Decimal(0)),
    )  # fmt: skip
