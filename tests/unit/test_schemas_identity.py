"""The same event has the same id however often and by whomever it is emitted; the ids are recomputed here on their own."""

from __future__ import annotations

import json
import time
import uuid
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tradetape.schemas
from tradetape.schemas import (
    CATALOGUE,
    Candle,
    Codec,
    Event,
    Fill,
    IndicatorUpdate,
    MarketCondition,
    RunMode,
    Side,
    identity,
)
from tradetape.schemas.event_classes import RECORDS
from tradetape.schemas.stamping import Stamper

GOLDEN = Path(tradetape.schemas.__path__[0]) / "released" / "golden"
OPEN = datetime(2025, 5, 4, 15, 33, tzinfo=UTC)
CLOSE = OPEN + timedelta(minutes=1)
OPEN_US = 1_746_372_780_000_000
CLOSE_US = OPEN_US + 60_000_000
BAR = ("venue", "symbol", "timeframe")

# The natural keys of the design, as names of fields of a sample; "final" stands for a finished bar.
NATURAL_KEYS: dict[str, tuple[str, ...]] = {
    "Candle": (*BAR, "open_time", "final"),
    "IndicatorUpdate": (*BAR, "indicator_set", "bar_close_time", "producer", "final"),
    "MarketCondition": ("scope", "venue", "symbol", "condition", "event_time"),
    "TradeSignal": ("strategy_id", *BAR, "bar_close_time", "action", "direction"),
    "SignalDecision": ("signal_id", "stage"),
    "Trade": ("signal_id", "account_id"),
    "TradeDispatch": ("trade_id", "leg_index", "attempt", "outcome"),
    "Fill": ("venue", "account_id", "venue_order_id", "venue_trade_id"),
    "TradeClosed": ("trade_id",),
}


def expected_id(record: str, *parts: object) -> str:
    namespace = uuid.uuid5(uuid.NAMESPACE_DNS, "events.tradetape")
    return str(uuid.uuid5(namespace, json.dumps([record, *parts], separators=(",", ":"), ensure_ascii=False)))


def micros(text: str) -> int:
    return (datetime.fromisoformat(text) - datetime(1970, 1, 1, tzinfo=UTC)) // timedelta(microseconds=1)


def part(sample: dict[str, Any], name: str) -> object:
    if name == "final":
        return "is_final"
    return micros(sample[name]) if name.endswith("_time") else sample[name]


def stamped(event: Event, *, source: str = "market-data", clock_us: int = CLOSE_US) -> Event:
    stamper = Stamper(codec=Codec(CATALOGUE), source=source, run_mode=RunMode.PAPER, clock=lambda: clock_us)
    return stamper.stamp(event)[1]


def candle(**changes: Any) -> Candle:
    bar = {"venue": "binance", "symbol": "BTCUSDT", "timeframe": "1m", "open_time": OPEN, "close_time": CLOSE}
    prices = {"open": "2", "high": "3", "low": "1", "close": "2", "volume": "5"}
    return Candle(**{**bar, **prices, "is_final": True, **changes})


def update(**changes: Any) -> IndicatorUpdate:
    bar = {"venue": "binance", "symbol": "BTCUSDT", "timeframe": "1m", "bar_close_time": CLOSE}
    return IndicatorUpdate(**{**bar, "values": {"rsi_14": 28.5}, **changes})


@pytest.mark.parametrize("record", RECORDS)
def test_every_record_gets_the_id_of_its_natural_key(record: str) -> None:
    sample = json.loads((GOLDEN / f"{record}.v1.json").read_text())
    expected = expected_id(record, *(part(sample, name) for name in NATURAL_KEYS[record]))
    assert sample["event_id"] == expected
    topic = CATALOGUE.topic_name(CATALOGUE.by_record(record))
    event = Codec(CATALOGUE).decode(topic, (GOLDEN / f"{record}.v1.bin").read_bytes())
    again = msgspec.structs.replace(event, event_id=None)
    assert stamped(again, source=sample["producer"], clock_us=micros(sample["emitted_at"])).event_id == expected


def test_a_finished_bar_has_one_id_whatever_its_prices_and_whoever_says_so() -> None:
    first = stamped(candle())
    second = stamped(candle(close="2.5", tags={"feed": "backup"}), source="other", clock_us=CLOSE_US + 7_000_000)
    assert first.event_id == second.event_id == expected_id("Candle", "binance", "BTCUSDT", "1m", OPEN_US, "is_final")
    assert first.event_time == second.event_time == CLOSE


