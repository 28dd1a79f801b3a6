"""Reads what the ledger judges, and asks nobody whom it is about: a plain consumer, fastavro with the schema file, SQL."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Collection, Iterator, Mapping, Sequence
from functools import cache
from io import BytesIO
from typing import Any

import fastavro
import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import OffsetSpec
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

import event_content
from ledger import Appearance, Finding, Ledger, Place, Stored, Unreadable, Verdict, judge
from tradetape.console.topics import LOCAL_PARTITIONS, admin_client
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import Catalogue
from tradetape.schemas.catalogue import EventType
from tradetape.streams.record import Record, from_message
from waiting import eventually

DEADLINE_S = 60.0
ROWS_A_FETCH = 5_000
FRAME_BYTES = 5
UNREADABLE = (EOFError, ValueError, IndexError, KeyError, OverflowError, TypeError)
"""What fastavro raises for bytes that are no record."""

Ends = Mapping[tuple[str, int], int]


class TapeEvidence:
    """The topics of one catalogue, as they lie there."""

    def __init__(
        self, kafka: KafkaSettings, catalogue: Catalogue, *, registered: Mapping[str, int] | None = None
    ) -> None:
        """`registered` holds the ids that a registry gave to records, which are read besides those of the content."""
        self._kafka = kafka
        self._catalogue = catalogue
        self._registered = registered or {}
        self._admin = admin_client(kafka)

    def ends(self, topics: Sequence[str]) -> dict[tuple[str, int], int]:
        """The offset behind the last record of each partition that holds any."""
        asked = [TopicPartition(name, number) for name in topics for number in range(LOCAL_PARTITIONS)]
        found: dict[tuple[str, int], int] = {}

        def answered() -> bool:
            try:
                futures = self._admin.list_offsets(dict.fromkeys(asked, OffsetSpec.latest()), request_timeout=5.0)
                found.update({(one.topic, one.partition): future.result().offset for one, future in futures.items()})
            except KafkaException:
                # A topic that was made a moment ago may have no leader yet.
                return False
            return True

        eventually("Kafka says where its topics end", answered)
        return {place: end for place, end in found.items() if end > 0}

    def read(self, ends: Ends) -> Iterator[Record]:
        """Every record before these ends, each partition in its order."""
        missing = dict(ends)
        if not missing:
            return
        settings = {"group.id": f"{self._catalogue.prefix}checker", "enable.auto.commit": False}
        consumer = Consumer(self._kafka.client_config(settings))
        try:
            consumer.assign([TopicPartition(*place, OFFSET_BEGINNING) for place in missing])
            moved_at = time.monotonic()
            while missing:
                assert time.monotonic() < moved_at + DEADLINE_S, f"could not read {sorted(missing)}"
                for message in consumer.consume(5_000, 0.2):
                    assert message.error() is None, message.error()
                    moved_at, record = time.monotonic(), from_message(message)
                    yield record
                    if record.offset + 1 >= missing.get((record.topic, record.partition), 1 << 62):
                        del missing[record.topic, record.partition]
        finally:
            consumer.close()

    def verdict(self, ledger: Ledger | None = None) -> Verdict:
        """What the ledger says of the tape alone."""
        return judge((Finding(one.record, self.appearances(one)) for one in self._catalogue), ledger)

    def appearances(self, event_type: EventType) -> Iterator[Appearance | Unreadable]:
        """The records of one event type."""
        for record in self.read(self.ends([self._catalogue.topic_name(event_type)])):
            place = Place(record.topic, record.partition, record.offset)
            if (fields := read_fields(event_type, record.value, self._registered.get(event_type.record))) is None:
                yield Unreadable(place, record.value)
            else:
                told = fields["producer_run_id"], fields["producer_seq"], fields["event_id"]
                yield Appearance(place, record.key, *told, event_content.of_fields(fields))


class HistoryEvidence(TapeEvidence):
    """A tape and the history that one sink made of it."""

    def __init__(
        self, kafka: KafkaSettings, catalogue: Catalogue, *, dsn: str, sink: str = "history",
        registered: Mapping[str, int] | None = None,
    ) -> None:  # fmt: skip
        super().__init__(kafka, catalogue, registered=registered)
        self._dsn = dsn
        self._sink = sink

    def verdict(
        self, ledger: Ledger | None = None, *, is_settled: bool = True, records: Collection[str] | None = None
    ) -> Verdict:
        """What the ledger says of both; `is_settled` where the sink's offsets have to be at the end of the tape.

        Of all records, unless some are named.
        """
        asked = [one for one in self._catalogue if records is None or one.record in records]
        return judge(self._findings(asked, is_settled=is_settled), ledger)

    def _findings(self, asked: Sequence[EventType], *, is_settled: bool) -> Iterator[Finding]:
        letters = self.letters()
        with psycopg.connect(self._dsn, row_factory=dict_row, options="-c timezone=UTC") as connection:
            for one in asked:
                topic = self._catalogue.topic_name(one)
                own = {place: count for place, count in letters.items() if place.topic == topic}
                tape, rows = self.appearances(one), _rows(connection, one)
                yield Finding(one.record, tape, rows, own, self._unsettled(connection, topic) if is_settled else ())

    def letters(self) -> Counter[Place]:
        """How often each record is a dead letter of the sink."""
        found: Counter[Place] = Counter()
        for record in self.read(self.ends([self._catalogue.dead_letters_topic])):
            headers = {name: (value or b"").decode() for name, value in record.headers}
            if headers["x-worker"] == self._sink:
                names = (f"__connect.errors.{name}" for name in ("topic", "partition", "offset"))
                topic, partition, offset = (headers[name] for name in names)
                found[Place(topic, int(partition), int(offset))] += 1
        return found

    def _unsettled(self, connection: psycopg.Connection[dict[str, Any]], topic: str) -> Iterator[str]:
        asked = "SELECT partition, next_offset FROM tradetape.sink_offsets WHERE sink = %s AND topic = %s"
        told = connection.execute(asked, [self._sink, topic]).fetchall()
        reached = {row["partition"]: row["next_offset"] or 0 for row in told}
        for (_, partition), end in self.ends([topic]).items():
            if reached.get(partition, 0) != end:
                yield f"{topic}[{partition}] ends at {end}, and the history at {reached.get(partition, 0)}"


def read_fields(event_type: EventType, value: bytes | None, registered: int | None = None) -> dict[str, Any] | None:
    """An event's fields with their logical types; None for what is no event."""
    ids = [event_type.schema_id] if registered is None else [event_type.schema_id, registered]
    if value is None or value[:FRAME_BYTES] not in [b"\0" + one.to_bytes(4, "big") for one in ids]:
        return None
    body = BytesIO(value[FRAME_BYTES:])
    try:
        found = fastavro.schemaless_reader(body, _parsed(event_type), None)
    except UNREADABLE:
        return None
    assert isinstance(found, dict)
    return found if body.read(1) == b"" else None


@cache
def _parsed(event_type: EventType) -> Any:
    return fastavro.parse_schema(event_type.schema)


def _rows(connection: psycopg.Connection[dict[str, Any]], event_type: EventType) -> Iterator[Stored]:
    fields = {one["name"] for one in event_type.schema["fields"]}
    with connection.cursor("evidence") as cursor:
        cursor.itersize = ROWS_A_FETCH
        cursor.execute(SQL("SELECT * FROM {}").format(Identifier("tradetape", event_type.table)))
        for row in cursor:
            place = Place(row["topic"], row["partition"], row["offset"])
            yield Stored(place, str(row["event_id"]), event_content.of_row(row, fields))
