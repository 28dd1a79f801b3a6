"""Real candles through Kafka into PostgreSQL: what SQL makes of them equals the exchange's own coarser candles, exactly.

The expected values are the exchange's: minutes that add up to its 5-minute and 30-minute files.
"""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import NamedTuple

import pytest

from history_rig import HistoryRig
from tradetape.schemas import Candle
from tradetape.streams.dead_letters import MemoryDeadLetters

MINUTE = timedelta(minutes=1)


class Bar(NamedTuple):
    """A line of a file, its numbers as text."""

    open_time: datetime
    open: str
    high: str
    low: str
    close: str
    volume: str

    def exact(self) -> tuple[Decimal, ...]:
        """Its numbers."""
        return tuple(Decimal(text) for text in self[1:])


def read_bars(folder: Path, name: str) -> list[Bar]:
    with gzip.open(folder / "klines" / name, "rt", encoding="utf-8", newline="") as lines:
        return [
            Bar(
                datetime.fromtimestamp(int(line["open_time_ms"]) // 1_000, UTC),
                *(line[field] for field in Bar._fields[1:]),
            )
            for line in csv.DictReader(lines)
        ]


def store_minutes(rig: HistoryRig, bars: list[Bar], *, venue: str, symbol: str) -> None:
    """Emit the bars as 1-minute candles and store them."""
    with rig.producer() as tape:
        for bar in bars:
            tape.emit(
                Candle(
                    venue=venue, symbol=symbol, timeframe="1m", open_time=bar.open_time, close_time=bar.open_time + MINUTE,
                    open=bar.open, high=bar.high, low=bar.low, close=bar.close, volume=bar.volume, is_final=True,
                )
            )  # fmt: skip
    letters = MemoryDeadLetters()
    sink = rig.store(rig.sink(dead_letters=letters))
    assert letters.letters == []
    assert sink.counts == {"stored": len(bars), "repeated": 0, "skipped": 0}


def coarser(rig: HistoryRig, symbol: str, minutes: int) -> dict[datetime, tuple[int, tuple[Decimal, ...]]]:
    """Candles of so many minutes, built by SQL: by open time, how many minutes each is made of and its numbers."""
    rows = rig.rows(
        """
        SELECT date_bin(make_interval(mins => %s), open_time, timestamptz '2000-01-01 00:00Z') AS bin, count(*) AS minutes,
               (array_agg("open" ORDER BY open_time))[1] AS first, max(high) AS high, min(low) AS low,
               (array_agg("close" ORDER BY open_time DESC))[1] AS last, sum(volume) AS volume
        FROM tradetape.candles WHERE symbol = %s AND timeframe = '1m' AND is_final GROUP BY bin
        """,
        minutes,
        symbol,
    )
    return {
        row["bin"].astimezone(UTC): (
            row["minutes"],
            (row["first"], row["high"], row["low"], row["last"], row["volume"]),
        )
        for row in rows
    }


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def test_minutes_of_a_thin_market_add_up_to_the_exchanges_five_minutes(rig: HistoryRig, market_data: Path) -> None:
    """XRPETH: a minute without a trade has no candle, so a window may rest on fewer than five."""
    minutes = read_bars(market_data, "binance-spot_XRPETH_1m.csv.gz")
    theirs = {bar.open_time: bar.exact() for bar in read_bars(market_data, "binance-spot_XRPETH_5m.csv.gz")}
    store_minutes(rig, minutes, venue="binance", symbol="XRPETH")

    ours = {at: numbers for at, (_, numbers) in coarser(rig, "XRPETH", 5).items()}

    both = ours.keys() & theirs.keys()
    assert len(both) == 706
    assert {at: ours[at] for at in both} == {at: theirs[at] for at in both}


def test_minutes_add_up_to_the_exchanges_half_hours(rig: HistoryRig, market_data: Path) -> None:
    minutes = read_bars(market_data, "binance-usdm_ETHUSDT_1m.csv.gz")
    theirs = {bar.open_time: bar.exact() for bar in read_bars(market_data, "binance-usdm_ETHUSDT_30m.csv.gz")}
    store_minutes(rig, minutes, venue="binance-usdm", symbol="ETHUSDT")

    ours = {at: numbers for at, (count, numbers) in coarser(rig, "ETHUSDT", 30).items() if count == 30}

    assert len(ours) == 1439
    assert ours == {at: theirs[at] for at in ours}
    months = rig.rows("SELECT count(*) AS months FROM pg_inherits WHERE inhparent = 'tradetape.candles'::regclass")
    assert months == [{"months": 2}], "May and June 2025"


def test_a_stored_price_is_the_files_text(rig: HistoryRig, market_data: Path) -> None:
    """Not only the same number: the same digits, but for zeros at the end."""
    minutes = read_bars(market_data, "binance-spot_XRPETH_1m.csv.gz")
    store_minutes(rig, minutes, venue="binance", symbol="XRPETH")
    rows = rig.rows(
        """
        SELECT open_time, trim_scale("open")::text AS open, trim_scale(high)::text AS high, trim_scale(low)::text AS low,
               trim_scale("close")::text AS close, trim_scale(volume)::text AS volume
        FROM tradetape.candles ORDER BY open_time
        """
    )
    assert [row["open_time"] for row in rows] == [bar.open_time for bar in minutes]
    for row, bar in zip(rows, minutes, strict=True):
        assert [row[name] for name in Bar._fields[1:]] == [without_zeros(text) for text in bar[1:]]


def without_zeros(text: str) -> str:
    """A plain decimal text without zeros that say nothing."""
    return text.rstrip("0").rstrip(".") if "." in text else text
