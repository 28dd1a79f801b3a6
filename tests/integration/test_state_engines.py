"""The state worker as a process: both engines fill Redis alike, also when killed in between, and both find all rubbish."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis as redis_client
from confluent_kafka import Consumer, KafkaException, Message, TopicPartition
from confluent_kafka.admin import AdminClient, OffsetSpec

from raw_producer import raw_producer
from streams_rig import DEADLINE_S, GroupOffsets, Tape, WorkerProcess, candle, indicators, now
from tradetape.console import topics
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Candle,
    DecisionOutcome,
    Direction,
    Event,
    MarketCondition,
    SignalDecision,
    Trade,
    TradeSignal,
)
from tradetape.schemas.event_classes import CLASSES

SYMBOLS = tuple(f"COIN{number}USDT" for number in range(12))
BARS = 40
RECORDS = ("Candle", "IndicatorUpdate", "MarketCondition", "TradeSignal", "SignalDecision", "Trade")
"""What the state worker reads."""
EXPIRY_SLACK_MS = 250
"""How far apart two readings of the same expiry may be: the server's clock and its PTTL are read one after the other."""

Hashes = dict[str, tuple[Any, float]]
"""By key without its prefix: the fields, and when it expires."""


class Place(NamedTuple):
    """Where a record lies on the tape."""

    topic: str
    partition: int
    offset: int


class Venue:
    """One test's topics and Redis, and the workers that read the one into the other."""

    def __init__(self, *, servers: str, prefix: str, redis_url: str, folder: Path) -> None:
        self.catalogue = CATALOGUE.with_prefix(prefix)
        self.redis = redis_client.Redis.from_url(redis_url, decode_responses=True)
        self._servers, self._prefix, self._redis_url, self._folder = servers, prefix, redis_url, folder
        self._offsets: dict[str, GroupOffsets] = {}
        self._admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        self._producer = raw_producer(servers)
        topics.apply(topics.admin_client(KafkaSettings(bootstrap_servers=servers)), self.catalogue)

    def write(self, values: list[tuple[str, bytes, bytes | None]]) -> list[Place]:
        """Topic, key and value of each; where they came to lie."""
        places: dict[int, Place] = {}

        def delivered(number: int, error: object, message: Message) -> None:
            assert error is None
            places[number] = Place(message.topic() or "", message.partition() or 0, message.offset() or 0)

        for number, (topic, key, value) in enumerate(values):
            self._producer.produce(topic, value, key, on_delivery=partial(delivered, number))
            self._producer.poll(0)
        assert self._producer.flush(DEADLINE_S) == 0
        return [places[number] for number in range(len(values))]

    def emit(self, events: list[Event]) -> None:
        """Write events as a producer would."""
        tape = Tape(self.catalogue)
        records = [tape.record(event) for event in events]
        self.write([(one.topic, one.key or b"", one.value) for one in records])

    @contextmanager
    def worker(self, engine: str, redis_prefix: str) -> Iterator[WorkerProcess]:
        """`tradetape work state`, in a group that belongs to the Redis prefix."""
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self._servers, "REDIS_URL": self._redis_url,
            "TRADETAPE_TOPIC_PREFIX": self._prefix, "TRADETAPE_REDIS_PREFIX": redis_prefix,
        }  # fmt: skip
        command = ["-m", "tradetape.console", "work", "state", "--engine", engine, "--group", self.group(redis_prefix)]
        with WorkerProcess(command, environment=environment, log=self._folder / f"{redis_prefix}.log") as process:
            yield process

    def group(self, redis_prefix: str) -> str:
        return f"{self._prefix}{redis_prefix}"

    def is_done(self, redis_prefix: str) -> bool:
        """Whether the group has committed the end of every topic of state."""
        names = [self.catalogue.topic_name(self.catalogue.by_record(record)) for record in RECORDS]
        asked = {
            TopicPartition(name, number): OffsetSpec.latest()
            for name in names
            for number in range(topics.LOCAL_PARTITIONS)
        }
        try:
            found = self._admin.list_offsets(asked, request_timeout=5.0)
            ends = {(one.topic, one.partition): future.result().offset for one, future in found.items()}
        except KafkaException:
            # A topic that was made a moment ago may have no leader yet.
            return False
        committed = self._group_offsets(redis_prefix).committed(*names, partitions=topics.LOCAL_PARTITIONS)
        return all(committed.get(place, 0) >= end for place, end in ends.items())

    def _group_offsets(self, redis_prefix: str) -> GroupOffsets:
        if redis_prefix not in self._offsets:
            self._offsets[redis_prefix] = GroupOffsets(self._servers, self.group(redis_prefix))
        return self._offsets[redis_prefix]

    def close(self) -> None:
        """Let go of the connections."""
        self.redis.close()
        for offsets in self._offsets.values():
            offsets.close()

    def has_begun(self, redis_prefix: str) -> bool:
        """Whether anything was written."""
        return bool(self.hashes(redis_prefix))

    def hashes(self, redis_prefix: str) -> Hashes:
        """Every key of the prefix but the marker."""
        found: Hashes = {}
        for key in self.redis.scan_iter(f"{redis_prefix}:*", count=1_000):
            if not key.endswith(":layout:state"):
                seconds, micros = self.redis.time()
                expires = self.redis.pttl(key) + seconds * 1_000 + micros / 1_000
                found[key.removeprefix(redis_prefix)] = (self._content(key), expires)
        return found

    def _content(self, key: str) -> Any:
        """A hash's fields; a set's members, each as a field of its own."""
        if self.redis.type(key) == "set":
            return dict.fromkeys(self.redis.smembers(key), "")
        return self.redis.hgetall(key)

    def dead_letters(self) -> list[tuple[str, Place]]:
        """Worker and place of every dead letter, repetitions too."""
        topic = self.catalogue.dead_letters_topic
        consumer = Consumer(
            {"bootstrap.servers": self._servers, "group.id": "reads-letters", "enable.auto.commit": False}
        )
        found = []
        try:
            for number in range(topics.LOCAL_PARTITIONS):
                _, high = consumer.get_watermark_offsets(TopicPartition(topic, number), timeout=DEADLINE_S)
                consumer.assign([TopicPartition(topic, number, 0)])
                for _ in range(high):
                    message = consumer.poll(DEADLINE_S)
                    assert message is not None
                    given: Any = message.headers()
                    headers = {name: value.decode() for name, value in given}
                    where = [headers[f"__connect.errors.{name}"] for name in ("topic", "partition", "offset")]
                    found.append((headers["x-worker"], Place(where[0], int(where[1]), int(where[2]))))
        finally:
            consumer.close()
        return found


