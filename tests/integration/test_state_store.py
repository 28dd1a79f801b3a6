"""Current state in Redis: the newest event wins in any order, and goes away by itself when it is no longer true (I1, I2, I3)."""

from __future__ import annotations

import random
import uuid
from collections.abc import Iterator
from datetime import timedelta
from decimal import Decimal

import msgspec
import pytest
import redis as redis_client
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from redis.connection import AbstractConnection

from streams_rig import Tape, candle, indicators, now
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Direction,
    Event,
    MarketCondition,
    TradeSignal,
    times,
)
from tradetape.schemas.stamping import wall_clock_us
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.errors import StateUnavailable, Transient
from tradetape.streams.processors.current_state import CurrentState
from tradetape.streams.state.connection import connect
from tradetape.streams.state.keys import Keys
from tradetape.streams.state.reader import StateReader
from tradetape.streams.state.store import StateStore
from tradetape.streams.state.writes import Update

SMALL = {b"listpack", b"ziplist"}
"""What Redis calls a hash kept in one block of memory: since 7.0, and before."""
MINUTE_MS = 60_000
CLOSED_PORT = "redis://127.0.0.1:1/0"


@pytest.fixture
def client(redis_url: str) -> Iterator[redis_client.Redis]:
    with redis_client.Redis.from_url(redis_url) as made:
        yield made


@pytest.fixture
def store(redis_url: str) -> Iterator[StateStore]:
    made = StateStore.from_url(redis_url, prefix="t")
    yield made
    made.close()


@pytest.fixture
def reader(redis_url: str) -> Iterator[StateReader]:
    with StateReader(connect(redis_url), prefix="t") as made:
        yield made


def project(store: StateStore, *events: Event) -> None:
    """Take events the way a worker would."""
    tape, letters = Tape(), MemoryDeadLetters()
    CurrentState(catalogue=CATALOGUE, store=store, dead_letters=letters).process([tape.record(one) for one in events])
    assert not letters.letters


def update(key: str, *, event_time_us: int, partition: int = 0, offset: int = 0, **fields: str) -> Update:
    return Update(
        key=key, event_time_us=event_time_us, partition=partition, offset=offset,
        expires_at_ms=wall_clock_us() // 1_000 + MINUTE_MS, fields=fields,
    )  # fmt: skip


_places = st.tuples(st.integers(0, 3), st.integers(0, 2), st.integers(0, 12))
_fields = st.dictionaries(st.sampled_from("abcd"), st.text("0123456789.-", min_size=1, max_size=8), min_size=1)


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(events=st.dictionaries(_places, _fields, min_size=1, max_size=8), shuffle=st.randoms(use_true_random=False))
def test_in_any_order_and_however_often_the_newest_event_stays_and_nothing_of_the_others(
    redis_url: str, events: dict[tuple[int, int, int], dict[str, str]], shuffle: random.Random
) -> None:
    base = wall_clock_us() - 10_000_000
    key = f"any-order:{uuid.uuid4()}"
    arriving = [*events, *shuffle.choices(list(events), k=len(events))]
    shuffle.shuffle(arriving)
    store = StateStore.from_url(redis_url, prefix="t")
    for place in arriving:
        time, partition, offset = place
        store.write([update(key, event_time_us=base + time, partition=partition, offset=offset, **events[place])])
    store.close()
    newest = max(events)
    order = {"_t": str(base + newest[0]), "_o": f"{newest[1]}:{newest[2]}"}
    with redis_client.Redis.from_url(redis_url, decode_responses=True) as client:
        assert client.hgetall(key) == {**order, **events[newest]}


def test_an_older_event_changes_nothing_and_is_counted(store: StateStore, client: redis_client.Redis) -> None:
    at = wall_clock_us() - 1_000_000
    store.write([update("k", event_time_us=at, offset=5, a="new")])
    before = client.hgetall("k"), client.pttl("k") > 0
    store.write([update("k", event_time_us=at - 1, offset=9, a="old"), update("k", event_time_us=at, offset=5, a="x")])
    assert (client.hgetall("k"), client.pttl("k") > 0) == before
    assert store.results == {"applied": 1, "stale": 2}


