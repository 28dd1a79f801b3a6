"""The plain engine: a Kafka consumer, batches, and the order process → acknowledge → commit.

It runs sinks and every processor that Faust is too slow for. Offsets are committed only behind records whose effects
and dead letters are acknowledged; a dependency that is away pauses all partitions while polling keeps the membership.
Where the last owner of a partition died over its work, a child process looks at the records first (quarantine.py).
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import msgspec
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, Message, TopicPartition

from tradetape.producers.connection import KafkaSettings, on_error
from tradetape.producers.connection import logger as kafka_logger
from tradetape.schemas.stamping import wall_clock_us
from tradetape.streams.backoff import Backoff
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.engines.open_marks import OpenMarks
from tradetape.streams.errors import BrokersUnreachable, HistoryLost, StreamsError, Terminal, Transient
from tradetape.streams.processor import Copartitioned, OffsetKeeper, Partition, Processor, tick
from tradetape.streams.progress import Progress
from tradetape.streams.quarantine import Quarantine
from tradetape.streams.record import Record, from_message

logger = logging.getLogger("tradetape.streams")

DEFAULTS: dict[str, Any] = {
    # Well below the default of 45 s: after a kill -9 the next worker has the partitions in seconds.
    "session.timeout.ms": 6_000,
    "heartbeat.interval.ms": 2_000,
    "max.poll.interval.ms": 300_000,
    "queued.max.messages.kbytes": 16_384,
    # Its default of 1 s leaves the fetcher idle in catch-up (1.1 to 1.6 times slower).
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    # A topic that is made after the start is found after so long, and not after its default of 5 minutes.
    "topic.metadata.refresh.interval.ms": 5_000,
}
SPREAD, COPARTITIONED = "roundrobin", "range"
"""Who is given which partitions: each topic's are dealt out among all members, or those of one number on all topics go to
one. Every member gives all of its partitions back at each rebalance, and the engine counts on that.

cooperative-sticky would leave them where they are, but it weighs the number of partitions alone: of two members one may
keep all those of the one topic that is busy, and the other the quiet ones.
"""
FIXED: dict[str, Any] = {
    "enable.auto.commit": False,
    "enable.auto.offset.store": False,
    "isolation.level": "read_committed",
    "check.crcs": True,
}


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the engine, each in the unit of its name (I13)."""

    max_batch_records: int = 2_000
    poll_timeout_s: float = 0.1
    commit_interval_s: float = 1.0
    tick_interval_s: float = 1.0
    claim_timeout_s: float = 240.0
    """How long an OffsetKeeper may fail to take its partitions; below max.poll.interval."""
    unreachable_after_s: float = 120.0
    probe_interval_s: float = 5.0