@pytest.fixture
def venue(kafka: str, topic_prefix: str, redis_url: str, tmp_path: Path) -> Iterator[Venue]:
    made = Venue(servers=kafka, prefix=topic_prefix, redis_url=redis_url, folder=tmp_path)
    yield made
    made.close()


def history(seed: int) -> list[Event]:
    """An hour of several symbols, with late, repeated and unfinished events among them, out of order within each symbol."""
    chance, last = random.Random(seed), now() - timedelta(seconds=10)
    events: list[Event] = []
    for bar in range(BARS):
        close_time = last - timedelta(minutes=BARS - 1 - bar)
        for symbol in SYMBOLS:
            price = str(100 + bar)
            prices = {"open": price, "high": price, "low": price, "close": price}
            events.append(candle(close_time, timeframe="1h", symbol=symbol, **prices))
            few = chance.sample(["rsi_14", "ema_50", "ema_200", "adx_14"], chance.randint(1, 4))
            values = {name: chance.random() for name in few}
            events.append(indicators(close_time, values, timeframe="1h", symbol=symbol, close=price))
            events.append(
                candle(close_time, timeframe="1h", symbol=symbol, is_final=False, event_time=close_time, **prices)
            )
            if chance.random() < 0.1:
                events.append(
                    TradeSignal(
                        venue="binance", symbol=symbol, timeframe="1m", event_time=close_time, strategy_id="dip",
                        action=Action.ENTER, direction=Direction.LONG, score=chance.random(),
                        valid_until=close_time + timedelta(hours=1) if chance.random() < 0.5 else None,
                    )
                )  # fmt: skip
            if chance.random() < 0.3:
                outcome = chance.choice([DecisionOutcome.PASSED, DecisionOutcome.REJECTED])
                events.append(
                    SignalDecision(
                        venue="binance", symbol=symbol, event_time=close_time, signal_id=f"{bar}-{symbol}",
                        stage="tech_filter", outcome=outcome,
                    )
                )  # fmt: skip
            if chance.random() < 0.05:
                events.append(
                    Trade(
                        venue="binance", symbol=symbol, event_time=close_time, signal_id=f"{bar}-{symbol}",
                        strategy_id="dip", action=Action.ENTER, direction=Direction.LONG, approved_at=close_time,
                        approved_by="approval", idempotency_key=f"{bar}-{symbol}",
                    )
                )  # fmt: skip
        events.append(
            MarketCondition(
                venue="binance", symbol="MARKET", scope="btc", condition=chance.choice(["bullish", "bearish"]),
                event_time=close_time, values={"rsi_14": chance.random()},
            )
        )  # fmt: skip
    late = chance.choices(events, k=len(events) // 5)
    chance.shuffle(late)
    return [*events, *late]


def newest_candles(events: list[Event]) -> dict[str, str]:
    """The close of each symbol's newest finished candle, by key: what Redis has to say in the end."""
    newest: dict[str, Candle] = {}
    for event in events:
        if isinstance(event, CLASSES["Candle"]) and event.is_final:
            held = newest.get(event.symbol)
            if held is None or held.close_time <= event.close_time:
                newest[event.symbol] = event
    return {f":1:candle:{{binance:{one.symbol}}}:1h": str(one.close) for one in newest.values()}


def fields(found: Hashes) -> dict[str, dict[str, str]]:
    return {key: hash_ for key, (hash_, _) in found.items()}


def test_both_engines_give_the_same_redis_to_the_last_field_also_when_killed_in_between(venue: Venue) -> None:
    events = history(seed=7)
    venue.emit(events[: len(events) // 2])
    with ExitStack() as workers:
        steady = {
            engine: workers.enter_context(venue.worker(engine, f"steady-{engine}")) for engine in ("kafka", "faust")
        }
        for engine in ("kafka", "faust"):
            with venue.worker(engine, f"killed-{engine}") as killed:
                killed.until("it is at work", partial(venue.has_begun, f"killed-{engine}"))
                killed.kill()
        venue.emit(events[len(events) // 2 :])
        again = {
            engine: workers.enter_context(venue.worker(engine, f"killed-{engine}")) for engine in ("kafka", "faust")
        }
        for engine in ("kafka", "faust"):
            steady[engine].until("all is committed", partial(venue.is_done, f"steady-{engine}"))
            again[engine].until("all is committed", partial(venue.is_done, f"killed-{engine}"))
        assert [one.stop() for one in (*steady.values(), *again.values())] == [0, 0, 0, 0]

    reference = venue.hashes("steady-kafka")
    kinds = {key.split(":")[2] for key in reference}
    assert kinds == {"candle", "indicators", "market", "signal", "scan", "decisions", "trades"}
    decisions = {event.signal_id for event in events if isinstance(event, CLASSES["SignalDecision"])}
    assert sum(len(found) for key, (found, _) in reference.items() if ":decisions:" in key) == len(decisions)
    closes = newest_candles(events)
    assert len(closes) == len(SYMBOLS)
    assert {key: reference[key][0]["close"] for key in closes} == closes
    for prefix in ("steady-faust", "killed-kafka", "killed-faust"):
        assert fields(venue.hashes(prefix)) == fields(reference)
    assert venue.dead_letters() == []


@pytest.mark.parametrize("engine", ["kafka", "faust"])
def test_a_flushed_redis_is_filled_again_by_the_next_worker(venue: Venue, engine: str) -> None:
    venue.emit(history(seed=3)[:400])
    with venue.worker(engine, "flushed") as worker:
        worker.until("all is committed", lambda: venue.is_done("flushed"))
        assert worker.stop() == 0
    before = venue.hashes("flushed")
    venue.redis.flushall()
    with venue.worker(engine, "flushed") as worker:
        worker.until("Redis is full again", lambda: len(venue.hashes("flushed")) == len(before))
        worker.until("all is committed", lambda: venue.is_done("flushed"))
        assert worker.stop() == 0
    after = venue.hashes("flushed")
    assert fields(after) == fields(before)
    for key, (_, expires) in before.items():
        assert after[key][1] == pytest.approx(expires, abs=EXPIRY_SLACK_MS), key


def rubbish(good: list[tuple[str, bytes, bytes | None]], seed: int) -> list[tuple[str, bytes, bytes | None]]:
    """Spoilt variants of good records, some of each kind."""
    chance = random.Random(seed)
    spoilt = []
    for number in range(20):
        topic, key, value = chance.choice(good)
        assert value is not None
        kinds = [
            chance.randbytes(chance.randint(1, 300)).lstrip(b"\0") or b"\1",
            b"\7" + value[1:],
            b"\0" + (123_456).to_bytes(4, "big") + value[5:],
            value[: chance.randint(6, len(value) - 1)],
            value + b"\0",
            None,
        ]
        spoilt.append((topic, key, kinds[number % len(kinds)]))
    return spoilt


def test_every_rubbish_record_is_a_dead_letter_once_for_each_worker_and_every_good_one_arrives(venue: Venue) -> None:
    tape = Tape(venue.catalogue)
    close_time = now() - timedelta(seconds=10)
    events = [
        indicators(close_time, {"rsi_14": float(number)}, timeframe="1h", symbol=f"R{number}USDT") for number in range(1_000)
    ]  # fmt: skip
    events_and_candles = [
        *events,
        *(candle(close_time, timeframe="1h", symbol=f"R{number}USDT") for number in range(1_000)),
    ]
    good = [(one.topic, one.key or b"", one.value) for one in map(tape.record, events_and_candles)]
    spoilt = rubbish(good, seed=11)
    mixed = [(one, False) for one in good] + [(one, True) for one in spoilt]
    random.Random(5).shuffle(mixed)
    places = venue.write([one for one, _ in mixed])
    refused = {place for place, (_, is_spoilt) in zip(places, mixed, strict=True) if is_spoilt}
    assert len(refused) == len(spoilt)

    for engine in ("kafka", "faust"):
        with venue.worker(engine, f"rubbish-{engine}") as worker:
            worker.until("all is committed", partial(venue.is_done, f"rubbish-{engine}"))
            assert worker.stop() == 0
        assert len(venue.hashes(f"rubbish-{engine}")) == len(good)

    letters = venue.dead_letters()
    assert {place for worker, place in letters if worker == "state"} == refused
    # Nobody was killed, so each of the two workers wrote each once.
    assert len(letters) == 2 * len(refused)
    assert fields(venue.hashes("rubbish-kafka")) == fields(venue.hashes("rubbish-faust"))