@pytest.mark.parametrize(
    ("timeframe", "least_ms"), [("1m", 5 * MINUTE_MS), ("5m", 16 * MINUTE_MS), ("1h", 181 * MINUTE_MS)]
)
def test_a_bar_expires_by_its_close_whenever_it_is_written(
    store: StateStore, client: redis_client.Redis, timeframe: str, least_ms: int
) -> None:
    close_time = now() - timedelta(minutes=2)
    project(
        store, candle(close_time, timeframe=timeframe), indicators(close_time, {"rsi_14": 40.0}, timeframe=timeframe)
    )
    keys = list(client.scan_iter())
    assert len(keys) == 2
    for key in keys:
        after_close_ms = _expires_at_ms(client, key) - times.from_datetime(close_time) / 1_000
        # 3 timeframes + 60 s, at least 5 minutes, and up to a tenth of it longer; 50 ms between the two clocks' readings.
        assert least_ms - 50 <= after_close_ms <= least_ms * 1.1 + 50
    first = {key: _expires_at_ms(client, key) for key in keys}
    client.flushall()
    project(
        store, candle(close_time, timeframe=timeframe), indicators(close_time, {"rsi_14": 40.0}, timeframe=timeframe)
    )
    assert {key: pytest.approx(_expires_at_ms(client, key), abs=50) for key in keys} == first


def _expires_at_ms(client: redis_client.Redis, key: bytes) -> float:
    seconds, micros = client.time()
    return float(client.pttl(key)) + seconds * 1_000 + micros / 1_000


def test_what_is_past_its_horizon_is_counted_and_not_written(store: StateStore, client: redis_client.Redis) -> None:
    project(store, candle(now() - timedelta(hours=3), timeframe="1h", symbol="INTIME"))
    project(store, candle(now() - timedelta(hours=3, minutes=20), timeframe="1h", symbol="TOOLATE"))
    assert [key for key in client.scan_iter() if b"TOOLATE" in key] == []
    assert [key for key in client.scan_iter() if b"INTIME" in key] != []
    assert store.results == {"applied": 1, "expired": 1}


def test_an_event_from_the_future_is_counted_and_does_not_freeze_its_key(
    store: StateStore, client: redis_client.Redis, reader: StateReader
) -> None:
    project(store, candle(now() + timedelta(seconds=60), close="12"))
    assert list(client.scan_iter()) == []
    project(store, candle(now() + timedelta(seconds=3), close="10"))
    found = reader.candle("binance", "BTCUSDT", "1m")
    assert found is not None
    assert found.close == Decimal(10)
    assert store.results == {"future": 1, "applied": 1}


@pytest.mark.parametrize("place", [0, 1, 2])
def test_an_event_from_the_future_takes_none_of_its_batch_with_it(
    store: StateStore, client: redis_client.Redis, reader: StateReader, place: int
) -> None:
    of_now = [candle(now() - timedelta(seconds=30), close="10"), candle(now(), close="11")]
    of_now.insert(place, candle(now() + timedelta(seconds=60), close="12"))
    of_now.insert(place, candle(now() + timedelta(seconds=70), close="12.5"))
    client.script_flush()
    project(store, *of_now, candle(now(), symbol="ETHUSDT"))
    found = reader.candle("binance", "BTCUSDT", "1m")
    assert found is not None
    assert found.close == Decimal(11)
    assert reader.candle("binance", "ETHUSDT", "1m") is not None
    assert store.results["future"] == 2


def test_a_redis_that_forgot_the_script_is_told_again(store: StateStore, client: redis_client.Redis) -> None:
    at = wall_clock_us()
    for number in range(3):
        client.script_flush()
        store.write([update(f"k{one}", event_time_us=at + number, a=str(number)) for one in range(5)])
        assert {client.hget(f"k{one}", "a") for one in range(5)} == {str(number).encode()}
    assert store.results == {"applied": 15}


