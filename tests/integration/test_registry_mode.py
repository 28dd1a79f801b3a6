"""With a schema registry the bytes are what Confluent's own tools read and write, and a bot still starts without it.

The other side is Confluent's client: its serializers and its registry client know nothing of ours.
"""

from __future__ import annotations

import json
import logging
import subprocess
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.schema_registry import Schema, SchemaRegistryClient, topic_subject_name_strategy
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

from console_rig import clean_environment, tradetape
from history_rig import HistoryRig
from tradetape.console import topics
from tradetape.console.local.registry import Registry as Service
from tradetape.console.registration import register_all
from tradetape.producers import Producer
from tradetape.producers.codecs import codec_of
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import Settings, load
from tradetape.schemas import CATALOGUE, Candle, Codec, DecodeError, Fill, RunMode, Side, avro_schema
from tradetape.schemas.errors import IncompatibleSchema, NotRegistered, RegistryUnreachable
from tradetape.schemas.registry import Registry
from tradetape.schemas.stamping import Stamper
from tradetape.sinks.history.migrate import migrate
from tradetape.sinks.history.sink import HistorySink
from tradetape.streams import Tape
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.groups import TopicIds
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record
from waiting import eventually

CLOSED_AT = datetime(2026, 3, 1, 12, tzinfo=UTC)
DEADLINE_S = 60.0
BY_TOPIC = {"subject.name.strategy": topic_subject_name_strategy}


def candle(**differing: Any) -> Candle:
    prices = {"open": "64123.1", "high": "64130", "low": "64000.000000000000000001", "close": "64100", "volume": "3.5"}
    given = {"open_time": CLOSED_AT - timedelta(minutes=1), "close_time": CLOSED_AT, "is_final": True, **prices}
    return Candle(venue="binance", symbol="BTCUSDT", timeframe="1m", **{**given, **differing})


def fill() -> Fill:
    return Fill(
        venue="binance", symbol="BTCUSDT", event_time=CLOSED_AT, venue_order_id="o", venue_trade_id="t",
        side=Side.SELL, price="0.000000000000000001", quantity="2", amount_quote="3", tags={"desk": "7"},
    )  # fmt: skip


@pytest.fixture
def variables(registry_url: str, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    return {
        "SCHEMA_REGISTRY_URL": registry_url, "TRADETAPE_TOPIC_PREFIX": topic_prefix,
        "TRADETAPE_CACHE": str(tmp_path / "cache"), "TRADETAPE_OUTBOX_DIR": str(tmp_path / "outbox"),
    }  # fmt: skip


@pytest.fixture
def settings(variables: dict[str, str]) -> Settings:
    """Of a system of its own, whose schemas are registered."""
    loaded = load(variables)
    assert [one.refusal for one in register_all(loaded) if one.refusal] == []
    return loaded


@pytest.fixture
def theirs(registry_url: str) -> Iterator[SchemaRegistryClient]:
    with SchemaRegistryClient({"url": registry_url}) as client:
        yield client


Run = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def run(variables: dict[str, str], tmp_path: Path) -> Run:
    """The installed command in this system."""
    environment = clean_environment(tmp_path / "home", **variables)
    return lambda *words, **more: tradetape(*words, environment={**environment, **more})


def topic_of(settings: Settings, record: str) -> str:
    return settings.catalogue().topic_name(CATALOGUE.by_record(record))


def encoded(codec: Codec, event: Candle | Fill) -> bytes:
    stamper = Stamper(codec=codec, source="bot", run_mode=RunMode.PAPER)
    _, _, payload, _ = stamper.stamp(event)
    return payload


def frame_id(payload: bytes) -> int:
    assert payload[0] == 0
    return int.from_bytes(payload[1:5], "big")


def in_context(topic: str) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE)


def register_without_rules(theirs: SchemaRegistryClient, subject: str, schema: object) -> int:
    theirs.set_compatibility(subject, "NONE")
    return int(theirs.register_schema(subject, Schema(json.dumps(schema), "AVRO")))


def wider(record: str) -> dict[str, Any]:
    """A later version of a record, as a newer package might hold it."""
    schema = json.loads(json.dumps(CATALOGUE.by_record(record).schema))
    schema["fields"].append({"name": "quality", "type": ["null", "double"], "doc": "A ratio.", "default": None})
    return dict(schema)


def nested_in_itself(record: str) -> dict[str, Any]:
    schema = json.loads(json.dumps(CATALOGUE.by_record(record).schema))
    schema["fields"].append({"name": "inner", "type": ["null", record], "doc": "Itself.", "default": None})
    return dict(schema)


# -- push --------------------------------------------------------------------------------------------------------


