"""The sample reaches the bot as it was recorded, only later; hours are what the exchange says they are."""

from __future__ import annotations

import csv
import gzip
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from importlib.resources import files
from itertools import pairwise
from pathlib import Path

import pytest

from tradetape.console.demo.bars import HOUR, MINUTE, SYMBOLS, Bar, HourBars, by_minute, moved, read_sample, shift_to

SAMPLE_MINUTES = 3 * 24 * 60


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_sample_has_every_minute_once(symbol: str) -> None:
    bars = read_sample(symbol)
    assert len(bars) == SAMPLE_MINUTES
    assert {later.open_time - earlier.open_time for earlier, later in pairwise(bars)} == {MINUTE}
    assert all(bar.close_time == bar.open_time + MINUTE for bar in bars)


@pytest.mark.parametrize("symbol", SYMBOLS)
def test_the_sample_is_the_end_of_the_published_data_text_for_text(symbol: str, market_data: Path) -> None:
    with gzip.open(market_data / "klines" / f"binance-usdm_{symbol}_1m.csv.gz", "rt") as file:
        published = list(csv.reader(file))[-SAMPLE_MINUTES:]
    shipped = [
        [str(int(bar.open_time.timestamp() * 1000)), *(str(price) for price in bar[4:])] for bar in read_sample(symbol)
    ]
    assert shipped == published


def test_the_sample_ships_with_its_licence_and_source_and_is_small() -> None:
    folder = files("tradetape.console.demo") / "sample"
    assert "Copyright (c) 2025 typhonun" in (folder / "LICENSE").read_text()
    assert "057525d1" in (folder / "README.md").read_text()
    assert sum(len(one.read_bytes()) for one in folder.iterdir()) < 1_000_000


@pytest.mark.parametrize("second", [0, 1, 59])
def test_bars_move_by_whole_minutes_so_that_the_last_closes_in_the_minute_that_is_asked_for(second: int) -> None:
    now = datetime(2031, 5, 6, 7, 8, second, 999, tzinfo=UTC)
    bars = read_sample("BTCUSDT")[-3:]
    shifted = moved(bars, shift_to(bars[-1].close_time, now))
    assert shifted[-1].close_time == datetime(2031, 5, 6, 7, 8, tzinfo=UTC)
    assert [bar[4:] for bar in shifted] == [bar[4:] for bar in bars]
    assert shifted[1].open_time - shifted[0].open_time == MINUTE


def test_what_closes_together_comes_together() -> None:
    minutes = list(by_minute([read_sample(symbol)[-2:] for symbol in ("BTCUSDT", "ETHUSDT")]))
    assert [[bar.symbol for bar in minute] for minute in minutes] == [["BTCUSDT", "ETHUSDT"]] * 2
    assert all(len({bar.close_time for bar in minute}) == 1 for minute in minutes)


def test_hours_equal_the_exchanges_own_half_hours(market_data: Path) -> None:
    with gzip.open(market_data / "klines" / "binance-usdm_ETHUSDT_30m.csv.gz", "rt") as file:
        halves = {int(row["open_time_ms"]): row for row in csv.DictReader(file)}
    builder = HourBars()
    hours = [hour for minute in read_sample("ETHUSDT") if (hour := builder.add(minute)) is not None]
    assert len(hours) == 71
    for hour in hours:
        opens = int(hour.open_time.timestamp() * 1000)
        first, second = halves[opens], halves[opens + 1_800_000]
        assert hour.open == Decimal(first["open"])
        assert hour.close == Decimal(second["close"])
        assert hour.high == max(Decimal(first["high"]), Decimal(second["high"]))
        assert hour.low == min(Decimal(first["low"]), Decimal(second["low"]))
        assert hour.volume == Decimal(first["volume"]) + Decimal(second["volume"])
        assert hour.close_time - hour.open_time == HOUR


def test_an_hour_of_which_a_minute_is_missing_is_left_out() -> None:
    start = datetime(2030, 1, 1, tzinfo=UTC)
    minutes = [_bar(start + index * MINUTE) for index in range(180)]
    del minutes[75]
    builder = HourBars()
    opened = [hour.open_time for minute in minutes if (hour := builder.add(minute)) is not None]
    assert opened == [start, start + timedelta(hours=2)]


def _bar(opens: datetime) -> Bar:
    one = Decimal(1)
    return Bar("BTCUSDT", "1m", opens, opens + MINUTE, one, one, one, one, one)