def test_every_key_is_a_declared_small_hash_that_expires(store: StateStore, client: redis_client.Redis) -> None:
    close_time = now() - timedelta(seconds=5)
    digits = "9" * 20 + "." + "9" * 18
    many = {f"indicator_{number}": number / 3 for number in range(300)}
    project(
        store,
        candle(close_time, open=digits, high=digits, low=digits, close=digits, volume=digits, quote_volume=digits,
               taker_buy_volume=digits, trade_count=2**60),
        candle(close_time, is_final=False, event_time=close_time),
        indicators(close_time, many),
        indicators(close_time, {"i" * 59: -1.2345678901234567e-300}, indicator_set="s" * 200),
        MarketCondition(venue="binance", symbol="MARKET", scope="btc", condition="bullish", event_time=close_time,
                        values={"v" * 59: 1.0, "w" * 200: 2.0}),
        MarketCondition(venue="binance", symbol="BTCUSDT", scope="x:y", condition="c" * 500, event_time=close_time),
        TradeSignal(venue="binance", symbol="BTCUSDT", timeframe="1m", bar_close_time=close_time, strategy_id="s" * 90,
                    strategy_version="v" * 90, action=Action.ENTER, direction=Direction.LONG, position_ref="p" * 90,
                    reasons=["r" * 900], indicators=many),
    )  # fmt: skip
    found = list(client.scan_iter())
    # Seven series, and when the strategy last signalled.
    assert len(found) == 8
    for key in found:
        assert client.object("encoding", key) in SMALL, key
        assert client.pttl(key) > 0, key
        pattern = Keys("t").pattern_of(key.decode())
        assert pattern is not None, key
        assert pattern.type.encode() == client.type(key)
    # Of the 300 values 118 stand beside the event's id and the close; the rest is text or a name of more than 64 bytes.
    assert store.results["unfit"] == 182 + 1 + 1 + 2


def test_the_reader_gives_typed_values_and_says_how_old_they_are(store: StateStore, redis_url: str) -> None:
    close_time = now() - timedelta(minutes=1)
    project(
        store,
        candle(close_time),
        indicators(close_time, {"rsi_14": 41.25, "ema_50": 0.1 + 0.2, "adx_14": float("nan")}),
        MarketCondition(venue="binance", symbol="MARKET", scope="btc", condition="bullish", score=0.5,
                        event_time=close_time, values={"rsi": 61.5}),
        TradeSignal(venue="binance", symbol="BTCUSDT", timeframe="1m", bar_close_time=close_time, strategy_id="dip",
                    action=Action.ENTER, direction=Direction.LONG, reference_price="11.10", confidence=0.75),
    )  # fmt: skip
    close_us = times.from_datetime(close_time)
    clock = [close_us + 69_999_999]
    with StateReader(connect(redis_url), prefix="t", clock=lambda: clock[0]) as reader:
        bar, state = reader.candle("binance", "BTC/USDT", "1m"), reader.indicators("Binance", "btcusdt", "60s")
        assert bar is not None
        assert state is not None
        prices = [Decimal(text) for text in ("10", "12.5", "9.75", "11", "3")]
        assert [bar.open, bar.high, bar.low, bar.close, bar.volume] == prices
        assert (state.values, state.close) == ({"rsi_14": 41.25, "ema_50": 0.1 + 0.2}, Decimal("11"))
        assert (state.event_time, state.age) == (close_time, timedelta(microseconds=69_999_999))
        # The next bar closes a minute later, and may be ten seconds late.
        assert not state.is_stale
        clock[0] += 2
        later = reader.indicators("binance", "BTCUSDT", "1m")
        assert later is not None
        assert later.is_stale

        market, signal = reader.market("btc"), reader.signal("binance", "BTCUSDT", "dip")
        assert market is not None
        assert (market.condition, market.score, market.values) == ("bullish", 0.5, {"rsi": 61.5})
        assert signal is not None
        assert (signal.action, signal.direction, signal.reference_price) == ("ENTER", "LONG", Decimal("11.1"))
        assert (signal.valid_until, signal.fields["confidence"]) == (None, "0.75")


def test_what_nobody_wrote_is_unknown_and_not_zero(reader: StateReader) -> None:
    assert reader.candle("binance", "BTCUSDT", "1m") is None
    assert reader.indicators("binance", "BTCUSDT", "1m") is None
    assert reader.market("btc") is None
    assert reader.signal("binance", "BTCUSDT", "dip") is None
    assert reader.indicators_many([]) == []


