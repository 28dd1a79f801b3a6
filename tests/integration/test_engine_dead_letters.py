"""Dead letters on a real broker: of any size, acknowledged or retried, and not repeated by a failure that has passed (I7)."""

from __future__ import annotations

import logging

import pytest
from confluent_kafka import Consumer, Message, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from streams_rig import DEADLINE_S
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas.catalogue import MAX_BATCH_BYTES
from tradetape.streams import dead_letters
from tradetape.streams.dead_letters import KafkaDeadLetters
from tradetape.streams.errors import DeadLettersRefused, Transient
from tradetape.streams.record import Record

WHY = ValueError("spoilt")


def record(value: bytes | None, offset: int = 1) -> Record:
    return Record("candles", 0, offset, b"key", value, (("own", b"1"),), 0)


@pytest.fixture
def topic(topic_prefix: str) -> str:
    return f"{topic_prefix}dead-letters"


@pytest.fixture
def letters(kafka: str, topic: str) -> KafkaDeadLetters:
    return KafkaDeadLetters(worker="w", topic=topic, kafka=KafkaSettings(bootstrap_servers=kafka))


def make(kafka: str, topic: str) -> None:
    admin = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    wanted = NewTopic(topic, 1, 1, config={"max.message.bytes": str(MAX_BATCH_BYTES)})
    for future in admin.create_topics([wanted]).values():
        future.result()


def whole(kafka: str, topic: str) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "reads-letters", "enable.auto.commit": False})
    try:
        _, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=DEADLINE_S)
        consumer.assign([TopicPartition(topic, 0, 0)])
        found = [consumer.poll(DEADLINE_S) for _ in range(high)]
    finally:
        consumer.close()
    assert all(one is not None and one.error() is None for one in found)
    return [one for one in found if one is not None]


def headers_of(message: Message) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in message.headers() or ()}  # type: ignore[union-attr, str-unpack]


def test_a_letter_keeps_key_value_headers_and_tombstones(kafka: str, topic: str, letters: KafkaDeadLetters) -> None:
    make(kafka, topic)
    letters.send(record(b"value"), "bad_magic", WHY, stage="VALUE_CONVERTER")
    letters.send(record(None), "empty", WHY, stage="VALUE_CONVERTER")
    letters.flush()
    first, second = whole(kafka, topic)
    assert (first.key(), first.value(), headers_of(first)["own"]) == (b"key", b"value", "1")
    assert (second.key(), second.value(), headers_of(second)["x-reason"]) == (b"key", None, "empty")
    assert letters.refused == {"bad_magic": 1, "empty": 1}


def test_a_value_that_is_too_large_for_the_topic_is_cut_and_says_so_instead_of_halting_the_worker(
    kafka: str, topic: str, letters: KafkaDeadLetters
) -> None:
    """Another producer may compress 5 MB into less than the topic's limit: it is rubbish, and must go somewhere."""
    make(kafka, topic)
    huge = bytes(range(256)) * 20_000
    letters.send(record(huge), "oversized", WHY, stage="VALUE_CONVERTER")
    # Of all sizes around the limit none may be neither taken whole nor cut.
    for size in range(MAX_BATCH_BYTES - 9_000, MAX_BATCH_BYTES + 1_000, 1_000):
        letters.send(record(b"\1" * size), "bad_magic", WHY, stage="VALUE_CONVERTER")
    letters.flush()
    first, *others = whole(kafka, topic)
    assert len(others) == 10
    cut = first.value()
    assert cut
    assert huge.startswith(cut)
    assert headers_of(first)["x-value-bytes"] == str(len(huge))


def test_without_its_topic_a_letter_is_refused_for_now_and_a_later_one_is_not_blamed_for_it(
    kafka: str, topic: str, letters: KafkaDeadLetters, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letters, "ACKNOWLEDGE_TIMEOUT_S", 1.0)
    caplog.set_level(logging.ERROR)
    letters.send(record(b"\1"), "bad_magic", WHY, stage="VALUE_CONVERTER")
    with pytest.raises(DeadLettersRefused, match="topics apply") as refused:
        letters.flush()
    assert isinstance(refused.value, Transient)
    make(kafka, topic)
    monkeypatch.setattr(dead_letters, "ACKNOWLEDGE_TIMEOUT_S", DEADLINE_S)
    letters.send(record(b"\1"), "bad_magic", WHY, stage="VALUE_CONVERTER")
    letters.flush()
    assert [message.value() for message in whole(kafka, topic)] == [b"\1"]
