"""The producer against a real Kafka, a closed port and a broker that never answers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import fastavro
import pytest
from aiokafka.partitioner import murmur2  # type: ignore[import-untyped]
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tradetape.console.topics import admin_client, apply
from tradetape.producers import DeliveryError, Producer, ProducerClosed, QueueFull
from tradetape.producers import producer as producer_module
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Catalogue,
    Direction,
    EventError,
    IndicatorUpdate,
    TradeSignal,
    avro_schema,
)
from waiting import eventually

PARTITIONS = 5
DEADLINE_S = 30.0
FIRST_CLOSE = datetime(2024, 5, 1, tzinfo=UTC)


def update(number: int = 0, *, symbol: str = "BTCUSDT", **given: Any) -> IndicatorUpdate:
    closed_at = FIRST_CLOSE + timedelta(minutes=number)
    values = given.pop("values", {"rsi_14": 28.5, "ema_50": float(number)})
    return IndicatorUpdate(
        venue="binance", symbol=symbol, timeframe="1m", bar_close_time=closed_at, values=values, **given
    )


def signal(number: int = 0) -> TradeSignal:
    return TradeSignal(
        strategy_id="rsi-dip",
        venue="binance",
        symbol="BTCUSDT",
        timeframe="1m",
        bar_close_time=FIRST_CLOSE + timedelta(minutes=number),
        action=Action.ENTER,
        direction=Direction.LONG,
        reference_price="64123.10",
    )


@pytest.fixture
def catalogue(kafka: str, topic_prefix: str) -> Catalogue:
    """Topics of this test's own."""
    catalogue = CATALOGUE.with_prefix(topic_prefix)
    apply(admin_client(KafkaSettings(bootstrap_servers=kafka)), catalogue, partitions=PARTITIONS)
    return catalogue


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def hanging() -> Iterator[str]:
    """A broker that takes connections and never answers."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen(64)
        yield f"127.0.0.1:{listener.getsockname()[1]}"


@pytest.fixture(params=["closed_port", "hanging"])
def away(request: pytest.FixtureRequest) -> str:
    """A broker that is not there, in both ways of not being there."""
    return str(request.getfixturevalue(request.param))


def on_the_tape(kafka: str, topic: str) -> list[Message]:
    """Every record of a topic, in the order of each partition."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "none", "enable.auto.commit": False})
    try:
        places = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        ends = [_end(consumer, place) for place in places]
        consumer.assign(places)
        found: list[Message] = []
        deadline = time.monotonic() + DEADLINE_S
        while len(found) < sum(ends):
            assert time.monotonic() < deadline, f"{len(found)} of {sum(ends)} records were read"
            for message in consumer.consume(1_000, 0.2):
                assert message.error() is None
                found.append(message)
        return found
    finally:
        consumer.close()


def _end(consumer: Consumer, place: TopicPartition) -> int:
    """The offset behind the last record; a topic that was just made may not know its leader yet."""
    deadline = time.monotonic() + DEADLINE_S
    while True:
        try:
            return int(consumer.get_watermark_offsets(place, timeout=DEADLINE_S)[1])
        except KafkaException as error:
            if error.args[0].code() != KafkaError.NOT_LEADER_FOR_PARTITION or time.monotonic() > deadline:
                raise


def body(message: Message, record: str) -> dict[str, Any]:
    """A record's fields as any Avro reader sees them: by the .avsc alone."""
    payload = message.value()
    assert isinstance(payload, bytes)
    schema = avro_schema.load(record)
    assert payload[:5] == b"\x00" + avro_schema.content_id(schema).to_bytes(4, "big")
    source = BytesIO(payload[5:])
    fields = fastavro.schemaless_reader(source, fastavro.parse_schema(schema), None)
    assert source.read() == b""
    assert isinstance(fields, dict)
    return fields


