"""The topic of dead letters, read, and emptied with a trace: records go back onto their topics, or are given up.

A record is acknowledged on its topic before its letter's mark is written: a crash in between may drive it twice, which
every worker bears, and never loses it. One record that several workers refused is driven once, for all of them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator
from itertools import islice
from typing import NamedTuple, Self

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tradetape.console.errors import ConsoleError
from tradetape.console.letters import DISCARDED, OPEN, REDRIVEN, Letter, Letters, mark_headers
from tradetape.producers.client import FIXED
from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.schemas import Catalogue
from tradetape.schemas.catalogue import DAY_MS
from tradetape.streams.dead_letters import without_ours
from tradetape.streams.errors import BrokersUnreachable
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record
from tradetape.streams.topic_reader import TopicReader

CHUNK_RECORDS = 500
"""How many are driven before their marks are written: as many a crash may repeat."""
DELIVERY_TIMEOUT_MS = 25_000
FLUSH_TIMEOUT_S = 30.0
MAX_AGE_MS = 30 * DAY_MS
"""A record keeps its time up to this age, and half of its topic's retention; an older one would soon be deleted."""


class Outcome(NamedTuple):
    """What redriving did: records put back, letters marked, and letters refused, each with why."""

    records: int
    letters: int
    refused: list[tuple[Letter, str]]


class _Driven(NamedTuple):
    letter: Letter
    alike: list[Letter]
    """All open letters of the record."""