def test_push_registers_all_under_full_transitive_and_a_second_push_changes_nothing(
    run: Run, theirs: SchemaRegistryClient, topic_prefix: str
) -> None:
    subjects = [f"{topic_prefix}{one.topic}-value" for one in CATALOGUE]
    planned = run("schemas", "push", "--dry-run")
    assert (planned.returncode, planned.stdout.count("would be registered")) == (0, len(subjects))
    assert not set(subjects) & set(theirs.get_subjects())

    first = run("schemas", "push")
    assert first.returncode == 0, first.stderr
    assert [line.split()[0] for line in first.stdout.splitlines()] == subjects
    for line, event_type in zip(first.stdout.splitlines(), CATALOGUE, strict=True):
        held = theirs.get_latest_version(line.split()[0])
        assert held.schema is not None
        assert json.loads(held.schema.schema_str or "") == event_type.schema
        assert line.split()[1:] == ["v1", "id", str(held.schema_id), "new"]
        assert theirs.get_compatibility(line.split()[0]) == "FULL_TRANSITIVE"

    versions = [theirs.get_versions(subject) for subject in subjects]
    second = run("schemas", "push")
    assert second.returncode == 0
    assert second.stdout == first.stdout.replace(" new", " there already")
    assert second.stderr == "Nothing to register.\n"
    assert first.stderr == (
        f"{len(subjects)} versions registered.\n"
        f"Compatibility set to FULL_TRANSITIVE for {len(subjects)} subjects; it was the registry's default.\n"
    )
    assert [theirs.get_versions(subject) for subject in subjects] == versions == [[1]] * len(subjects)


def test_an_incompatible_schema_is_refused_with_subject_and_reason_and_the_others_are_registered(
    run: Run, theirs: SchemaRegistryClient, topic_prefix: str
) -> None:
    subject = f"{topic_prefix}fills-value"
    fields = [{"name": "price_cents", "type": "long"}]
    other = {"type": "record", "name": "Fill", "namespace": "tradetape.events", "fields": fields}
    register_without_rules(theirs, subject, other)
    pushed = run("schemas", "push")
    assert pushed.returncode == 4
    (refused,) = [line for line in pushed.stdout.splitlines() if "refused" in line]
    assert refused.startswith(subject)
    assert "incompatible" in refused
    assert "price_cents" in refused
    assert "v1 beside id" in refused
    assert "price_cents has no default, so it must stay" in refused
    assert "it was NONE, the registry's default" in pushed.stderr
    assert pushed.stdout.count(" new") == len(tuple(CATALOGUE)) - 1
    assert theirs.get_versions(subject) == [1]


def test_the_registry_itself_refuses_what_would_make_old_events_unreadable(
    settings: Settings, registry_url: str
) -> None:
    schema = json.loads(json.dumps(CATALOGUE.by_record("Fill").schema))
    schema["fields"].append({"name": "venue_fee", "type": "string"})
    subject = f"{topic_of(settings, 'Fill')}-value"
    with Registry(registry_url, timeout_s=DEADLINE_S) as registry, pytest.raises(IncompatibleSchema) as refused:
        registry.register(subject, schema)
    assert refused.value.subject == subject
    assert "venue_fee" in refused.value.reason