def test_each_state_of_an_unfinished_bar_has_an_id_of_its_own() -> None:
    times = [OPEN + timedelta(seconds=20), OPEN + timedelta(seconds=40)]
    ids = [stamped(candle(is_final=False, event_time=at)).event_id for at in times]
    for found, at in zip(ids, (OPEN_US + 20_000_000, OPEN_US + 40_000_000), strict=True):
        assert found == expected_id("Candle", "binance", "BTCUSDT", "1m", OPEN_US, at)
    assert stamped(candle()).event_id not in ids


@pytest.mark.parametrize(
    "change",
    [
        {"venue": "binance-usdm"},
        {"symbol": "ETHUSDT"},
        {"timeframe": "5m", "close_time": OPEN + timedelta(minutes=5)},
        {"open_time": CLOSE, "close_time": CLOSE + timedelta(minutes=1)},
    ],
)
def test_every_part_of_the_natural_key_makes_another_event(change: dict[str, Any]) -> None:
    later = CLOSE_US + 600_000_000
    assert stamped(candle(**change), clock_us=later).event_id != stamped(candle(), clock_us=later).event_id


def test_the_spelling_of_a_name_does_not_make_another_event() -> None:
    assert stamped(candle(symbol="BTC/USDT", venue="Binance")).event_id == stamped(candle()).event_id


def test_two_sources_of_one_indicator_update_make_two_events() -> None:
    one, other = stamped(update(), source="rsi-bot"), stamped(update(), source="ema-bot")
    key = ("binance", "BTCUSDT", "1m", "default", CLOSE_US)
    assert one.event_id == expected_id("IndicatorUpdate", *key, "rsi-bot", "is_final")
    assert other.event_id == expected_id("IndicatorUpdate", *key, "ema-bot", "is_final")


@pytest.mark.parametrize("event_time", [CLOSE, CLOSE + timedelta(microseconds=1)])
def test_event_time_belongs_to_the_natural_key_of_what_no_bar_triggered(event_time: datetime) -> None:
    event = MarketCondition(venue="binance", symbol="MARKET", scope="btc", condition="bullish", event_time=event_time)
    at = CLOSE_US + (event_time - CLOSE).microseconds
    assert stamped(event).event_id == expected_id("MarketCondition", "btc", "binance", "MARKET", "bullish", at)


def test_an_unknown_account_is_null_in_the_natural_key() -> None:
    fill = Fill(
        venue="binance", symbol="BTCUSDT", event_time=CLOSE, venue_order_id="o1", venue_trade_id="t1", side=Side.BUY,
        price="2", quantity="1", amount_quote="2",
    )  # fmt: skip
    event = stamped(fill)
    assert event.event_id == expected_id("Fill", "binance", None, "o1", "t1")
    assert msgspec.structs.asdict(event)["fill_id"] == event.event_id


def test_a_record_without_a_natural_key_gets_a_new_uuid7_each_time() -> None:
    before_ms = time.time_ns() // 1_000_000
    texts = [identity.uuid7_text() for _ in range(200)]
    after_ms = time.time_ns() // 1_000_000
    for text in texts:
        found = uuid.UUID(text)
        assert (found.version, found.variant) == (7, uuid.RFC_4122)
        assert before_ms <= found.int >> 80 <= after_ms
        assert str(found) == text
    assert len(set(texts)) == 200
    assert [text[:13] for text in texts] == sorted(text[:13] for text in texts)


@given(st.text(st.characters(codec="utf-8")))
def test_the_short_way_to_a_uuid5_gives_the_standard_librarys(name: str) -> None:
    assert identity.uuid5_text(name.encode()) == str(uuid.uuid5(identity.NAMESPACE, name))


@given(st.text(st.characters(codec="utf-8"), min_size=1))
def test_any_text_in_a_natural_key_gives_the_id_that_plain_json_gives(stage: str) -> None:
    derive = identity.natural_key("SignalDecision", ("signal_id", "stage"))
    assert derive({"signal_id": "s", "stage": stage}) == expected_id("SignalDecision", "s", stage)


def test_a_part_with_a_choice_takes_the_first_that_is_set() -> None:
    derive = identity.natural_key("TradeSignal", ("bar_close_time|event_time",))
    assert derive({"bar_close_time": 5, "event_time": 7}) == expected_id("TradeSignal", 5)
    assert derive({"bar_close_time": None, "event_time": 7}) == expected_id("TradeSignal", 7)


def test_a_part_that_is_true_stands_as_its_own_name_and_one_that_is_false_as_null() -> None:
    derive = identity.natural_key("Candle", ("symbol", "is_final"), booleans=("is_final",))
    assert derive({"symbol": "A", "is_final": True}) == expected_id("Candle", "A", "is_final")
    assert derive({"symbol": "A", "is_final": False}) == expected_id("Candle", "A", None)