class LetterBox:
    """The dead letters of one catalogue."""

    def __init__(
        self,
        kafka: KafkaSettings,
        catalogue: Catalogue,
        *,
        now_ms: Callable[[], int] = lambda: time.time_ns() // 1_000_000,
    ) -> None:
        self._kafka = kafka
        self._topic = catalogue.dead_letters_topic
        self._retention_ms = {one.name: one.retention_ms for one in catalogue.topics()}
        self._now_ms = now_ms
        self._reader = TopicReader(kafka)

    def letters(self) -> Letters:
        """All that lie there now, without their values. Raises TopicMissing, BrokersUnreachable, HistoryLost."""
        partitions = self._reader.partitions_of(self._topic)
        return Letters(self._reader.read(self._reader.begins(partitions), self._reader.ends(partitions)))

    def records(self, letters: Iterable[Letter]) -> Iterator[tuple[Letter, Record]]:
        """Each letter with what lies on the topic of dead letters, in that topic's order."""
        wanted = {(one.letter_partition, one.letter_offset): one for one in letters}
        offsets: dict[Partition, list[int]] = {}
        for partition, offset in wanted:
            offsets.setdefault(Partition(self._topic, partition), []).append(offset)
        starts = {one: min(found) for one, found in offsets.items()}
        for record in self._reader.read(starts, {one: max(found) + 1 for one, found in offsets.items()}):
            if (letter := wanted.get((record.partition, record.offset))) is not None:
                yield letter, record

    def redrive(self, chosen: Iterable[Letter], letters: Letters, *, dry_run: bool = False) -> Outcome:
        """Put the records of the chosen letters that are open back onto their topics, and mark every letter of them.

        Raises BrokersUnreachable, ConsoleError for what a topic does not take; what went before is marked.
        """
        driven, refused = self._driveable([one for one in chosen if one.state == OPEN], letters)
        if not dry_run and driven:
            waiting = self.records(one.letter for one in driven.values())
            while chunk := list(islice(waiting, CHUNK_RECORDS)):
                # In the order in which they lay on their topics.
                chunk.sort(key=lambda found: found[0].place)
                self._drive(chunk, driven)
        return Outcome(len(driven), sum(len(one.alike) for one in driven.values()), refused)

    def _driveable(
        self, chosen: list[Letter], letters: Letters
    ) -> tuple[dict[tuple[str, int, int], _Driven], list[tuple[Letter, str]]]:
        there = set(self._reader.partitions(sorted({one.topic for one in chosen})))
        wanted = {one.place for one in chosen}
        alike: dict[tuple[str, int, int], list[Letter]] = {}
        for one in letters.values():
            if one.state == OPEN and one.place in wanted:
                alike.setdefault(one.place, []).append(one)
        driven, refused = {}, []
        for one in chosen:
            if one.cut_from_bytes is not None:
                refused.append((one, f"only the beginning of its {one.cut_from_bytes} bytes was kept"))
            elif Partition(one.topic, one.partition) not in there:
                refused.append((one, "its topic or partition is not on the broker"))
            else:
                driven[one.place] = _Driven(one, alike[one.place])
        return driven, refused

    def _drive(self, chunk: list[tuple[Letter, Record]], driven: dict[tuple[str, int, int], _Driven]) -> None:
        # Step 1: back onto their topics. Step 2: wait until that is acknowledged. Step 3: mark what was.
        with _Delivery(self._kafka) as delivery:
            for letter, record in chunk:
                headers = [*without_ours(record.headers), ("x-attempt", b"%d" % letter.attempt)]
                delivery.put(
                    letter, letter.topic, letter.partition, key=record.key, value=record.value, headers=headers,
                    timestamp=self._timestamp_ms(letter),
                )  # fmt: skip
            delivery.wait()
            for letter in tuple(delivery.acknowledged):
                self._mark(delivery, driven[letter.place].alike, REDRIVEN, "")
        delivery.raise_failure()

    def _timestamp_ms(self, letter: Letter) -> int:
        """The record's own time, unless retention would soon take it for that."""
        now, retention_ms = self._now_ms(), self._retention_ms.get(letter.topic, -1)
        oldest = now - (min(MAX_AGE_MS, retention_ms // 2) if retention_ms >= 0 else MAX_AGE_MS)
        return letter.record_at_ms if letter.record_at_ms is not None and oldest <= letter.record_at_ms <= now else now

    def discard(self, chosen: Iterable[Letter], *, why: str) -> int:
        """Mark the open ones among the letters as given up; how many. Raises BrokersUnreachable, ConsoleError."""
        letters = [one for one in chosen if one.state == OPEN]
        with _Delivery(self._kafka) as delivery:
            self._mark(delivery, letters, DISCARDED, why)
        delivery.raise_failure()
        return len(letters)

    def _mark(self, delivery: _Delivery, letters: Iterable[Letter], state: str, why: str) -> None:
        for one in letters:
            delivery.put(
                one, self._topic, one.letter_partition, key=str(one.identity).encode(), value=None,
                headers=mark_headers(state, why), timestamp=self._now_ms(),
            )  # fmt: skip

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class _Delivery:
    """Records on their way; `acknowledged` are the letters whose records arrived. Leaving it waits for all."""

    def __init__(self, kafka: KafkaSettings) -> None:
        config = kafka.client_config({"delivery.timeout.ms": DELIVERY_TIMEOUT_MS, "linger.ms": 5}, fixed=FIXED)
        self._producer = Producer(config | {"error_cb": on_error()}, logger=logger)
        self._failure: KafkaError | None = None
        self.acknowledged: list[Letter] = []

    def put(self, letter: Letter, topic: str, partition: int, **record: object) -> None:
        def report(error: KafkaError | None, _: Message) -> None:
            if error is None:
                self.acknowledged.append(letter)
            else:
                self._failure = self._failure or error

        while True:
            try:
                self._producer.produce(topic, partition=partition, on_delivery=report, **record)  # type: ignore[arg-type]
                return
            except BufferError:
                self.wait()
            except KafkaException as error:
                self._failure = self._failure or error.args[0]
                return

    def wait(self) -> None:
        self._producer.flush(FLUSH_TIMEOUT_S)

    def raise_failure(self) -> None:
        """Raises BrokersUnreachable for what no broker answered to, ConsoleError for what one refused."""
        if self._failure is None:
            return
        sentence = f"{self._failure.str()}; what did not arrive is still open"
        if self._failure.code() in (KafkaError._MSG_TIMED_OUT, KafkaError._TRANSPORT, KafkaError._ALL_BROKERS_DOWN):
            raise BrokersUnreachable(f"Kafka does not acknowledge: {sentence}")
        raise ConsoleError(f"Kafka refuses a record: {sentence}")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.wait()