def test_an_event_arrives_as_it_was_stamped(kafka: str, catalogue: Catalogue, topic_prefix: str) -> None:
    with Producer(bootstrap_servers=kafka, source="rsi-bot", catalogue=catalogue) as tape:
        emitted = tape.emit(update(3, bars_used=200))
        ordered = tape.emit(signal(3))
        assert tape.flush(DEADLINE_S)
        health = tape.health()
    (market,) = on_the_tape(kafka, f"{topic_prefix}indicator-updates")
    (decision,) = on_the_tape(kafka, f"{topic_prefix}trade-signals")

    fields = body(market, "IndicatorUpdate")
    assert fields["event_id"] == emitted.event_id
    assert fields["bar_close_time"] == fields["event_time"] == emitted.event_time == FIRST_CLOSE + timedelta(minutes=3)
    assert fields["values"] == {"rsi_14": 28.5, "ema_50": 3.0}
    assert (fields["bars_used"], fields["producer"], fields["producer_seq"]) == (200, "rsi-bot", 1)
    assert market.key() == decision.key() == b"binance:BTCUSDT"
    for message, event in ((market, emitted), (decision, ordered)):
        assert event.emitted_at is not None
        since_1970 = event.emitted_at - datetime(1970, 1, 1, tzinfo=UTC)
        assert message.timestamp() == (TIMESTAMP_CREATE_TIME, since_1970 // timedelta(milliseconds=1))
    fields = body(decision, "TradeSignal")
    assert fields["signal_id"] == fields["event_id"] == ordered.signal_id
    assert str(fields["reference_price"].normalize()) == "64123.1"
    assert (health.connected, health.emitted, health.delivered, health.queued) == (True, 2, 2, 0)


def test_a_key_goes_to_the_partition_where_java_and_faust_look_for_it(
    kafka: str, catalogue: Catalogue, topic_prefix: str
) -> None:
    symbols = [f"COIN{number}USDT" for number in range(60)]
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
        for symbol in symbols:
            tape.emit(update(symbol=symbol))
    found = on_the_tape(kafka, f"{topic_prefix}indicator-updates")
    assert {message.key() for message in found} == {f"binance:{symbol}".encode() for symbol in symbols}
    assert {message.partition() for message in found} == set(range(PARTITIONS))
    for message in found:
        assert message.partition() == (murmur2(message.key()) & 0x7FFFFFFF) % PARTITIONS


def test_threads_share_a_producer_without_gaps_and_keep_the_order_of_each_key(
    kafka: str, catalogue: Catalogue, topic_prefix: str
) -> None:
    threads, each = 6, 300
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
        start = threading.Barrier(threads)

        def emit_many(place: int) -> None:
            start.wait()
            for number in range(each):
                tape.emit(update(place * each + number, symbol=f"COIN{number % 7}USDT"))

        workers = [threading.Thread(target=emit_many, args=(place,)) for place in range(threads)]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join(DEADLINE_S)
        assert tape.flush(DEADLINE_S)
    numbers: dict[str, list[int]] = defaultdict(list)
    for message in on_the_tape(kafka, f"{topic_prefix}indicator-updates"):
        numbers[str(message.key())].append(body(message, "IndicatorUpdate")["producer_seq"])
    assert len(numbers) == 7
    assert sorted(number for one in numbers.values() for number in one) == list(range(1, threads * each + 1))
    assert all(one == sorted(one) for one in numbers.values())


def test_a_backfill_waits_for_room_and_loses_nothing(kafka: str, catalogue: Catalogue, topic_prefix: str) -> None:
    options = {"queue.buffering.max.messages": "20"}
    with Producer(
        bootstrap_servers=kafka, source="bot", catalogue=catalogue, overflow="wait", kafka_options=options
    ) as tape:
        for number in range(400):
            tape.emit(update(number))
        assert tape.flush(DEADLINE_S)
        assert tape.health().dropped == {}
    seen = [
        body(one, "IndicatorUpdate")["producer_seq"] for one in on_the_tape(kafka, f"{topic_prefix}indicator-updates")
    ]
    assert seen == list(range(1, 401))


def test_a_decision_whose_topic_is_missing_is_an_error_that_names_the_topic(kafka: str, topic_prefix: str) -> None:
    options = {"topic.metadata.propagation.max.ms": "300", "topic.metadata.refresh.fast.interval.ms": "100"}
    tape = Producer(
        bootstrap_servers=kafka, source="bot", catalogue=CATALOGUE.with_prefix(topic_prefix), kafka_options=options
    )
    tape.emit(signal())
    with pytest.raises(DeliveryError, match=f"1 decisions .*binance:BTCUSDT on {topic_prefix}trade-signals"):
        tape.flush(DEADLINE_S)
    ((cause, count),) = tape.health().failed.items()
    assert cause.lstrip("_").startswith("UNKNOWN_TOPIC")
    assert count == 1
    assert tape.flush(), "a failure is reported once"
    tape.close()


def test_decisions_that_cannot_be_delivered_are_an_error_and_emit_did_not_wait(away: str) -> None:
    tape = Producer(bootstrap_servers=away, source="bot")
    before = time.monotonic()
    for number in range(500):
        tape.emit(signal(number))
    # One that touched the network would have waited for it each time: 500 times a connection's timeout.
    assert time.monotonic() - before < DEADLINE_S
    with pytest.raises(DeliveryError, match=r"500 decisions were not acknowledged within 0\.1 s"):
        tape.flush(0.1)
    assert tape.health().connected is False
    with pytest.raises(DeliveryError, match=r"500 decisions were not acknowledged within 0\.2 s"):
        tape.close(0.2)
    assert tape.health().failed == {"_PURGE_QUEUE": 500}


def test_the_error_says_why_when_librdkafka_knows(closed_port: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source="bot")
    tape.emit(signal())
    eventually("an error of the connection", lambda: tape.health().last_error is not None)
    with pytest.raises(DeliveryError, match=r"last error: .*([Cc]onnect|[Dd]own)"):
        tape.close(0.1)


def test_market_updates_that_cannot_be_delivered_are_counted_and_no_error(away: str) -> None:
    tape = Producer(bootstrap_servers=away, source="bot")
    for number in range(20):
        tape.emit(update(number))
    assert tape.flush(0.1) is False
    eventually("twenty updates in the queue", lambda: tape.health().queued == 20)
    tape.close(0.1)
    health = tape.health()
    assert (health.queued, health.delivered, health.failed) == (0, 0, {"_PURGE_QUEUE": 20})


def test_a_market_update_that_finds_no_room_is_dropped_and_counted(closed_port: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source="bot", kafka_options={"queue.buffering.max.messages": "10"})
    numbers = [tape.emit(update(number)).producer_seq for number in range(25)]
    # librdkafka's own errors stand in the same queue until they were served.
    eventually("ten updates in the queue", lambda: tape.health().queued == 10)
    health = tape.health()
    tape.close(0.1)
    assert (health.dropped, health.emitted) == ({"queue_full": 15}, 25)
    assert numbers == list(range(1, 26)), "what was dropped has its number, so the gap on the tape shows the loss"


def test_a_decision_that_finds_no_room_is_refused_and_takes_no_number(closed_port: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source="bot", kafka_options={"queue.buffering.max.messages": "10"})
    for number in range(10):
        tape.emit(signal(number))
    with pytest.raises(QueueFull, match="10 events wait"):
        tape.emit(signal(10))
    assert tape.emit(update()).producer_seq == 11, "a full lane of decisions leaves the other free"
    with pytest.raises(DeliveryError, match="10 decisions"):
        tape.close(0.1)


def test_a_flood_of_market_updates_leaves_room_for_decisions(closed_port: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source="bot", kafka_options={"queue.buffering.max.messages": "10"})
    for number in range(30):
        tape.emit(update(number))
    for number in range(10):
        tape.emit(signal(number))
    with pytest.raises(DeliveryError, match="10 decisions"):
        tape.close(0.1)


def test_waiting_for_room_ends_in_queue_full(closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(producer_module, "WAIT_LIMIT_S", 0.2)
    tape = Producer(
        bootstrap_servers=closed_port,
        source="bot",
        overflow="wait",
        kafka_options={"queue.buffering.max.messages": "3"},
    )
    for number in range(3):
        tape.emit(update(number))
    before = time.monotonic()
    with pytest.raises(QueueFull, match="3 events wait for the broker"):
        tape.emit(update(3))
    assert time.monotonic() - before >= 0.2
    assert tape.health().dropped == {}
    tape.close(0.1)


def test_close_does_not_wait_for_one_who_waits_for_room(closed_port: str) -> None:
    tape = Producer(
        bootstrap_servers=closed_port,
        source="bot",
        overflow="wait",
        kafka_options={"queue.buffering.max.messages": "3"},
    )
    refused = threading.Event()
    for number in range(3):
        tape.emit(update(number))

    def wait_for_room() -> None:
        with pytest.raises((QueueFull, ProducerClosed)):
            tape.emit(update(3))
        refused.set()

    threading.Thread(target=wait_for_room, daemon=True).start()
    eventually("one who waits for room", tape._lock.locked)
    closer = threading.Thread(target=tape.close, args=(0.1,), daemon=True)
    closer.start()
    closer.join(DEADLINE_S)
    assert not closer.is_alive(), "it would have waited for 60 s"
    assert refused.wait(DEADLINE_S)


def test_an_event_that_no_topic_takes_is_refused_and_takes_no_number(closed_port: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source="bot")
    with pytest.raises(EventError, match="more than the 262144 that a topic takes"):
        tape.emit(update(tags={"note": "x" * 262_144}))
    assert tape.health().queued == 0
    assert tape.emit(update()).producer_seq == 1
    tape.close(0.1)


def test_after_close_emit_says_so_and_close_is_harmless(closed_port: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source="bot")
    tape.close(0.1)
    with pytest.raises(ProducerClosed):
        tape.emit(update())
    tape.close(0.1)


def test_the_context_manager_ends_in_bounded_time_and_reports_lost_decisions(away: str) -> None:
    before = time.monotonic()
    with pytest.raises(DeliveryError, match="1 decisions"), Producer(bootstrap_servers=away, source="bot") as tape:
        tape.emit(signal())
    # 5 s for delivery, then what it takes to let go; delivery itself would have been tried for 300 s.
    assert time.monotonic() - before < DEADLINE_S


def test_the_hosts_own_exception_is_not_hidden(closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Producer.close, "__defaults__", (0.1,))

    def host() -> None:
        with Producer(bootstrap_servers=closed_port, source="bot") as tape:
            tape.emit(signal())
            raise KeyError("the host's")

    with pytest.raises(KeyError, match="the host's"):
        host()


PREAMBLE = """
import os, sys, json, time
from datetime import UTC, datetime
from tradetape.producers import *
from tradetape.schemas import *
bootstrap, prefix = sys.argv[1:3]
catalogue = CATALOGUE.with_prefix(prefix)
at = datetime(2024, 5, 1, tzinfo=UTC)
def update():
    return IndicatorUpdate(venue="binance", symbol="BTCUSDT", timeframe="1m", bar_close_time=at, values={"rsi_14": 1.0})
def signal():
    return TradeSignal(strategy_id="s", venue="binance", symbol="BTCUSDT", timeframe="1m", bar_close_time=at,
                       action=Action.ENTER, direction=Direction.LONG)
tape = Producer(bootstrap_servers=bootstrap, source="bot", catalogue=catalogue)
"""


def in_a_process(script: str, bootstrap: str, prefix: str = "tradetape.") -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PREAMBLE + script, bootstrap, prefix],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )


def test_a_forked_child_is_refused_and_may_make_a_producer_of_its_own(
    kafka: str, catalogue: Catalogue, topic_prefix: str
) -> None:
    run = in_a_process(
        """
tape.emit(update())
tape.flush()
child = os.fork()
if child == 0:
    refused = []
    for use in (lambda: tape.emit(update()), tape.flush, tape.health):
        try:
            use()
        except ForkedProducer as error:
            refused.append(type(error).__name__)
    tape.close()
    with Producer(bootstrap_servers=bootstrap, source="child", catalogue=catalogue) as own:
        own.emit(update())
        own.flush(30)
    print(json.dumps(refused), flush=True)
    sys.exit(7)
_, status = os.waitpid(child, 0)
tape.emit(update())
tape.close(30)
print(os.waitstatus_to_exitcode(status))
""",
        kafka,
        topic_prefix,
    )
    assert (run.returncode, run.stderr) == (0, "")
    refused, code = run.stdout.splitlines()
    assert json.loads(refused) == ["ForkedProducer"] * 3
    assert code == "7"
    sources = sorted(
        body(one, "IndicatorUpdate")["producer"] for one in on_the_tape(kafka, f"{topic_prefix}indicator-updates")
    )
    assert sources == ["bot", "bot", "child"]


def test_nothing_is_printed_while_the_broker_is_away(away: str) -> None:
    run = in_a_process(
        """
tape.emit(update())
tape.emit(signal())
until = time.monotonic() + 3
while tape.health().last_error is None and time.monotonic() < until:
    time.sleep(0.05)
try:
    tape.close(0.5)
except DeliveryError:
    sys.exit(5)
""",
        away,
    )
    assert (run.returncode, run.stdout, run.stderr) == (5, "", "")


def test_a_bot_that_never_closes_still_delivers_at_exit(kafka: str, catalogue: Catalogue, topic_prefix: str) -> None:
    run = in_a_process("tape.emit(update())\ntape.emit(signal())\n", kafka, topic_prefix)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")
    assert len(on_the_tape(kafka, f"{topic_prefix}indicator-updates")) == 1
    assert len(on_the_tape(kafka, f"{topic_prefix}trade-signals")) == 1