class KafkaEngine:
    """Feeds one processor from its topics until it is told to stop."""

    def __init__(
        self,
        *,
        processor: Processor,
        kafka: KafkaSettings,
        group: str,
        dead_letters: DeadLetters,
        progress: Progress | None = None,
        limits: Limits | None = None,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> None:
        self._processor = processor
        self._dead_letters = dead_letters
        self._progress = progress or Progress()
        self._limits = limits or Limits()
        self._now_us = now_us
        self._stop = threading.Event()
        self._assigned: set[Partition] = set()
        self._gone: set[Partition] = set()
        self._paused = False
        self._done: dict[Partition, int] = {}
        self._starts: dict[Partition, int] = {}
        """The offsets from which partitions are read."""
        self._held: list[Record] = []
        self._failure: StreamsError | None = None
        self._down_since: float | None = None
        self._committed_at = self._probed_at = time.monotonic()
        self._ticked_at = -math.inf
        reset = "error" if isinstance(processor, OffsetKeeper) else "earliest"
        strategy = COPARTITIONED if isinstance(processor, Copartitioned) else SPREAD
        fixed = {**FIXED, "auto.offset.reset": reset, "partition.assignment.strategy": strategy}
        config = kafka.client_config(DEFAULTS, fixed=fixed)
        config |= {"group.id": group, "client.id": processor.name, "error_cb": on_error(self._on_error)}
        self._consumer = Consumer(config, logger=kafka_logger)
        self._marks = OpenMarks(self._consumer)
        self._quarantine = Quarantine(processor)

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set, then commit and leave the group.

        Raises BrokersUnreachable, HistoryLost, and what the processor raises but Transient and BadRecord.
        """
        self._stop = stop
        self._consumer.subscribe(
            list(self._processor.topics), on_assign=self._on_assign, on_revoke=self._on_revoke, on_lost=self._on_lost
        )
        try:
            while not stop.is_set():
                self._turn()
            self._close(set(self._assigned))
        finally:
            self._consumer.close()

    def _turn(self) -> None:
        # First: a processor's tick may be what makes the next start a different one, if the batch kills this process.
        self._housekeeping()
        batch = self._next_batch()
        if batch:
            self._deliver(batch)

    def _next_batch(self) -> list[Record]:
        """Wait for a first record, then take what is there. consume(n, timeout) would wait for n records or the timeout."""
        first = self._consumer.poll(0 if self._held else self._limits.poll_timeout_s)
        self._after_poll()
        if first is not None:
            # Into _held at once: a rebalance may take its partition away during the next call.
            self._held += self._records([first])
            messages = self._consumer.consume(self._limits.max_batch_records - 1, 0)
            self._after_poll()
            self._held += self._records(messages)
        batch, self._held = self._held, []
        return batch

    def _records(self, messages: Sequence[Message]) -> list[Record]:
        records = []
        for message in messages:
            if (error := message.error()) is not None:
                self._judge(error)
            else:
                records.append(from_message(message))
        return records

    def _deliver(self, batch: list[Record]) -> None:
        """The order that carries durability."""
        # Step 0: leave a mark for whoever comes after us, and beware of what killed whoever was before us.
        self._marks.open(batch)
        killers, buried = self._quarantine.killers(self._marks.suspects(batch)), list[Record]()
        backoff = Backoff()
        while batch and not self._stop.is_set():
            try:
                # Step 1: process. Step 2: wait until every dead letter is acknowledged.
                self._quarantine.attempt(batch, killers, buried, self._dead_letters)
            except Transient as error:
                self._gone.clear()
                self._wait(backoff, error)
                # A partition that came back meanwhile is read anew, from where its offset is now.
                batch = [record for record in batch if Partition(record.topic, record.partition) not in self._gone]
                continue
            # Step 3: only now may the offsets move.
            for record in batch:
                self._done[Partition(record.topic, record.partition)] = record.offset + 1
            self._progress.moved(batch)
            break
        self._progress.goes_on()
        self._resume()

    def _wait(self, backoff: Backoff, error: Transient) -> None:
        """Keep polling, which keeps the membership, with nothing to read until it is time to try again."""
        logger.warning("waiting: %s", error, extra={"action": "wait"})
        self._progress.waits(str(error))
        self._pause()
        until = time.monotonic() + backoff.next_s()
        while time.monotonic() < until and not self._stop.is_set():
            message = self._consumer.poll(self._limits.poll_timeout_s)
            self._after_poll()
            if message is not None:
                self._held += self._records([message])
            self._housekeeping()

    def _pause(self) -> None:
        if not self._paused:
            self._paused = True
            self._consumer.pause(_listed(self._assigned))

    def _resume(self) -> None:
        if self._paused:
            self._paused = False
            self._consumer.resume(_listed(self._assigned))

    def _housekeeping(self) -> None:
        now = time.monotonic()
        self._progress.polled()
        if now - self._ticked_at >= self._limits.tick_interval_s:
            self._ticked_at = now
            self._progress.behind(self._lag())
            tick(self._processor, self._now_us())
        if self._done and now - self._committed_at >= self._limits.commit_interval_s:
            self._commit()
        if self._down_since is not None and now - self._probed_at >= self._limits.probe_interval_s:
            self._probe(now)

    def _probe(self, now: float) -> None:
        """librdkafka reports that all brokers are gone, but not that one is back while nothing is read: ask."""
        self._probed_at = now
        try:
            self._consumer.list_topics(self._processor.topics[0], timeout=1.0)
            self._down_since = None
        except KafkaException as error:
            if self._down_since is not None and now - self._down_since > self._limits.unreachable_after_s:
                waited = now - self._down_since
                raise BrokersUnreachable(f"no broker has answered for {waited:.0f} s: {error.args[0].str()}") from error

    def _lag(self) -> dict[Partition, int]:
        lag = {}
        for one in self._consumer.position(_listed(self._assigned)) if self._assigned else ():
            low, high = self._consumer.get_watermark_offsets(one, cached=True)
            place = Partition(one.topic, one.partition)
            # There is no position before the first record: a worker that came back and finds nothing new is not behind.
            read = one.offset if one.offset >= 0 else self._starts.get(place, low)
            lag[place] = max(0, high - read) if high >= 0 else 0
        return lag

    def _commit(self) -> None:
        self._committed_at = time.monotonic()
        offsets, self._done = self._marks.offsets(self._done), {}
        try:
            self._consumer.commit(offsets=offsets, asynchronous=True)
        except KafkaException as error:
            _not_committed(error)

    def _close(self, partitions: set[Partition]) -> None:
        """Commit what is done in these partitions, and that their owner came to an end in order."""
        self._marks.offsets({one: self._done.pop(one) for one in partitions & self._done.keys()})
        if offsets := self._marks.closing(partitions):
            try:
                self._consumer.commit(offsets=offsets, asynchronous=False)
            except KafkaException as error:
                _not_committed(error)
        self._marks.forget(partitions)

    def _on_assign(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        taken = [Partition(one.topic, one.partition) for one in partitions]
        if isinstance(self._processor, OffsetKeeper) and taken:
            starts = self._claim(self._processor, taken)
            for one, place in zip(partitions, taken, strict=True):
                start = starts.get(place)
                one.offset = OFFSET_BEGINNING if start is None else start
        consumer.assign(partitions)
        self._assigned.update(taken)
        if self._paused:
            consumer.pause(partitions)
        self._starts |= self._marks.taken(partitions)
        self._progress.assigned(sorted(self._assigned))

    def _claim(self, keeper: OffsetKeeper, partitions: list[Partition]) -> dict[Partition, int | None]:
        """Ask the keeper where to start, as often as it takes: nothing may be read from anywhere else."""
        backoff, deadline = Backoff(), time.monotonic() + self._limits.claim_timeout_s
        while True:
            try:
                starts = dict(keeper.assigned(partitions))
                self._progress.goes_on()
                return starts
            except Transient as error:
                if self._stop.is_set() or time.monotonic() > deadline:
                    raise
                logger.warning("waiting: %s", error, extra={"action": "claim"})
                self._progress.waits(str(error))
                self._progress.polled()
                self._stop.wait(backoff.next_s())

    def _on_revoke(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        gone = {Partition(one.topic, one.partition) for one in partitions}
        self._close(gone)
        self._forget(gone)
        self._unassign(partitions)

    def _on_lost(self, consumer: Consumer, partitions: list[TopicPartition]) -> None:
        """Somebody else has them already: committing now would move the offsets under the new owner."""
        self._forget({Partition(one.topic, one.partition) for one in partitions})
        self._unassign(partitions)

    def _unassign(self, partitions: list[TopicPartition]) -> None:
        if self._paused:
            # librdkafka remembers it beyond an assignment: one that came back later would never be read again.
            self._consumer.resume(partitions)
        self._consumer.unassign()

    def _forget(self, gone: set[Partition]) -> None:
        self._assigned -= gone
        self._gone |= gone
        self._held = [one for one in self._held if Partition(one.topic, one.partition) not in gone]
        self._marks.forget(gone)
        for one in gone:
            self._done.pop(one, None)
            self._starts.pop(one, None)
        if isinstance(self._processor, OffsetKeeper):
            self._processor.released(gone)
        self._progress.assigned(sorted(self._assigned))

    def _on_error(self, error: KafkaError) -> None:
        if error.fatal():
            self._failure = Terminal(f"Kafka: {error.str()}")
        elif error.code() == KafkaError._ALL_BROKERS_DOWN and self._down_since is None:
            self._down_since = time.monotonic()

    def _after_poll(self) -> None:
        if self._failure is not None:
            raise self._failure

    def _judge(self, error: KafkaError) -> None:
        if error.code() == KafkaError._PARTITION_EOF:
            return
        if error.code() in (KafkaError._AUTO_OFFSET_RESET, KafkaError.OFFSET_OUT_OF_RANGE):
            raise HistoryLost(
                f"{error.str()}: records were deleted before {self._processor.name} read them, or the topic was made anew"
            )
        if error.fatal() or not (error.retriable() or error.code() in _PASSING):
            raise Terminal(f"Kafka: {error.str()}")
        logger.warning("Kafka: %s", error.str(), extra={"action": "poll"})


def _not_committed(error: KafkaException) -> None:
    """The records are processed; without the commit the next owner reads them again, which is allowed."""
    logger.warning("offsets were not committed: %s", error.args[0].str(), extra={"action": "commit"})


_PASSING = (
    KafkaError._TRANSPORT,
    KafkaError._ALL_BROKERS_DOWN,
    KafkaError._TIMED_OUT,
    KafkaError._MAX_POLL_EXCEEDED,
    KafkaError.UNKNOWN_TOPIC_OR_PART,
    KafkaError._UNKNOWN_TOPIC,
)
"""Errors that pass by themselves, or with a command that somebody will give."""


def _listed(partitions: set[Partition]) -> list[TopicPartition]:
    return [TopicPartition(one.topic, one.partition) for one in partitions]