def test_push_without_an_address_is_a_wrong_setting_and_without_a_registry_unreachable(tmp_path: Path) -> None:
    nowhere = clean_environment(tmp_path / "home", KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    done = tradetape("schemas", "push", environment=nowhere)
    assert (done.returncode, done.stdout) == (2, "")
    assert "SCHEMA_REGISTRY_URL is not set" in done.stderr
    assert "tradetape up --registry" in done.stderr
    away = {**nowhere, "SCHEMA_REGISTRY_URL": "http://bot:hunter2@127.0.0.1:1/apis/ccompat/v7"}
    done = tradetape("schemas", "push", environment=away)
    assert (done.returncode, done.stdout) == (3, "")
    assert "http://127.0.0.1:1/apis/ccompat/v7 cannot be reached" in done.stderr
    assert "hunter2" not in done.stderr


def test_what_is_not_registered_says_how_it_becomes_so(run: Run, variables: dict[str, str]) -> None:
    with pytest.raises(NotRegistered, match=r"candles-value; run `tradetape schemas push`$"):
        codec_of(load(variables))
    assert run("schemas", "push").returncode == 0
    codec_of(load(variables))


# -- the same bytes as Confluent's -------------------------------------------------------------------------------


@pytest.mark.parametrize("record", [one.record for one in CATALOGUE])
def test_events_are_written_under_the_registrys_id_and_read_under_that_of_the_content_too(
    settings: Settings, theirs: SchemaRegistryClient, record: str
) -> None:
    codec, topic = codec_of(settings), topic_of(settings, record)
    golden = (Path(avro_schema.__file__).parent / "released" / "golden" / f"{record}.v1.bin").read_bytes()
    assert frame_id(golden) >= 2**30
    plain = codec.decode_fields(topic, golden)
    payload = codec.encode(codec.catalogue.by_record(record), plain)
    assert frame_id(payload) == theirs.get_latest_version(f"{topic}-value").schema_id
    assert payload[5:] == golden[5:]
    assert codec.decode(topic, payload) == codec.decode(topic, golden)


def test_what_a_producer_emits_is_read_by_confluents_deserializer(
    settings: Settings, variables: dict[str, str], kafka: str, theirs: SchemaRegistryClient
) -> None:
    on_tape = load({**variables, "KAFKA_BOOTSTRAP_SERVERS": kafka})
    topics.apply(topics.admin_client(KafkaSettings.of(on_tape)), on_tape.catalogue())
    with Producer.from_env(source="bot", settings=on_tape) as tape:
        stamped = tape.emit(candle())
    topic = topic_of(settings, "Candle")
    found = AvroDeserializer(theirs, conf=BY_TOPIC)(_only_value(kafka, topic), in_context(topic))
    assert isinstance(found, dict)
    for name in ("event_id", "event_time", "emitted_at", "open", "low", "close_time", "producer", "is_final"):
        assert found[name] == getattr(stamped, name), name
    assert found["low"] == Decimal("64000.000000000000000001")
    with Tape.from_env(on_tape) as tape:
        assert list(tape.read(Candle)) == [stamped]


def test_what_confluents_serializer_writes_is_read_by_us(settings: Settings, theirs: SchemaRegistryClient) -> None:
    topic = topic_of(settings, "Fill")
    codec = codec_of(settings)
    ours = codec.decode(topic, encoded(codec, fill()))
    said = {name: getattr(ours, name) for name in ours.__struct_fields__}
    conf = {"auto.register.schemas": False, **BY_TOPIC}
    schema = json.dumps(CATALOGUE.by_record("Fill").schema)
    payload = AvroSerializer(theirs, schema, conf=conf)(said, in_context(topic))
    assert payload is not None
    assert codec.decode(topic, payload) == ours


# -- versions of others ------------------------------------------------------------------------------------------


def test_events_of_a_later_version_are_read_without_what_this_one_does_not_know(
    settings: Settings, theirs: SchemaRegistryClient
) -> None:
    codec, topic = codec_of(settings), topic_of(settings, "Candle")
    body = encoded(codec, candle())
    later_id = register_without_rules(theirs, f"{topic}-value", wider("Candle"))
    # Its new field is the last one: the second branch of the union, and a double.
    later = b"\0" + later_id.to_bytes(4, "big") + body[5:] + b"\2" + bytes(8)
    expected = codec.decode(topic, body)
    assert codec.decode(topic, later) == expected, "it came after the start"
    assert codec_of(settings).decode(topic, later) == expected, "it was there at the start"


def test_a_registered_schema_that_could_crash_a_reader_is_not_used(
    settings: Settings, theirs: SchemaRegistryClient, caplog: pytest.LogCaptureFixture
) -> None:
    topic = topic_of(settings, "Candle")
    bad_id = register_without_rules(theirs, f"{topic}-value", nested_in_itself("Candle"))
    with caplog.at_level(logging.WARNING, logger="tradetape"):
        codec = codec_of(settings)
    assert f"under id {bad_id} of {topic}-value will not be read" in caplog.text
    payload = encoded(codec, candle())
    with pytest.raises(DecodeError, match="unknown_schema_id"):
        codec.decode(topic, b"\0" + bad_id.to_bytes(4, "big") + payload[5:] + b"\0")


def test_a_record_under_an_id_that_the_registry_never_gave_is_a_dead_letter(
    settings: Settings, kafka: str, postgres: str
) -> None:
    codec, letters = codec_of(settings), MemoryDeadLetters("history")
    topic = topic_of(settings, "Candle")
    topics.apply(topics.admin_client(KafkaSettings(bootstrap_servers=kafka)), codec.catalogue)
    migrate(postgres)
    sink = HistorySink(
        dsn=postgres, catalogue=codec.catalogue, codec=codec, dead_letters=letters,
        topic_uuid=TopicIds(KafkaSettings(bootstrap_servers=kafka)),
    )  # fmt: skip
    good = encoded(codec, candle())
    foreign = encoded(codec, fill())
    unknown = b"\0" + (900_000).to_bytes(4, "big") + good[5:]
    values = [good, unknown, foreign[:5] + good[5:]]
    sink.assigned([Partition(topic, 0)])
    try:
        sink.process([Record(topic, 0, offset, b"k", value, (), 0) for offset, value in enumerate(values)])
    finally:
        sink.close()
    assert dict(letters.refused) == {"unknown_schema_id": 1, "foreign_schema_id": 1}
    assert sink.counts["stored"] == 1


# -- the registry is away ----------------------------------------------------------------------------------------


def test_a_record_of_a_later_version_waits_while_the_registry_is_away_and_is_then_stored_once(
    settings: Settings, registry: Service, theirs: SchemaRegistryClient, kafka: str, postgres: str, run: Run,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    codec, letters = codec_of(settings), MemoryDeadLetters("history")
    rig = HistoryRig(kafka=kafka, prefix=codec.catalogue.prefix, dsn=postgres)
    topic = topic_of(settings, "Candle")
    later_id = register_without_rules(theirs, f"{topic}-value", wider("Candle"))
    later = b"\0" + later_id.to_bytes(4, "big") + encoded(codec, candle())[5:] + b"\2" + bytes(8)
    sink = HistorySink(
        dsn=rig.sink_dsn, catalogue=codec.catalogue, codec=codec, dead_letters=letters, topic_uuid=TopicIds(rig.kafka)
    )
    kill(registry)
    rig.put(topic, [(b"v:A", b"no event"), (b"v:A", later)])
    ends = rig.ends()
    with rig.working(sink):
        eventually("it has tried several times", lambda: caplog.text.count("waiting: a record waits for schema") >= 3)
        assert sink.counts["stored"] == 0
        assert shown(run, kafka) == ["bad_magic", "registry_unreachable"]
        registry.up()
        eventually("the history has caught up", lambda: rig.has_come_to(ends))
    assert shown(run, kafka) == ["bad_magic", "BTCUSDT"]
    assert dict(letters.refused) == {"bad_magic": 1}
    assert len(rig.table(rig.catalogue.by_record("Candle"))) == 1


def kill(registry: Service) -> None:
    found = registry.running()
    assert found is not None
    found[0].kill()
    eventually("the registry is gone", lambda: registry.running() is None)


def shown(run: Run, kafka: str) -> list[str]:
    """Of each candle on the tape its symbol, as tail shows it, or why it cannot be."""
    done = run("tail", "candles", "--from", "beginning", KAFKA_BOOTSTRAP_SERVERS=kafka)
    assert done.returncode == 0, done.stderr
    documents = [json.loads(line) for line in done.stdout.splitlines()]
    return [one["event"]["symbol"] if "event" in one else one["error"]["reason"] for one in documents]


def test_a_bot_starts_while_the_registry_is_away_with_one_warning_and_the_same_ids(
    settings: Settings, registry: Service, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING, logger="tradetape"):
        before = frame_id(encoded(codec_of(settings), candle()))
        assert caplog.records == []
        kill(registry)
        after = frame_id(encoded(codec_of(settings), candle()))
    assert after == before < 2**30
    (warning,) = caplog.records
    assert "cannot be reached" in warning.getMessage()

    elsewhere = load({**_variables_of(settings), "TRADETAPE_CACHE": str(tmp_path / "never used")})
    with pytest.raises(RegistryUnreachable, match="never kept here"):
        codec_of(elsewhere)


def test_a_command_that_needs_a_registry_which_is_away_ends_with_3(registry: Service, run: Run) -> None:
    kill(registry)
    done = run("tail", "candles")
    assert (done.returncode, done.stdout) == (3, "")
    assert "cannot be reached" in done.stderr


def test_a_registry_that_hangs_is_waited_for_no_longer_than_a_bot_may(
    settings: Settings, registry: Service, caplog: pytest.LogCaptureFixture
) -> None:
    before = frame_id(encoded(codec_of(settings), candle()))
    found = registry.running()
    assert found is not None
    found[0].suspend()
    try:
        after = frame_id(encoded(codec_of(settings), candle()))
    finally:
        found[0].resume()
    assert after == before
    assert "timed out" in caplog.text


def _variables_of(settings: Settings) -> dict[str, str]:
    return {"SCHEMA_REGISTRY_URL": settings.schema_registry_url or "", "TRADETAPE_TOPIC_PREFIX": settings.topic_prefix}


def _only_value(kafka: str, topic: str) -> bytes:
    """The value of the one record of a topic, as a plain consumer gets it."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": topic, "enable.auto.commit": False})
    try:
        parts = consumer.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
        consumer.assign([TopicPartition(topic, number, 0) for number in parts])
        message = consumer.poll(DEADLINE_S)
    finally:
        consumer.close()
    assert message is not None
    value = message.value()
    assert isinstance(value, bytes)
    return value