def test_what_is_no_longer_valid_is_unknown_and_an_older_event_does_not_come_back(
    store: StateStore, redis_url: str
) -> None:
    moment = now()

    def signal(at_s: int, valid_s: int | None) -> TradeSignal:
        valid_until = None if valid_s is None else moment + timedelta(seconds=valid_s)
        return TradeSignal(
            venue="binance", symbol="BTCUSDT", timeframe="1m", event_time=moment + timedelta(seconds=at_s),
            strategy_id="dip", action=Action.ENTER, direction=Direction.LONG, valid_until=valid_until,
        )  # fmt: skip

    def condition(valid_s: int) -> MarketCondition:
        return MarketCondition(
            venue="binance", symbol="BTCUSDT", scope="btc", condition="bullish", event_time=moment,
            valid_until=moment + timedelta(seconds=valid_s),
        )  # fmt: skip

    project(store, signal(-5, 3_600), signal(-1, 30), condition(30))
    clock = [times.from_datetime(moment) + 30_000_000 - 1]
    with StateReader(connect(redis_url), prefix="t", clock=lambda: clock[0]) as reader:
        newest = reader.signal("binance", "BTCUSDT", "dip")
        assert newest is not None
        assert newest.valid_until == moment + timedelta(seconds=30)
        assert reader.market("btc", "binance", "BTC/USDT") is not None
        clock[0] += 1
        assert reader.signal("binance", "BTCUSDT", "dip") is None
        assert reader.market("btc", "binance", "BTCUSDT") is None
        project(store, signal(-5, 3_600))
        assert reader.signal("binance", "BTCUSDT", "dip") is None


def test_a_condition_that_did_not_fit_is_unknown(store: StateStore, reader: StateReader) -> None:
    project(store, MarketCondition(venue="binance", symbol="MARKET", scope="btc", condition="c" * 65, event_time=now()))
    assert reader.market("btc") is None


