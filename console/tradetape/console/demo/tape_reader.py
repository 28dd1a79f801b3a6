"""Reads stretches of topics raw, with plain Kafka consumers that join no group and move no offset."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager

from confluent_kafka import OFFSET_END, Consumer, KafkaException, Message, TopicPartition

from tradetape.console.errors import DemoFailed
from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record

BATCH_RECORDS = 5_000
BATCH_TIMEOUT_S = 0.2
ANSWER_TIMEOUT_S = 15.0
STALL_TIMEOUT_S = 30.0
"""How long a read may make no progress."""

Offsets = Mapping[Partition, int]


class TapeReader:
    """Reads what lies between two offsets of each partition, and says where topics end and groups stand."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._asking = _consumer(kafka)

    def close(self) -> None:
        """Let go of the connection."""
        self._asking.close()

    def partitions(self, topics: Sequence[str]) -> list[Partition]:
        """The partitions of those topics that exist. Raises DemoFailed."""
        with _answering("which topics there are"):
            known = self._asking.list_topics(timeout=ANSWER_TIMEOUT_S).topics
        return [Partition(topic, number) for topic in topics if topic in known for number in known[topic].partitions]

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset behind the last record of each partition, all in one request. Raises DemoFailed."""
        asked = [TopicPartition(one.topic, one.partition, OFFSET_END) for one in partitions]
        with _answering("where its topics end"):
            found = self._asking.offsets_for_times(asked, timeout=ANSWER_TIMEOUT_S)
        return {Partition(one.topic, one.partition): one.offset for one in found}

    def read(self, starts: Offsets, ends: Offsets) -> Iterator[Record]:
        """Every record from `starts` up to, without, `ends`. Raises DemoFailed when nothing comes for half a minute."""
        missing = {one: end for one, end in ends.items() if end > starts.get(one, 0)}
        if not missing:
            return
        consumer = _consumer(self._kafka)
        try:
            consumer.assign([TopicPartition(one.topic, one.partition, starts.get(one, 0)) for one in missing])
            yield from _until(consumer, missing)
        finally:
            consumer.close()


class GroupOffsets:
    """Where a consumer group stands. It asks as the group without joining it."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        self._consumer = _consumer(kafka, group)

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The group's committed offset of each partition, 0 where there is none. Raises DemoFailed."""
        asked = [TopicPartition(one.topic, one.partition) for one in partitions]
        with _answering("how far its groups are"):
            found = self._consumer.committed(asked, timeout=ANSWER_TIMEOUT_S)
        return {Partition(one.topic, one.partition): max(one.offset, 0) for one in found}


def _consumer(kafka: KafkaSettings, group: str = "tradetape-demo") -> Consumer:
    fixed = {
        "group.id": group,
        "enable.auto.commit": False,
        "auto.offset.reset": "error",
        "isolation.level": "read_committed",
    }
    return Consumer({**kafka.client_config({}, fixed=fixed), "error_cb": on_error()}, logger=logger)


@contextmanager
def _answering(question: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise DemoFailed(f"Kafka does not say {question}: {error.args[0].str()}") from error


def _until(consumer: Consumer, missing: dict[Partition, int]) -> Iterator[Record]:
    moved_at = time.monotonic()
    while missing:
        batch = consumer.consume(BATCH_RECORDS, BATCH_TIMEOUT_S)
        if batch:
            moved_at = time.monotonic()
        elif time.monotonic() - moved_at > STALL_TIMEOUT_S:
            raise DemoFailed(f"{len(missing)} partitions could not be read to their end in {STALL_TIMEOUT_S:.0f} s")
        yield from _before(batch, missing)
        for one in consumer.position([TopicPartition(one.topic, one.partition) for one in missing]):
            if one.offset >= missing[Partition(one.topic, one.partition)]:
                del missing[Partition(one.topic, one.partition)]


def _before(batch: Iterable[Message], ends: Offsets) -> Iterator[Record]:
    for message in batch:
        if (error := message.error()) is not None:
            raise DemoFailed(f"{message.topic()} cannot be read: {error.str()}")
        record = _record(message)
        if record.offset < ends.get(Partition(record.topic, record.partition), 0):
            yield record


def _record(message: Message) -> Record:
    return Record(
        message.topic() or "", message.partition() or 0, message.offset() or 0,
        message.key(), message.value(), tuple(message.headers() or ()), message.timestamp()[1],  # type: ignore[arg-type]
    )  # fmt: skip
