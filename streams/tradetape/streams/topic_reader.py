"""Reads stretches of topics raw, with plain Kafka consumers that join no group and move no offset.

What the tape, `tail` and every proof read with: nothing decoded, nothing left out, an end that was fixed beforehand.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, TypeVar

from confluent_kafka import (
    OFFSET_BEGINNING,
    OFFSET_END,
    Consumer,
    KafkaError,
    KafkaException,
    Message,
    TopicPartition,
)

from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.streams.errors import BrokersUnreachable, HistoryLost, KafkaRefused, StreamsError, TopicMissing
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record, from_message

BATCH_RECORDS = 2_000
POLL_TIMEOUT_S = 0.2
QUESTION_TIMEOUT_S = 5.0
"""How long one question waits for its answer before it is asked again, maybe of another broker."""
CONNECT_TIMEOUT_S = 15.0
"""How long it asks for topics: the first question, which nobody answers where no broker is."""
STALL_TIMEOUT_S = 30.0
"""How long a read may make no progress, and how long it asks for offsets: a dead leader is replaced within that time."""
ASK_AGAIN_INTERVAL_S = 0.1
_NEVER = 1 << 63
"""No offset reaches it."""

Offsets = Mapping[Partition, int]
_Answer = TypeVar("_Answer")

DEFAULTS: Mapping[str, Any] = {
    "queued.max.messages.kbytes": 32_768,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
}
FIXED: Mapping[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "enable.partition.eof": True,
    "auto.offset.reset": "error",
    "isolation.level": "read_committed",
    "check.crcs": True,
    # A client has to name a group; this one is never joined.
    "group.id": "tradetape-reader",
}
PASSING = (
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError.LEADER_NOT_AVAILABLE,
    KafkaError.NOT_LEADER_FOR_PARTITION,
    KafkaError.OFFSET_NOT_AVAILABLE,
    KafkaError.REPLICA_NOT_AVAILABLE,
    KafkaError.UNKNOWN_LEADER_EPOCH,
    KafkaError.FENCED_LEADER_EPOCH,
    KafkaError.KAFKA_STORAGE_ERROR,
    KafkaError.NETWORK_EXCEPTION,
    KafkaError.REQUEST_TIMED_OUT,
    KafkaError._UNKNOWN_PARTITION,
    KafkaError._TRANSPORT,
    KafkaError._DESTROY_BROKER,
    KafkaError._TIMED_OUT,
)
"""What is said of partitions that were made a moment ago, of a broker that has died, and of those that follow it."""


class TopicReader:
    """Says where topics begin and end, and reads what lies between two offsets of each partition, or what comes."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._asking = _consumer(kafka)

    def close(self) -> None:
        """Let go of the connection."""
        self._asking.close()

    def partitions(self, topics: Sequence[str]) -> list[Partition]:
        """The partitions of those topics that exist. Raises BrokersUnreachable."""
        known = self._answered(
            "which topics there are", lambda: self._asking.list_topics(timeout=QUESTION_TIMEOUT_S), CONNECT_TIMEOUT_S
        )
        return [
            Partition(topic, number)
            for topic in topics
            if topic in known.topics
            for number in known.topics[topic].partitions
        ]

    def partitions_of(self, topic: str) -> list[Partition]:
        """The partitions of a topic that has to exist. Raises TopicMissing, BrokersUnreachable."""
        found = self.partitions([topic])
        if not found:
            raise TopicMissing(f"there is no topic {topic}; `tradetape topics apply` creates it")
        return found

    def begins(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset of each partition's first record. Raises BrokersUnreachable."""
        return self._offsets(partitions, OFFSET_BEGINNING)

    def ends(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The offset behind the last record of each partition. Raises BrokersUnreachable."""
        return self._offsets(partitions, OFFSET_END)

    def offsets_at(self, partitions: Sequence[Partition], timestamp_ms: int) -> dict[Partition, int]:
        """The offset of the first record that was emitted at or after a time; the end where there is none."""
        ends = self.ends(partitions)
        found = self._offsets(partitions, timestamp_ms)
        return {one: offset if offset >= 0 else ends[one] for one, offset in found.items()}

    def _offsets(self, partitions: Sequence[Partition], when: int) -> dict[Partition, int]:
        """One request for all: Kafka's ListOffsets takes a time in milliseconds, or one of the two special ones."""
        if not partitions:
            return {}

        def ask() -> dict[Partition, int]:
            asked = [TopicPartition(one.topic, one.partition, when) for one in partitions]
            found = self._asking.offsets_for_times(asked, timeout=QUESTION_TIMEOUT_S)
            for one in found:
                # It answers for the partitions that have a leader all the same, and leaves in the others what was asked.
                if one.error is not None:
                    # Or it would go on for minutes to answer from what it knows.
                    self._asking.list_topics(one.topic, timeout=QUESTION_TIMEOUT_S)
                    place = f"{one.topic}[{one.partition}]"
                    raise KafkaException(KafkaError(one.error.code(), f"{place}: {one.error.str()}"))
            return {Partition(one.topic, one.partition): one.offset for one in found}

        return self._answered("where its topics begin and end", ask, STALL_TIMEOUT_S)

    def _answered(self, question: str, ask: Callable[[], _Answer], patience_s: float) -> _Answer:
        """Asked again while brokers come and go, and partitions have no leader yet. Raises BrokersUnreachable."""
        deadline = time.monotonic() + patience_s
        while True:
            try:
                return ask()
            except KafkaException as error:
                if error.args[0].code() not in PASSING or time.monotonic() > deadline:
                    raise BrokersUnreachable(f"Kafka does not say {question}: {error.args[0].str()}") from error
                if error.args[0].code() == KafkaError._TIMED_OUT:
                    self._begin_anew()
            finally:
                # What the client has to say of its connections lies in its queue until somebody takes it.
                self._asking.poll(0)
            time.sleep(ASK_AGAIN_INTERVAL_S)

    def _begin_anew(self) -> None:
        """A client goes on asking the leader that it knows, which says nothing, also where another broker leads by now."""
        self._asking.poll(0)
        self._asking.close()
        self._asking = _consumer(self._kafka)

    def read(self, starts: Offsets, ends: Offsets) -> Iterator[Record]:
        """Every record from `starts` up to, without, `ends`; each partition in its order.

        Raises BrokersUnreachable when nothing comes for half a minute, HistoryLost for what retention has taken.
        """
        missing: dict[tuple[str, int], int] = {one: end for one, end in ends.items() if end > starts[one]}
        if not missing:
            return
        with _assigned(self._kafka, {Partition(*one): starts[Partition(*one)] for one in missing}) as consumer:
            moved_at = time.monotonic()
            while missing:
                batch = _drain(consumer)
                if batch:
                    moved_at = time.monotonic()
                elif time.monotonic() - moved_at > STALL_TIMEOUT_S:
                    raise BrokersUnreachable(
                        f"Kafka: {len(missing)} partitions gave nothing for {STALL_TIMEOUT_S:.0f} s before their end"
                    )
                yield from _before(batch, missing)

    def follow(self, starts: Offsets, *, stop: threading.Event | None = None) -> Iterator[Record]:
        """Every record from `starts` on, as they come, until `stop` is set. Raises HistoryLost."""
        with _assigned(self._kafka, starts) as consumer:
            while stop is None or not stop.is_set():
                for message in _drain(consumer):
                    if _is_record(message):
                        yield from_message(message)


def _consumer(kafka: KafkaSettings) -> Consumer:
    return Consumer({**kafka.client_config(DEFAULTS, fixed=FIXED), "error_cb": on_error()}, logger=logger)


@contextmanager
def _assigned(kafka: KafkaSettings, starts: Offsets) -> Iterator[Consumer]:
    consumer = _consumer(kafka)
    try:
        consumer.assign([TopicPartition(one.topic, one.partition, offset) for one, offset in starts.items()])
        yield consumer
    finally:
        consumer.close()


def _drain(consumer: Consumer) -> list[Message]:
    """Wait for a first message, then take what is there. consume(n, timeout) would wait for n messages or the timeout."""
    first = consumer.poll(POLL_TIMEOUT_S)
    return [] if first is None else [first, *consumer.consume(BATCH_RECORDS - 1, 0)]


def _before(batch: Iterable[Message], missing: dict[tuple[str, int], int]) -> Iterator[Record]:
    """The records before each partition's end; a partition that has reached it is no longer missing.

    An end may lie behind offsets that are no records, such as a transaction's marker: there Kafka tells that the
    partition is at its end, with the offset that the next record will have.
    """
    for message in batch:
        if message.error() is None or _is_record(message):
            record = from_message(message)
            place, reached = (record.topic, record.partition), record.offset + 1
            if reached <= missing.get(place, 0):
                yield record
        else:
            place, reached = (message.topic() or "", message.partition() or 0), message.offset() or 0
        if reached >= missing.get(place, _NEVER):
            del missing[place]


def _is_record(message: Message) -> bool:
    """Whether it is one, and not the news that a partition is at its end. Raises what any other news means."""
    error = message.error()
    if error is None:
        return True
    if error.code() == KafkaError._PARTITION_EOF:
        return False
    raise _meaning(message, error)


def _meaning(message: Message, error: KafkaError) -> StreamsError:
    where = f"{message.topic()}[{message.partition()}]"
    if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
        return HistoryLost(f"{where}: records were deleted by retention before they were read: {error.str()}")
    return KafkaRefused(f"{where} cannot be read: {error.str()}")