def test_many_series_are_read_in_one_round_trip_and_in_their_order(
    store: StateStore, reader: StateReader, client: redis_client.Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    close_time = now()
    symbols = [f"COIN{number}USDT" for number in range(50)]
    project(store, *(indicators(close_time, {"rsi_14": float(n)}, symbol=one) for n, one in enumerate(symbols)))
    reader.indicators("binance", "BTCUSDT", "1m")
    sent: list[object] = []
    send = AbstractConnection.send_packed_command

    def counted(self: AbstractConnection, *arguments: object, **named: object) -> None:
        sent.append(self)
        send(self, *arguments, **named)  # type: ignore[no-untyped-call]

    client.config_resetstat()
    with monkeypatch.context() as patched:
        patched.setattr(AbstractConnection, "send_packed_command", counted)
        found = reader.indicators_many([("binance", one, "1m") for one in [*symbols, "NOWHEREUSDT"]])
    assert len(sent) == 1
    assert [one.values["rsi_14"] if one else None for one in found] == [*map(float, range(50)), None]
    assert client.info("commandstats")["cmdstat_hgetall"]["calls"] == 51


def test_only_the_values_that_are_asked_for_are_fetched_by_any_of_their_names(
    store: StateStore, reader: StateReader
) -> None:
    close_time = now()
    project(store, indicators(close_time, {"rsi_14": 28.5, "ema_50": 7.25, "adx_14": 1.0}))
    series = [("binance", "BTCUSDT", "1m"), ("binance", "NOWHEREUSDT", "1m")]
    whole, unknown = reader.indicators_many(series)
    some, still_unknown = reader.indicators_many(series, only=["RSI14", "ema_50", "psar"])
    assert whole is not None
    assert some is not None
    assert unknown is still_unknown is None
    assert some.values == {"rsi_14": 28.5, "ema_50": 7.25}
    assert (some.event_time, some.event_id, some.close) == (whole.event_time, whole.event_id, whole.close)


def test_after_an_answer_that_is_an_error_the_next_read_gets_its_own_answers(
    store: StateStore, reader: StateReader, client: redis_client.Redis
) -> None:
    project(store, indicators(now(), {"rsi_14": 28.5}))
    client.set(store.keys.indicators("binance", "WRONGUSDT", "1m"), "no hash", ex=60)
    for _ in range(20):
        with pytest.raises(StateUnavailable, match="WRONGTYPE"):
            reader.indicators_many([("binance", "WRONGUSDT", "1m"), ("binance", "BTCUSDT", "1m")])
        found = reader.indicators("binance", "BTCUSDT", "1m")
        assert found is not None
        assert found.values == {"rsi_14": 28.5}


def test_a_full_redis_is_a_dependency_that_is_away_and_what_it_refused_can_be_written_later(
    store: StateStore, client: redis_client.Redis
) -> None:
    at = wall_clock_us() - 1_000_000
    store.write([update("held", event_time_us=at, a="1")])
    limit = client.config_get("maxmemory")["maxmemory"]
    batch = [
        update("held", event_time_us=at + 1, a="2"),
        *(update(f"new{n}", event_time_us=at, a="1") for n in range(9)),
    ]
    client.config_set("maxmemory", 1)
    try:
        with pytest.raises(StateUnavailable, match="maxmemory") as refused:
            store.write(batch)
        assert isinstance(refused.value, Transient)
        assert client.exists("held")
    finally:
        client.config_set("maxmemory", limit or 0)
    store.write(batch)
    assert client.hget("held", "a") == b"2"
    assert [client.hget(f"new{number}", "a") for number in range(9)] == [b"1"] * 9


def test_a_redis_that_is_away_is_said_to_be_by_writer_and_reader() -> None:
    absent = StateStore.from_url(CLOSED_PORT, prefix="t")
    with pytest.raises(StateUnavailable):
        absent.write([update("k", event_time_us=wall_clock_us(), a="1")])
    with pytest.raises(StateUnavailable):
        absent.is_filled()
    with StateReader(connect(CLOSED_PORT)) as nobody, pytest.raises(StateUnavailable):
        nobody.indicators("binance", "BTCUSDT", "1m")


def test_rubbish_is_one_dead_letter_however_long_redis_was_away(redis_url: str, store: StateStore) -> None:
    tape, letters = Tape(), MemoryDeadLetters()
    good = tape.record(candle(now()))
    rubbish = tape.record(candle(now(), symbol="ETHUSDT"))
    batch = [msgspec.structs.replace(rubbish, value=b"\x01"), good]
    away = CurrentState(catalogue=CATALOGUE, store=StateStore.from_url(CLOSED_PORT, prefix="t"), dead_letters=letters)
    for _ in range(3):
        with pytest.raises(StateUnavailable):
            away.process(batch)
    assert letters.letters == []
    CurrentState(catalogue=CATALOGUE, store=store, dead_letters=letters).process(batch)
    assert [letter.reason for letter in letters.letters] == ["bad_magic"]
    assert store.results == {"applied": 1}


def test_the_marker_comes_with_the_first_tick_and_never_again_by_itself(
    store: StateStore, client: redis_client.Redis, caplog: pytest.LogCaptureFixture
) -> None:
    processor = CurrentState(catalogue=CATALOGUE, store=store, dead_letters=MemoryDeadLetters())
    assert not store.is_filled()
    at = wall_clock_us()
    processor.tick(at)
    assert store.is_filled()
    assert 0 < client.ttl(store.keys.layout()) <= 86_400
    client.expire(store.keys.layout(), 100)
    processor.tick(at + 3_600_000_000)
    assert client.ttl(store.keys.layout()) > 100

    client.flushall()
    processor.tick(at + 7_200_000_000)
    assert not store.is_filled(), "an emptied Redis must not look filled to the next start"
    assert "emptied" in caplog.text


def test_a_worker_that_could_not_begin_at_the_beginning_does_not_call_redis_filled(
    store: StateStore, caplog: pytest.LogCaptureFixture
) -> None:
    processor = CurrentState(catalogue=CATALOGUE, store=store, dead_letters=MemoryDeadLetters(), may_mark=False)
    processor.tick(wall_clock_us())
    assert not store.is_filled()
    assert "stop all workers of the group" in caplog.text


def test_an_update_that_is_not_final_has_a_key_of_its_own(store: StateStore, reader: StateReader) -> None:
    close_time = now() - timedelta(seconds=20)
    project(
        store,
        candle(close_time),
        candle(close_time + timedelta(minutes=1), close="12", is_final=False, event_time=now()),
    )
    final, moving = reader.candle("binance", "BTCUSDT", "1m"), reader.candle("binance", "BTCUSDT", "1m", is_final=False)
    assert final is not None
    assert moving is not None
    assert [final.close, moving.close] == [Decimal(11), Decimal(12)]


def test_two_sets_of_indicators_of_one_symbol_stand_side_by_side(store: StateStore, reader: StateReader) -> None:
    close_time = now()
    project(
        store, indicators(close_time, {"rsi_14": 1.0}), indicators(close_time, {"rsi_14": 2.0}, indicator_set="slow")
    )
    default, slow = reader.indicators("binance", "BTCUSDT", "1m"), reader.indicators("binance", "BTCUSDT", "1m", "slow")
    assert default is not None
    assert slow is not None
    assert (default.values, slow.values) == ({"rsi_14": 1.0}, {"rsi_14": 2.0})
