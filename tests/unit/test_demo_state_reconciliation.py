"""The proof for Redis finds each single field, expiry, encoding and key that is not as the tape says."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tradetape.console.demo.bars import moved, read_sample, shift_to
from tradetape.console.demo.bot import SOURCE, Bot
from tradetape.console.demo.hashes import ExpectedHash, FoundHash, FoundState, expected_hashes
from tradetape.console.demo.state_reconciliation import StateLine, reconcile_state
from tradetape.console.demo.topic_content import contents_of
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import CATALOGUE, Codec, Event, RunMode, times
from tradetape.schemas.names import record_key
from tradetape.schemas.stamping import Stamper
from tradetape.streams.record import Record
from tradetape.streams.state.keys import Keys

NOW = times.to_datetime(1_900_000_000_000_000)
NOW_MS = 1_900_000_000_000
CANDLE = "tradetape:1:candle:{demo7:BTCUSDT}:1m"
INDICATORS = "tradetape:1:indicators:{demo7:BTCUSDT}:1m"
MARKET = "tradetape:1:market:{demo7:BTCUSDT}:btc"
SIGNAL = "tradetape:1:signal:{demo7:BTCUSDT}:rsi-dip"
CODEC = Codec(CATALOGUE)
STAMPER = Stamper(codec=CODEC, source=SOURCE, run_mode=RunMode.PAPER, clock=lambda: NOW_MS * 1_000)

Found = dict[str, FoundHash]


@pytest.fixture(scope="module")
def emitted() -> RecordingProducer:
    """A day of one symbol that ends now."""
    minutes = read_sample("BTCUSDT")[-1500:]
    tape = RecordingProducer(source=SOURCE, clock=lambda: NOW_MS * 1_000)
    bot = Bot(tape=tape, venue="demo7")
    for minute in moved(minutes, shift_to(minutes[-1].close_time, NOW)):
        bot.on_minute(minute)
    return tape


@pytest.fixture(scope="module")
def expected(emitted: RecordingProducer) -> dict[str, ExpectedHash]:
    contents = contents_of(CODEC, "demo7")
    for offset, event in enumerate(emitted.events):
        record = record_of(event, offset)
        contents[record.topic].add(record)
    return expected_hashes(contents.values(), CODEC, Keys())


def record_of(event: Event, offset: int) -> Record:
    event_type, _, payload, _ = STAMPER.stamp(event)
    key = record_key(event.venue, event.symbol)
    return Record(CATALOGUE.topic_name(event_type), 1, offset, key, payload, (), 0)


@pytest.fixture
def found(expected: dict[str, ExpectedHash]) -> Found:
    """A Redis that holds exactly what it has to."""
    return {
        key: FoundHash({name: str(value) for name, value in one.fields.items()}, one.expires_at_ms - NOW_MS, "listpack")
        for key, one in expected.items()
        if one.expires_at_ms > NOW_MS
    }


def reconciled(expected: dict[str, ExpectedHash], found: Found, now_ms: int = NOW_MS) -> StateLine:
    return reconcile_state(expected, FoundState(found, now_ms))


def test_a_redis_that_equals_the_tape_has_no_difference(expected: dict[str, ExpectedHash], found: Found) -> None:
    line = reconciled(expected, found)
    assert (line.series, line.equal, line.expired) == (6, 6, 0)
    assert (line.difference, line.without_expiry, line.not_compact, line.faults) == (0, 0, 0, ())
    assert {CANDLE, INDICATORS, MARKET, SIGNAL} <= expected.keys()


def test_what_is_expected_is_the_newest_event_of_each_series(
    emitted: RecordingProducer, expected: dict[str, ExpectedHash]
) -> None:
    last_minute = read_sample("BTCUSDT")[-1]
    assert expected[CANDLE].fields["close"] == last_minute.close
    assert expected[CANDLE].fields["_t"] == NOW_MS * 1_000 // 60_000_000 * 60_000_000
    last = {type(event).__name__: event for event in emitted.events if getattr(event, "timeframe", "1m") == "1m"}
    assert expected[INDICATORS].fields["_id"] == last["IndicatorUpdate"].event_id
    assert expected[SIGNAL].fields["_id"] == last["TradeSignal"].event_id
    assert expected[SIGNAL].fields["action"] == "EXIT"
    assert expected[MARKET].fields["condition"] in ("bullish", "bearish", "neutral")


Change = Callable[[FoundHash], FoundHash | None]


@pytest.mark.parametrize(
    ("key", "change", "says"),
    [
        (CANDLE, lambda one: one._replace(fields={**one.fields, "close": "1"}), "close is 1, the tape says 106588.4"),
        (CANDLE, lambda one: one._replace(fields={**one.fields, "_o": "1:1"}), "_o is 1:1"),
        (CANDLE, lambda one: one._replace(fields={**one.fields, "_t": "soon"}), "_t is soon"),
        (INDICATORS, lambda one: one._replace(fields={**one.fields, "qqe": "5"}), "qqe is 5, the tape says None"),
        (
            INDICATORS,
            lambda one: one._replace(fields={k: v for k, v in one.fields.items() if k != "rsi_14"}),
            "rsi_14 is None",
        ),
        (MARKET, lambda one: one._replace(fields={**one.fields, "condition": "calm"}), "condition is calm"),
        (SIGNAL, lambda one: one._replace(fields={**one.fields, "action": "FLY"}), "action is FLY"),
        (SIGNAL, lambda one: one._replace(ttl_ms=-1), "has no expiry"),
        (SIGNAL, lambda one: one._replace(ttl_ms=one.ttl_ms + 60_000), "expires in"),
        (INDICATORS, lambda one: one._replace(encoding="hashtable"), "stored as hashtable instead of listpack"),
        (MARKET, lambda one: None, "is missing"),
    ],
)
def test_a_single_change_is_found_and_named(
    expected: dict[str, ExpectedHash], found: Found, key: str, change: Change, says: str
) -> None:
    changed = change(found.pop(key))
    line = reconciled(expected, found if changed is None else {**found, key: changed})
    assert line.difference == 1
    assert line.equal == 5
    assert key in line.faults[0]
    assert says in line.faults[0]


def test_a_key_without_expiry_is_counted(expected: dict[str, ExpectedHash], found: Found) -> None:
    line = reconciled(expected, {key: one._replace(ttl_ms=-1) for key, one in found.items()})
    assert (line.without_expiry, line.equal) == (6, 0)


def test_a_hash_that_is_not_compact_is_counted(expected: dict[str, ExpectedHash], found: Found) -> None:
    line = reconciled(expected, {key: one._replace(encoding="hashtable") for key, one in found.items()})
    assert line.not_compact == 6


def test_redis_6_calls_a_small_hash_a_ziplist(expected: dict[str, ExpectedHash], found: Found) -> None:
    assert reconciled(expected, {key: one._replace(encoding="ziplist") for key, one in found.items()}).difference == 0


def test_a_price_is_compared_as_a_number_not_as_text(expected: dict[str, ExpectedHash], found: Found) -> None:
    found[CANDLE] = found[CANDLE]._replace(fields={**found[CANDLE].fields, "close": "106588.400"})
    assert reconciled(expected, found).difference == 0


def test_a_key_that_nobody_emitted_is_found(expected: dict[str, ExpectedHash], found: Found) -> None:
    found["tradetape:1:candle:{demo7:DOGEUSDT}:1m"] = found[CANDLE]
    line = reconciled(expected, found)
    assert line.difference == 1
    assert "DOGEUSDT" in line.faults[0]


def test_past_its_horizon_a_series_has_to_be_gone(expected: dict[str, ExpectedHash], found: Found) -> None:
    later = NOW_MS + 6 * 60_000
    still = {key: one for key, one in found.items() if key not in (CANDLE, INDICATORS)}
    still = {key: one._replace(ttl_ms=one.ttl_ms - (later - NOW_MS)) for key, one in still.items()}
    line = reconciled(expected, still, later)
    assert (line.series, line.equal, line.expired, line.difference) == (6, 4, 2, 0)
    line = reconciled(expected, {**still, CANDLE: found[CANDLE]}, later)
    assert line.difference == 1
