"""The registry of keys: the only way to build one, and what an audit compares with (I2)."""

from __future__ import annotations

import pytest

from tradetape.streams.state.keys import Keys, bar_horizon_us, expires_at_ms

KEYS = Keys()
MINUTE_US = 60_000_000


@pytest.mark.parametrize(
    ("built", "documented"),
    [
        (KEYS.indicators("binance", "BTCUSDT", "1h"), "tradetape:1:indicators:{binance:BTCUSDT}:1h"),
        (KEYS.indicators("binance", "BTCUSDT", "1h", "slow"), "tradetape:1:indicators:{binance:BTCUSDT}:1h:slow"),
        (
            KEYS.indicators("binance", "BTCUSDT", "1h", is_final=False),
            "tradetape:1:indicators:{binance:BTCUSDT}:1h:open",
        ),
        (KEYS.candle("binance", "BTCUSDT", "1m"), "tradetape:1:candle:{binance:BTCUSDT}:1m"),
        (KEYS.candle("binance", "BTCUSDT", "1mo", is_final=False), "tradetape:1:candle:{binance:BTCUSDT}:1mo:open"),
        (KEYS.market("btc"), "tradetape:1:market:{btc}"),
        (KEYS.market("btc", "binance", "BTCUSDT"), "tradetape:1:market:{binance:BTCUSDT}:btc"),
        (KEYS.signal("binance", "BTCUSDT", "rsi-dip"), "tradetape:1:signal:{binance:BTCUSDT}:rsi-dip"),
        (KEYS.scan("stage", "tech_filter"), "tradetape:1:scan:{stage:tech_filter}"),
        (KEYS.scan("strategy", "dip:v2"), "tradetape:1:scan:{strategy:dip:v2}"),
        (
            KEYS.decisions("tech_filter", "PASSED", 1_750_000_020_000_000),
            "tradetape:1:decisions:{tech_filter}:PASSED:20250615T1507",
        ),
        (KEYS.trades("binance", "BTCUSDT"), "tradetape:1:trades:{binance:BTCUSDT}"),
        (KEYS.layout(), "tradetape:1:layout:state"),
        (KEYS.approval("default", "open"), "tradetape:1:approval:{default}:open"),
        (KEYS.approval("default", "trade:6f0c"), "tradetape:1:approval:{default}:trade:6f0c"),
    ],
)
def test_keys_are_as_documented_and_declared(built: str, documented: str) -> None:
    assert built == documented
    declared = KEYS.pattern_of(built)
    assert declared is not None
    assert declared.kind == documented.split(":")[2]
    assert declared.expiry
    assert declared.owner == ("approval" if declared.kind == "approval" else "state")


@pytest.mark.parametrize(
    "stranger",
    [
        "BTC_USDT:RSI14", "tradetape:1:candle:binance:BTCUSDT:1m", "tradetape:1:prices:{binance:BTCUSDT}",
        "tradetape:2:candle:{binance:BTCUSDT}:1m", "other:1:candle:{binance:BTCUSDT}:1m", "tradetape:1:layout:other",
        "tradetape:1:candle:{binance:BTCUSDT}:1m:shut", "tradetape:1:approval:{default}:other", "",
        "tradetape:1:scan:{venue:binance}", "tradetape:1:decisions:{tech_filter}:PASSED",
        "tradetape:1:trades:{binance:BTCUSDT}:1",
    ],
)  # fmt: skip
def test_a_key_that_nobody_declared_is_found_out(stranger: str) -> None:
    assert KEYS.pattern_of(stranger) is None


def test_two_prefixes_share_no_key() -> None:
    assert Keys("paper").pattern_of(KEYS.candle("binance", "BTCUSDT", "1m")) is None
    assert Keys("paper").candle("binance", "BTCUSDT", "1m") == "paper:1:candle:{binance:BTCUSDT}:1m"


@pytest.mark.parametrize(
    ("timeframe", "minutes"), [("1s", 5), ("1m", 5), ("5m", 16), ("1h", 181), ("1d", 3 * 1_440 + 1)]
)
def test_a_bar_is_kept_for_three_of_its_length_and_a_minute_and_never_less_than_five(
    timeframe: str, minutes: int
) -> None:
    assert bar_horizon_us(timeframe) == minutes * MINUTE_US


def test_expiry_is_put_off_by_up_to_a_tenth_the_same_for_a_key_and_different_among_keys() -> None:
    event_time_us, horizon_us = 1_700_000_000_000_000, 60 * MINUTE_US
    keys = [KEYS.candle("binance", f"COIN{number}USDT", "1m") for number in range(200)]
    expiries = [expires_at_ms(key, event_time_us, horizon_us) for key in keys]
    assert expiries == [expires_at_ms(key, event_time_us, horizon_us) for key in keys]
    earliest = (event_time_us + horizon_us) // 1_000
    assert all(earliest <= one <= earliest + horizon_us // 10_000 for one in expiries)
    assert len(set(expiries)) > 150
