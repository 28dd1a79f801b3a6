"""The producer against a real Kafka, a closed port and a broker that never answers."""

from __future__ import annotations

import asyncio
import gc
import json
import os
import re
import socket
import subprocess
import sys
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import Any

import fastavro
import pytest
from aiokafka.partitioner import murmur2
from confluent_kafka import TIMESTAMP_CREATE_TIME, Consumer, KafkaError, KafkaException, Message, TopicPartition
from confluent_kafka.admin import NewTopic

from tradetape.console.topics import admin_client, apply
from tradetape.producers import Delivered, Dropped, OutboxFull, OutboxInUse, Producer, ProducerClosed, QueueFull
from tradetape.producers import market as market_module
from tradetape.producers import producer as producer_module
from tradetape.producers.client import Client
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.market import Market
from tradetape.producers.outbox import pump as pump_module
from tradetape.producers.outbox.lane import Lane
from tradetape.producers.outbox.pump import Pump
from tradetape.producers.outbox.store import OutboxStore
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Catalogue,
    DecisionOutcome,
    Direction,
    EventError,
    IndicatorUpdate,
    RunMode,
    SignalDecision,
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


def signal(number: int = 0, *, symbol: str = "BTCUSDT", **given: Any) -> TradeSignal:
    return TradeSignal(
        strategy_id="rsi-dip",
        venue="binance",
        symbol=symbol,
        timeframe="1m",
        bar_close_time=FIRST_CLOSE + timedelta(minutes=number),
        action=Action.ENTER,
        direction=Direction.LONG,
        reference_price="64123.10",
        **given,
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


def test_with_more_series_than_are_remembered_each_record_keeps_its_own_key(
    kafka: str, catalogue: Catalogue, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(producer_module, "KNOWN_SERIES", 2)
    symbols = [f"B{number % 5:02d}USDT" for number in range(20)]
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
        emitted = [tape.emit(update(number, symbol=symbol)) for number, symbol in enumerate(symbols)]
    keys = {
        body(one, "IndicatorUpdate")["event_id"]: one.key()
        for one in on_the_tape(kafka, f"{topic_prefix}indicator-updates")
    }
    assert keys == {one.event_id: f"binance:{one.symbol}".encode() for one in emitted}


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


def test_a_backfill_waits_for_room_and_loses_nothing(
    kafka: str, catalogue: Catalogue, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_module, "CLIENT_RECORDS", 20)
    with Producer(
        bootstrap_servers=kafka, source="bot", catalogue=catalogue, overflow="wait", buffer_events=20
    ) as tape:
        for number in range(400):
            tape.emit(update(number))
        assert tape.flush(DEADLINE_S)
        assert tape.health().dropped == {}
    seen = [
        body(one, "IndicatorUpdate")["producer_seq"] for one in on_the_tape(kafka, f"{topic_prefix}indicator-updates")
    ]
    assert seen == list(range(1, 401))


def test_a_decision_whose_topic_is_missing_waits_until_it_is_there(kafka: str, topic_prefix: str) -> None:
    options = {"topic.metadata.propagation.max.ms": "300", "topic.metadata.refresh.fast.interval.ms": "100"}
    catalogue = CATALOGUE.with_prefix(topic_prefix)
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue, kafka_options=options) as tape:
        tape.emit(signal())
        topic = f"{topic_prefix}trade-signals"
        eventually("the topic's lane is held", lambda: topic in tape.health().outbox.held)
        assert "nknown topic" in tape.health().outbox.held[topic]
        assert tape.health().outbox.events == 1
        apply(admin_client(KafkaSettings(bootstrap_servers=kafka)), catalogue, partitions=PARTITIONS)
        assert tape.flush(DEADLINE_S)
        assert tape.health().outbox.held == {}
    assert len(on_the_tape(kafka, topic)) == 1


def test_a_backlog_of_more_than_two_rounds_arrives_once_and_in_order(
    kafka: str, catalogue: Catalogue, topic_prefix: str, closed_port: str
) -> None:
    count = 2 * pump_module.ROUND_SLICES * pump_module.SLICE_RECORDS + 7
    with Producer(bootstrap_servers=closed_port, source="bot", catalogue=catalogue) as before:
        for number in range(count):
            before.emit(signal(number))
        before.close(timeout_s=0)
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as after:
        assert after.flush(DEADLINE_S)
        assert after.health().outbox.events == 0
    seen = [body(one, "TradeSignal")["producer_seq"] for one in on_the_tape(kafka, f"{topic_prefix}trade-signals")]
    assert seen == list(range(1, count + 1))


def test_decisions_that_arrive_one_after_the_other_are_removed_together_and_go_once(
    kafka: str, catalogue: Catalogue, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A flush does not wait for that."""
    monkeypatch.setattr(pump_module, "REMOVAL_S", 2 * DEADLINE_S)
    calls = Counter[str]()
    for method in ("oldest", "remove"):
        count_calls(monkeypatch, OutboxStore, method, calls)
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
        for number in range(10):
            tape.emit(signal(number))
            eventually("it arrived", has_delivered(tape, number + 1))
        assert calls == {"oldest": 10}, "nor is there a look for more where all that waits has arrived"
        assert tape.health().outbox.events == 10
        assert tape.flush(DEADLINE_S)
        assert tape.health().outbox.events == 0
        assert calls["remove"] == 1
        for number in range(10, 110):
            tape.emit(signal(number))
        eventually("nearly all are removed", lambda: tape.health().outbox.events < pump_module.SLICE_RECORDS)
    assert len(on_the_tape(kafka, f"{topic_prefix}trade-signals")) == 110


def test_where_only_some_of_a_round_arrive_the_others_go_again_at_once(
    kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pump_module, "REMOVAL_S", 2 * DEADLINE_S)
    strict_topic(kafka, f"{topic_prefix}trade-signals")
    with Producer(
        bootstrap_servers=kafka, source="bot", catalogue=CATALOGUE.with_prefix(topic_prefix),
        kafka_options={"compression.type": "none"},
    ) as tape:  # fmt: skip
        with monkeypatch.context() as held:
            held.setattr(Lane, "may_send", lambda *_: False)
            for number in range(10):
                tags = {"note": "x" * 3_000} if number == 4 else {}
                tape.emit(signal(number, symbol=f"COIN{number}USDT", tags=tags))
        eventually("one is parked", lambda: tape.health().outbox.parked == 1, timeout_s=DEADLINE_S)
        eventually("all others arrived", has_delivered(tape, 9), timeout_s=DEADLINE_S)


def has_delivered(tape: Producer, count: int) -> Callable[[], bool]:
    """Whether so many events have arrived, for `eventually`."""
    return lambda: tape.health().delivered == count


def test_decisions_that_cannot_be_delivered_wait_in_the_outbox_and_emit_did_not_wait(away: str) -> None:
    tape = Producer(bootstrap_servers=away, source="bot")
    before = time.monotonic()
    for number in range(500):
        tape.emit(signal(number))
    # One that touched the network would have waited for it each time: 500 times a connection's timeout.
    assert time.monotonic() - before < DEADLINE_S
    assert tape.flush(0.1) is False
    assert tape.health().connected is False
    assert tape.close(0.2) is False
    health = tape.health()
    assert (health.outbox.events, health.outbox.parked, health.dropped) == (500, 0, {})


def test_health_says_why_when_librdkafka_knows(closed_port: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source="bot")
    tape.emit(signal())
    eventually("an error of the connection", lambda: tape.health().last_error is not None)
    assert re.search("[Cc]onnect|[Dd]own", tape.health().last_error or "")
    tape.close(0.1)


def test_market_updates_that_cannot_be_delivered_are_counted_and_no_error(away: str) -> None:
    tape = Producer(bootstrap_servers=away, source="bot")
    for number in range(20):
        tape.emit(update(number))
    assert tape.flush(0.1) is False
    eventually("twenty updates in the queue", lambda: tape.health().queued == 20)
    assert tape.close(0.1) is False
    health = tape.health()
    assert (health.queued, health.delivered, health.dropped) == (0, 0, {"closed": 20})


def test_past_its_bound_the_buffer_keeps_the_newest_of_each_series(
    closed_port: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_module, "CLIENT_RECORDS", 0)
    dropped: list[Dropped] = []
    tape = Producer(bootstrap_servers=closed_port, source="bot", buffer_events=10, on_drop=dropped.append)
    quiet = tape.emit(update(symbol="ETHUSDT"))
    busy = [tape.emit(update(number)) for number in range(25)]
    eventually("sixteen drops", lambda: len(dropped) == 16)
    health = tape.health()
    assert (health.dropped, health.queued, health.emitted) == ({"overflow": 16}, 10, 26)
    assert [one.event_id for one in dropped] == [one.event_id for one in busy[:16]]
    assert quiet.event_id not in {one.event_id for one in dropped}
    assert [one.producer_seq for one in busy] == list(range(2, 27)), "a drop has its number: the gap shows the loss"
    tape.close(0.1)


def test_while_nothing_moves_there_is_seldom_a_look_at_what_waits(
    hanging: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_module, "CLIENT_RECORDS", 10)
    looks = Counter[str]()
    count_calls(monkeypatch, Market, "_settle", looks)
    count_calls(monkeypatch, Pump, "_settle_all", looks)
    tape = Producer(bootstrap_servers=hanging, source="bot")
    for number in range(30):
        tape.emit(update(number))
    tape.emit(signal(0))
    time.sleep(0.2)
    before = looks.copy()
    time.sleep(1.0)
    made = looks - before
    assert 0 < made["_settle"] < 100
    assert 0 < made["_settle_all"] < 100
    assert tape.health().queued == 30
    tape.close(0.0)


def count_calls(monkeypatch: pytest.MonkeyPatch, owner: type, method: str, into: Counter[str]) -> None:
    """Count the calls of a method under its name."""
    called = getattr(owner, method)

    def counting(self: object, *given: Any, **named: Any) -> object:
        into[method] += 1
        return called(self, *given, **named)

    monkeypatch.setattr(owner, method, counting)


def test_updates_that_wait_are_nothing_for_the_hosts_garbage_collector(closed_port: str) -> None:
    with Producer(bootstrap_servers=closed_port, source="bot") as tape:
        tape.emit(update())
        gc.collect()
        gc.disable()
        try:
            for number in range(1, 1_001):
                tape.emit(update(number, symbol=f"B{number % 10:02d}USDT"))
            new = len(gc.get_objects(generation=0))
        finally:
            gc.enable()
        assert tape.health().queued == 1_001
        assert new < 300
        tape.close(0.0)


def fill(tape: Producer, refusal: str) -> int:
    """Emit decisions until one is refused; how many were accepted."""
    accepted = 0

    def emit_more() -> None:
        nonlocal accepted
        for accepted in range(10_000):
            tape.emit(signal(accepted))

    with pytest.raises(OutboxFull, match=refusal):
        emit_more()
    return accepted


def test_a_full_outbox_refuses_a_decision_which_takes_no_number(closed_port: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source="bot", outbox_max_bytes=4_000)
    accepted = fill(tape, r"outbox\.sqlite3 holds [0-9]+ events, [0-9]+ bytes of the 4000")
    assert 3 < accepted < 20
    assert tape.health().outbox.events == accepted
    assert tape.emit(update()).producer_seq == accepted + 1, "a full outbox leaves market updates free"
    tape.close(0.1)


def test_a_decision_takes_along_the_inputs_that_have_not_arrived(
    closed_port: str, kafka: str, catalogue: Catalogue, topic_prefix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(market_module, "CLIENT_RECORDS", 0)
    with Producer(bootstrap_servers=closed_port, source="bot", catalogue=catalogue, buffer_events=2) as tape:
        inputs = [tape.emit(update(number)) for number in range(3)]
        assert tape.health().dropped == {"overflow": 1}, "one of the inputs is gone from the buffer already"
        decision = tape.emit(signal(3, input_event_ids=[one.event_id for one in inputs]))
        monkeypatch.setattr(Producer.close, "__defaults__", (0.1,))
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
        assert tape.flush(DEADLINE_S)
    updates = on_the_tape(kafka, f"{topic_prefix}indicator-updates")
    assert [body(one, "IndicatorUpdate")["event_id"] for one in updates] == [one.event_id for one in inputs]
    (found,) = on_the_tape(kafka, f"{topic_prefix}trade-signals")
    assert body(found, "TradeSignal")["event_id"] == decision.event_id


def test_a_decision_may_name_any_of_so_many_recent_updates(closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """They are forgotten one by one; a thousand at a time would be felt by whoever emits just then."""
    monkeypatch.setattr(market_module, "RECENT_EVENTS", 100)
    tape = Producer(bootstrap_servers=closed_port, source="bot", buffer_events=10)
    seen = [tape.emit(update(number)).event_id for number in range(251)]
    tape.emit(signal(1, input_event_ids=[seen[151]]))
    assert tape.health().outbox.events == 2
    tape.emit(signal(2, input_event_ids=[seen[20]]))
    assert tape.health().outbox.events == 3, "an update from before takes no part"
    tape.close(0.1)


def test_an_input_that_many_decisions_name_is_taken_along_once(closed_port: str) -> None:
    with Producer(bootstrap_servers=closed_port, source="bot") as tape:
        seen = tape.emit(update())
        for number in range(20):
            tape.emit(signal(number, input_event_ids=[seen.event_id]))
        assert tape.health().outbox.events == 21
        tape.close(0.1)


def test_inputs_that_arrived_by_themselves_are_not_sent_again(
    kafka: str, catalogue: Catalogue, topic_prefix: str
) -> None:
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
        for number in range(50):
            seen = tape.emit(update(number))
            tape.emit(signal(number, input_event_ids=[seen.event_id]))
        assert tape.flush(DEADLINE_S)
    assert len(on_the_tape(kafka, f"{topic_prefix}indicator-updates")) == 50
    assert len(on_the_tape(kafka, f"{topic_prefix}trade-signals")) == 50


@pytest.mark.parametrize("batch", ["10000", "2"])
def test_a_record_that_its_topic_refuses_is_parked_and_its_neighbours_arrive_in_order(
    kafka: str, topic_prefix: str, batch: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Those of its own batch, which is refused with it, and those of the batches behind."""
    catalogue = CATALOGUE.with_prefix(topic_prefix)
    topic = f"{topic_prefix}trade-signals"
    strict_topic(kafka, topic)
    delivered: list[Delivered] = []
    with Producer(
        bootstrap_servers=kafka, source="bot", catalogue=catalogue, on_delivery=delivered.append,
        kafka_options={"compression.type": "none", "batch.num.messages": batch},
    ) as tape:  # fmt: skip
        emitted = [tape.emit(signal(number, tags={"note": "x" * 3_000} if number == 4 else {})) for number in range(10)]
        assert tape.flush(DEADLINE_S)
        assert (tape.health().outbox.events, tape.health().outbox.parked) == (0, 1)
    good = [one.event_id for number, one in enumerate(emitted) if number != 4]
    firsts = list(dict.fromkeys(body(one, "TradeSignal")["event_id"] for one in on_the_tape(kafka, topic)))
    assert firsts == good
    assert [one.event_id for one in delivered] == good
    assert "experimental" not in caplog.text


def strict_topic(kafka: str, name: str) -> None:
    """Make a topic that takes no record of more than 2,000 bytes."""
    made = NewTopic(name, PARTITIONS, 1, config={"max.message.bytes": "2000"})
    admin = admin_client(KafkaSettings(bootstrap_servers=kafka))
    for future in admin.create_topics([made]).values():
        future.result()


def failing_once(client: Client, code: int, *, told_by: str = "produce") -> None:
    """Let a client fail once with an error of librdkafka's, as its `produce` or its `poll` raises it."""
    working = getattr(client, told_by)

    def fail(*_: Any, **__: Any) -> None:
        setattr(client, told_by, working)
        raise KafkaException(KafkaError(code))

    setattr(client, told_by, fail)


@pytest.mark.parametrize("told_by", ["produce", "poll"])
def test_a_client_that_is_beyond_use_is_replaced_and_nothing_is_lost(
    kafka: str, catalogue: Catalogue, topic_prefix: str, told_by: str, caplog: pytest.LogCaptureFixture
) -> None:
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
        clients = (tape._market.client, tape._pump.client)
        for client in clients:
            failing_once(client, KafkaError._FATAL, told_by=told_by)
        for number in range(20):
            tape.emit(update(number))
            tape.emit(signal(number))
        assert tape.flush(DEADLINE_S)
        assert (tape.health().dropped, tape.health().outbox.held) == ({}, {})
        eventually("another client for market updates", lambda: tape._market.client is not clients[0])
        eventually("another client for decisions", lambda: tape._pump.client is not clients[1])
    for topic, record in (("indicator-updates", "IndicatorUpdate"), ("trade-signals", "TradeSignal")):
        found = {body(one, record)["event_id"] for one in on_the_tape(kafka, topic_prefix + topic)}
        assert len(found) == 20
    assert "error of its own" not in caplog.text


def test_a_record_that_produce_refuses_at_once_costs_no_client(
    kafka: str, catalogue: Catalogue, topic_prefix: str
) -> None:
    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
        clients = (tape._market.client, tape._pump.client)
        for client in clients:
            failing_once(client, KafkaError._UNKNOWN_TOPIC)
        for number in range(5):
            tape.emit(update(number))
            tape.emit(signal(number))
        assert tape.flush(DEADLINE_S)
        assert tape.health().dropped == {"_UNKNOWN_TOPIC": 1}
        assert (tape._market.client, tape._pump.client) == clients
    assert len(on_the_tape(kafka, f"{topic_prefix}indicator-updates")) == 4
    assert len(on_the_tape(kafka, f"{topic_prefix}trade-signals")) == 5


def test_a_hook_that_raises_or_emits_breaks_nothing(kafka: str, catalogue: Catalogue, topic_prefix: str) -> None:
    heard: list[str] = []

    def hook(about: Delivered) -> None:
        heard.append(about.event_id)
        if len(heard) == 1:
            tape.emit(signal(100))
        raise RuntimeError("the host's own fault")

    with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue, on_delivery=hook) as tape:
        for number in range(3):
            tape.emit(signal(number))
        eventually("four calls", lambda: len(heard) == 4)
    assert len(on_the_tape(kafka, f"{topic_prefix}trade-signals")) == 4


def test_an_outbox_belongs_to_one_producer(closed_port: str) -> None:
    first = Producer(bootstrap_servers=closed_port, source="bot")
    with pytest.raises(OutboxInUse, match=rf"belongs to bot, process {os.getpid()}, since 20"):
        Producer(bootstrap_servers=closed_port, source="bot")
    Producer(bootstrap_servers=closed_port, source="other-bot").close(0.1)
    first.close(0.1)
    Producer(bootstrap_servers=closed_port, source="bot").close(0.1)


def test_asyncio_code_flushes_and_closes_without_holding_up_its_loop(
    kafka: str, catalogue: Catalogue, topic_prefix: str
) -> None:
    async def bot() -> int:
        turns = 0

        async def heart() -> None:
            nonlocal turns
            while True:
                turns += 1
                await asyncio.sleep(0)

        async with Producer(bootstrap_servers=kafka, source="bot", catalogue=catalogue) as tape:
            beating = asyncio.create_task(heart())
            tape.emit(signal())
            tape.emit(update())
            assert await tape.aflush(DEADLINE_S)
            beating.cancel()
        with pytest.raises(ProducerClosed):
            tape.emit(update())
        return turns

    assert asyncio.run(bot()) > 10
    assert len(on_the_tape(kafka, f"{topic_prefix}trade-signals")) == 1


def test_what_a_signal_led_to_carries_its_chain(closed_port: str) -> None:
    with Producer(bootstrap_servers=closed_port, source="bot", run_mode=RunMode.PAPER) as tape:
        seen = tape.emit(update())
        decided = tape.caused_by(seen).emit(signal())
        verdict = SignalDecision(
            venue="binance", symbol="BTCUSDT", event_time=FIRST_CLOSE, signal_id=str(decided.event_id), stage="risk",
            outcome=DecisionOutcome.PASSED,
        )  # fmt: skip
        judged = tape.caused_by(decided).emit(verdict)
        tape.close(0.1)
    assert decided.causation_id == seen.event_id
    assert decided.correlation_id == decided.event_id, "a chain begins with its signal"
    assert (judged.causation_id, judged.correlation_id) == (decided.event_id, decided.event_id)
    assert judged.run_mode is RunMode.PAPER
    with pytest.raises(ValueError, match="emit it first"):
        tape.caused_by(update())


def test_waiting_for_room_ends_in_queue_full(closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_module, "CLIENT_RECORDS", 0)
    monkeypatch.setattr(producer_module, "WAIT_LIMIT_S", 0.2)
    tape = Producer(
        bootstrap_servers=closed_port,
        source="bot",
        overflow="wait",
        buffer_events=3,
    )
    for number in range(3):
        tape.emit(update(number))
    before = time.monotonic()
    with pytest.raises(QueueFull, match="3 updates wait for the broker"):
        tape.emit(update(3))
    assert time.monotonic() - before >= 0.2
    assert tape.health().dropped == {}
    tape.close(0.1)


def test_close_does_not_wait_for_one_who_waits_for_room(closed_port: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(market_module, "CLIENT_RECORDS", 0)
    tape = Producer(
        bootstrap_servers=closed_port,
        source="bot",
        overflow="wait",
        buffer_events=3,
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


def test_the_context_manager_ends_in_bounded_time_and_keeps_decisions(
    away: str, caplog: pytest.LogCaptureFixture
) -> None:
    before = time.monotonic()
    with Producer(bootstrap_servers=away, source="bot") as tape:
        tape.emit(signal())
        tape.emit(update())
    # 5 s for delivery, then what it takes to let go.
    assert time.monotonic() - before < DEADLINE_S
    assert "1 decisions wait in" in caplog.text
    assert "1 market updates were not delivered" in caplog.text


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
from tradetape.producers.settings import load
from tradetape.schemas import *
bootstrap, prefix = sys.argv[1:3]
options = load().kafka_options
catalogue = CATALOGUE.with_prefix(prefix)
at = datetime(2024, 5, 1, tzinfo=UTC)
def update():
    return IndicatorUpdate(venue="binance", symbol="BTCUSDT", timeframe="1m", bar_close_time=at, values={"rsi_14": 1.0})
def signal():
    return TradeSignal(strategy_id="s", venue="binance", symbol="BTCUSDT", timeframe="1m", bar_close_time=at,
                       action=Action.ENTER, direction=Direction.LONG)
tape = Producer(bootstrap_servers=bootstrap, source="bot", catalogue=catalogue, kafka_options=options)
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
    with Producer(bootstrap_servers=bootstrap, source="child", catalogue=catalogue, kafka_options=options) as own:
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
if not tape.close(0.5):
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
