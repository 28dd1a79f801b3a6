"""State is rebuilt from the tape: the present into the live prefix, the past under a prefix of its own, field by field."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest
import redis

from replay_rig import ReplayRig
from topics_rig import TopicsRig
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import Action, Candle, Direction, Event, IndicatorUpdate, MarketCondition, TradeSignal
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.engines.memory import MemoryEngine
from tradetape.streams.processors.current_state import CurrentState
from tradetape.streams.state.store import StateStore
from tradetape.streams.topic_reader import TopicReader

MINUTE, HOUR = timedelta(minutes=1), timedelta(hours=1)
SYMBOLS = [f"S{number}USDT" for number in range(5)]
State = dict[str, dict[bytes, bytes]]


class Rig(TopicsRig):
    """A tape, and a live state that is kept from it."""

    def __init__(self, kafka: str, prefix: str, redis_url: str) -> None:
        super().__init__(kafka, prefix)
        self.client = redis.Redis.from_url(redis_url)
        self.processor = CurrentState(
            catalogue=self.catalogue, store=StateStore.from_url(redis_url, prefix="live"),
            dead_letters=MemoryDeadLetters(),
        )  # fmt: skip

    def keep(self) -> None:
        """Bring everything that is on the tape to the live state."""
        reader = TopicReader(KafkaSettings(bootstrap_servers=self.kafka.bootstrap_servers))
        partitions = reader.partitions(self.processor.topics)
        records = list(reader.read(reader.begins(partitions), reader.ends(partitions)))
        reader.close()
        MemoryEngine(processor=self.processor, dead_letters=MemoryDeadLetters(), records=records).run()

    def state(self, prefix: str) -> State:
        """Every hash under a prefix, by its key without it."""
        keys = [key for key in self.client.scan_iter(f"{prefix}:1:*") if self.client.type(key) == b"hash"]
        return {key.decode().removeprefix(f"{prefix}:1:"): self.client.hgetall(key) for key in keys}  # type: ignore[misc]

    def left_s(self, prefix: str) -> dict[str, float]:
        """How long each of them lives."""
        return {key: self.client.pttl(f"{prefix}:1:{key}") / 1_000 for key in self.state(prefix)}


@pytest.fixture
def rig(kafka: str, topic_prefix: str, redis_url: str) -> Iterator[Rig]:
    rig = Rig(kafka, topic_prefix, redis_url)
    yield rig
    rig.client.close()
    rig.processor.store.close()


@pytest.fixture
def replay(rig: Rig, kafka: str, redis_url: str) -> ReplayRig:
    return ReplayRig(
        KAFKA_BOOTSTRAP_SERVERS=kafka, REDIS_URL=redis_url, TRADETAPE_TOPIC_PREFIX=rig.catalogue.prefix,
        TRADETAPE_REDIS_PREFIX="live",
    )  # fmt: skip


def open_candle(symbol: str, at: datetime) -> Candle:
    opens = at.replace(minute=0, second=0, microsecond=0)
    price = Decimal(at.microsecond + 1)
    return Candle(
        venue="v", symbol=symbol, timeframe="1h", open_time=opens, close_time=opens + HOUR, is_final=False,
        event_time=at, open=price, high=price, low=price, close=price, volume=Decimal(1),
    )  # fmt: skip


def update(symbol: str, closes: datetime, timeframe: str = "1h", **values: float) -> IndicatorUpdate:
    return IndicatorUpdate(venue="v", symbol=symbol, timeframe=timeframe, bar_close_time=closes, values=values)


def moment_events(at: datetime) -> list[Event]:
    """What a bot may say at one moment."""
    found: list[Event] = [
        MarketCondition(venue="v", symbol="MARKET", scope="btc", condition=f"c{at:%f}", event_time=at)
    ]
    for symbol in SYMBOLS:
        found.append(open_candle(symbol, at))
        found.append(
            TradeSignal(
                strategy_id="s", venue="v", symbol=symbol, timeframe="1h", event_time=at, action=Action.ENTER, direction=Direction.LONG,
                reference_price=Decimal(at.microsecond + 1), valid_until=at + MINUTE,
            )
        )  # fmt: skip
    return found


def test_the_state_at_an_instant_equals_the_live_state_at_that_instant_field_by_field(
    rig: Rig, replay: ReplayRig
) -> None:
    closed = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rig.emit(update(symbol, closed - hours * HOUR, rsi_14=float(hours)) for hours in range(3) for symbol in SYMBOLS)
    rig.emit(moment_events(datetime.now(UTC) - MINUTE))
    rig.emit(moment_events(datetime.now(UTC)))
    rig.keep()
    at = datetime.now(UTC)
    live, left_s = rig.state("live"), rig.left_s("live")
    assert len(live) == 3 * len(SYMBOLS) + 2

    rig.emit(moment_events(datetime.now(UTC)))
    rig.keep()
    after = rig.state("live")
    assert sum(after[key] != live[key] for key in live) == 2 * len(SYMBOLS) + 2

    done = replay.run("--into", "state", "--prefix", "then", "--at", at.isoformat(), "--json")
    assert done.code == 0, done.err
    assert rig.state("then") == live
    # What had so long to live then lives as long from now.
    assert {key: pytest.approx(left, abs=20) for key, left in left_s.items()} == rig.left_s("then")
    assert rig.state("live") == after


def test_a_state_of_years_ago_is_there_to_look_at_without_what_had_expired_then(rig: Rig, replay: ReplayRig) -> None:
    at = datetime(2017, 12, 17, 12, tzinfo=UTC)
    rig.emit(
        [
            update("S0USDT", at - MINUTE, "1m", rsi_14=1.0),
            update("S0USDT", at, "1m", rsi_14=2.0),
            update("S0USDT", at + MINUTE, "1m", rsi_14=3.0),
            update("S1USDT", at - 4 * MINUTE, "1m", rsi_14=4.0),
            # A bar of a minute is current for at least 5 minutes, lengthened by a tenth at most.
            update("S2USDT", at - 6 * MINUTE, "1m", rsi_14=5.0),
        ]
    )
    done = replay.run("--into", "state", "--prefix", "then", "--at", "2017-12-17T12:00Z")
    assert done.code == 0, done.err
    assert {key: fields[b"rsi_14"] for key, fields in rig.state("then").items()} == {
        "indicators:{v:S0USDT}:1m": b"2.0", "indicators:{v:S1USDT}:1m": b"4.0",
    }  # fmt: skip
    left_s = rig.left_s("then")
    assert 200 < left_s["indicators:{v:S0USDT}:1m"] <= 331
    assert 0 < left_s["indicators:{v:S1USDT}:1m"] <= 91


def test_a_flushed_redis_is_filled_with_what_is_current_and_nothing_that_has_expired(
    rig: Rig, replay: ReplayRig
) -> None:
    closed = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
    rig.emit(update(symbol, closed - hours * HOUR, rsi_14=float(hours)) for hours in (9, 1, 0) for symbol in SYMBOLS)
    rig.emit([update("OLDUSDT", datetime(2017, 12, 17, tzinfo=UTC), rsi_14=1.0)])
    rig.keep()
    live = rig.state("live")
    assert len(live) == len(SYMBOLS)
    rig.client.flushall()
    done = replay.run("--into", "state", "--json")
    assert done.code == 0, done.err
    assert rig.state("live") == live
    assert done.document["counts"]["expired"] >= 1
    # Once more, older than what is there or the same: nothing goes back in time.
    assert replay.run("--into", "state", "--to", "30m").code == 0
    assert rig.state("live") == live


@pytest.mark.parametrize(
    "words",
    [["--prefix", "live"], ["--at", "2h"], ["--prefix", "live", "--at", "2h"], ["--prefix", "live:1:candle"]],
    ids=" ".join,
)
def test_the_live_prefix_is_refused_for_the_past(words: list[str], rig: Rig, replay: ReplayRig) -> None:
    rig.emit([update("S0USDT", datetime(2017, 12, 17, tzinfo=UTC), rsi_14=1.0)])
    done = replay.run("--into", "state", *words)
    assert (done.code, done.out) == (2, "")
    assert rig.client.dbsize() == 0


def test_a_prefix_that_holds_another_state_is_refused(rig: Rig, replay: ReplayRig) -> None:
    at = datetime(2017, 12, 17, tzinfo=UTC)
    rig.emit([update("S0USDT", at, rsi_14=1.0), update("S0USDT", at - HOUR, rsi_14=2.0)])
    assert replay.run("--into", "state", "--prefix", "then", "--at", "2017-12-17T00:00Z").code == 0
    done = replay.run("--into", "state", "--prefix", "then", "--at", "2017-12-16T23:30Z")
    assert (done.code, "already" in done.err) == (2, True)


def test_a_paced_past_moves_on_as_it_did(rig: Rig, replay: ReplayRig) -> None:
    at = datetime(2017, 12, 17, tzinfo=UTC)
    rig.emit(update("S0USDT", at + number * HOUR, rsi_14=float(number)) for number in range(5))
    done = replay.run("--into", "state", "--prefix", "then", "--speed", "100000000x", "--json")
    assert done.code == 0, done.err
    (fields,) = rig.state("then").values()
    assert fields[b"rsi_14"] == b"4.0"


def test_other_topics_than_those_of_the_state_are_refused(rig: Rig, replay: ReplayRig) -> None:
    done = replay.run("--into", "state", "--topics", "fills")
    assert (done.code, "cannot be replayed" in done.err) == (2, True)
