"""Everything a test of the history needs of its own: topics, a database, sinks, and a checker that asks neither of them.

What lies on the tape is read with a plain consumer and decoded with fastavro and the schema file (evidence.py); what
lies in the database is read with SQL. So a defect of the codec or the sink cannot hide itself.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from functools import cached_property
from io import BytesIO
from typing import Any, ClassVar
from urllib.parse import urlsplit

import fastavro
import psycopg
from confluent_kafka import Producer as RawProducer
from psycopg.rows import DictRow, dict_row
from psycopg.sql import SQL, Identifier, Literal

from evidence import HistoryEvidence
from ledger import Ledger, Place, Verdict
from raw_producer import raw_producer
from tradetape.console import topics
from tradetape.producers import Producer
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import CATALOGUE, Catalogue, MarketCondition, RunMode
from tradetape.schemas.avro_schema import without_logical_types
from tradetape.schemas.catalogue import EventType
from tradetape.sinks.history import roles
from tradetape.sinks.history.migrate import migrate
from tradetape.sinks.history.sink import HistorySink
from tradetape.streams.dead_letters import DeadLetters, KafkaDeadLetters, MemoryDeadLetters
from tradetape.streams.engines.kafka import KafkaEngine, Limits
from tradetape.streams.groups import TopicIds
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record
from waiting import eventually

DEADLINE_S = 60.0
START = datetime(2025, 6, 1, tzinfo=UTC)
"""When the first of the conditions is, which a test emits that only counts events; one each second."""
SYMBOLS = tuple(f"COIN{number}USDT" for number in range(16))


class HistoryRig:
    """One test's tape and history."""

    source: ClassVar[str] = "test"
    run_mode: ClassVar[RunMode] = RunMode.LIVE
    """Of its producers."""

    def __init__(
        self, *, kafka: str, prefix: str, dsn: str, catalogue: Catalogue = CATALOGUE, replication: int | None = None
    ) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=kafka)
        self.catalogue = catalogue.with_prefix(prefix)
        self.dsn = dsn
        self._admin = topics.admin_client(self.kafka)
        self._schemas: dict[str, Any] = {}
        topics.apply(self._admin, self.catalogue, replication=replication)
        migrate(dsn)
        self._evidence = HistoryEvidence(self.kafka, self.catalogue, dsn=dsn)
        self.sink_dsn = login_of(dsn, "tradetape_sink")
        """What a sink logs in with: it may write rows and its offsets, and nothing else."""

    def open_producer(self) -> Producer:
        """A producer onto the test's topics, for the caller to close."""
        return Producer(
            bootstrap_servers=self.kafka.bootstrap_servers, source=self.source, run_mode=self.run_mode,
            catalogue=self.catalogue, overflow="wait",
        )  # fmt: skip

    @contextmanager
    def producer(self) -> Iterator[Producer]:
        """The same for a block, at whose end all that it emitted is on the tape."""
        with self.open_producer() as tape:
            yield tape
            assert tape.flush(DEADLINE_S), tape.health()
            assert not tape.health().dropped, tape.health()

    def put(
        self,
        topic: str,
        values: list[tuple[bytes | None, bytes | None]],
        *,
        headers: list[tuple[str, str | bytes | None]] | None = None,
    ) -> None:
        """Raw records, (key, value) each, onto a topic."""
        for key, value in values:
            self._raw_producer.produce(topic, value=value, key=key, headers=headers or [])
        assert self._raw_producer.flush(DEADLINE_S) == 0

    @cached_property
    def _raw_producer(self) -> RawProducer:
        return raw_producer(self.kafka.bootstrap_servers)

    @property
    def conditions_topic(self) -> str:
        """The topic of market conditions."""
        return self.catalogue.topic_name(self.catalogue.by_class(MarketCondition))

    def conditions_partitions(self) -> list[Partition]:
        """Its partitions."""
        return [Partition(self.conditions_topic, number) for number in range(topics.LOCAL_PARTITIONS)]

    def emit_conditions(self, numbers: range, *, note: str = "") -> set[str]:
        """Emit conditions of many symbols; their ids."""
        with self.producer() as tape:
            return {
                str(tape.emit(
                    MarketCondition(
                        venue="v", symbol=SYMBOLS[number % len(SYMBOLS)], scope="s", condition="c",
                        event_time=START + timedelta(seconds=number), tags={"note": note},
                    )
                ).event_id)
                for number in numbers
            }  # fmt: skip

    def sink(self, *, dsn: str | None = None, dead_letters: DeadLetters | None = None) -> HistorySink:
        """A history sink onto the test's database; dead letters stay in memory unless given a place."""
        return HistorySink(
            dsn=dsn or self.sink_dsn,
            catalogue=self.catalogue,
            dead_letters=dead_letters or MemoryDeadLetters("history"),
            topic_uuid=TopicIds(self.kafka),
        )

    def kafka_dead_letters(self, worker: str = "history") -> KafkaDeadLetters:
        """Dead letters that go to the test's topic of them."""
        return KafkaDeadLetters(worker=worker, topic=self.catalogue.dead_letters_topic, kafka=self.kafka)

    @contextmanager
    def working(self, sink: HistorySink, *, max_batch_records: int = 5_000) -> Iterator[EngineThread]:
        """The sink at work under the Kafka engine; what it raises is raised at the end."""
        engine = KafkaEngine(
            processor=sink,
            kafka=self.kafka,
            group=f"{self.catalogue.prefix}history",
            dead_letters=sink._dead_letters,
            limits=Limits(max_batch_records=max_batch_records),
        )
        with at_work(engine, close=sink.close) as thread:
            yield thread

    def store(self, sink: HistorySink | None = None) -> HistorySink:
        """Run a sink until the database has all that is on the tape now; the sink."""
        sink = sink or self.sink()
        with self.working(sink) as thread:
            self.catch_up(thread)
        return sink

    def catch_up(self, thread: EngineThread) -> None:
        """Wait until the database has all that is on the tape now, or the sink has failed."""
        ends = self.ends()
        eventually("the history catches up", lambda: self.has_come_to(ends) or thread.failure is not None)

    def topics(self) -> list[str]:
        """The topics of events."""
        return [self.catalogue.topic_name(one) for one in self.catalogue]

    def ends(self, *names: str) -> dict[tuple[str, int], int]:
        """The offset behind the last record of each partition that holds any (of all topics of events unless named)."""
        return self._evidence.ends(names or self.topics())

    def has_come_to(self, ends: Mapping[tuple[str, int], int]) -> bool:
        """Whether the database says that every record before these ends is stored or a dead letter."""
        rows = self.rows("SELECT topic, partition, next_offset FROM tradetape.sink_offsets")
        stored = {(row["topic"], row["partition"]): row["next_offset"] for row in rows}
        return all((stored.get(place) or 0) >= end for place, end in ends.items())

    def tape(self, *names: str) -> list[Record]:
        """Every record of these topics (all topics of events unless named), read with a plain consumer."""
        return list(self._evidence.read(self.ends(*names)))

    def fields(self, record: Record) -> dict[str, Any]:
        """A record's fields as fastavro reads them with the schema's own logical types."""
        assert record.value is not None
        if record.topic not in self._schemas:
            self._schemas[record.topic] = fastavro.parse_schema(self.catalogue.by_topic(record.topic).schema)
        found = fastavro.schemaless_reader(BytesIO(record.value[5:]), self._schemas[record.topic], None)
        assert isinstance(found, dict)
        return found

    def plain(self, record: Record) -> dict[str, Any]:
        """A record's fields as they lie on the wire: integers for times, bytes for decimals."""
        assert record.value is not None
        schema = fastavro.parse_schema(without_logical_types(self.catalogue.by_topic(record.topic).schema))
        found = fastavro.schemaless_reader(BytesIO(record.value[5:]), schema, None)
        assert isinstance(found, dict)
        return found

    def frame(self, event_type: EventType, plain: Mapping[str, Any]) -> bytes:
        """A record's value as a foreign producer might write it: fastavro and the schema, none of our checks."""
        out = BytesIO()
        out.write(b"\x00" + event_type.schema_id.to_bytes(4, "big"))
        schema = fastavro.parse_schema(without_logical_types(event_type.schema))
        fastavro.schemaless_writer(out, schema, plain)
        return out.getvalue()

    def rows(self, query: str, *parameters: object) -> list[DictRow]:
        """What a statement finds."""
        with psycopg.connect(self.dsn, row_factory=dict_row) as connection:
            return connection.execute(SQL(query), parameters).fetchall()

    def table(self, event_type: EventType) -> list[DictRow]:
        """Every row of a table of the history."""
        with psycopg.connect(self.dsn, row_factory=dict_row, options="-c timezone=UTC") as connection:
            return connection.execute(
                SQL("SELECT * FROM {}").format(Identifier("tradetape", event_type.table))
            ).fetchall()

    def places_in_history(self) -> dict[Place, str]:
        """The event id at each place that the history knows."""
        return {
            Place(row["topic"], row["partition"], row["offset"]): str(row["event_id"])
            for one in self.catalogue
            for row in self.table(one)
        }

    def places_of_dead_letters(self) -> Counter[Place]:
        """How often each place is in the topic of dead letters."""
        return self._evidence.letters()

    def verdict(self, ledger: Ledger | None = None, *, is_settled: bool = True) -> Verdict:
        """What is wrong with tape and history; `is_settled` where the sink has to have come to the end of the tape."""
        return self._evidence.verdict(ledger, is_settled=is_settled)

    def assert_right(self, ledger: Ledger, *, emitted: int) -> Verdict:
        """By the ledger nothing is wrong, and each event that was emitted is stored; the verdict."""
        verdict = self.verdict(ledger)
        print(verdict)
        assert verdict.is_right, verdict
        assert verdict.counts["emitted"] == verdict.counts["stored"] == emitted
        assert verdict.counts["refused"] == verdict.counts["unreadable"]
        return verdict

    def assert_every_event_once(self, *, is_settled: bool = True) -> int:
        """Tape and tables hold the same events, each once and as it was emitted, and nothing was refused; how many."""
        verdict = self.verdict(is_settled=is_settled)
        assert verdict.is_right, verdict
        assert verdict.counts["refused"] == 0, verdict
        return verdict.counts["stored"]


@contextmanager
def at_work(engine: KafkaEngine, *, close: Callable[[], None]) -> Iterator[EngineThread]:
    """An engine at work in a thread; what it raises is raised at the end, when its processor is closed."""
    thread = EngineThread(engine)
    thread.start()
    try:
        yield thread
    finally:
        thread.end()
        close()
        if thread.failure is not None:
            raise thread.failure


class EngineThread:
    """An engine in a thread; `failure` is what it ended with."""

    def __init__(self, engine: KafkaEngine) -> None:
        self.failure: BaseException | None = None
        self._engine = engine
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="history-engine", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def end(self) -> None:
        """Stop after the batch at hand."""
        self._stop.set()
        self._thread.join(DEADLINE_S)
        assert not self._thread.is_alive(), "the engine does not stop"

    def _run(self) -> None:
        try:
            self._engine.run(self._stop)
        except BaseException as error:  # noqa: BLE001  # kept for the test, which raises it
            self.failure = error


def login_of(dsn: str, role: str) -> str:
    """The database as a user sees it who has only the rights of a role; makes roles and user where they are missing."""
    user, password = f"test_{role}", "only-for-tests"
    with psycopg.connect(dsn) as connection:
        roles.apply(connection)
        if not connection.execute("SELECT 1 FROM pg_roles WHERE rolname = %s", [user]).fetchone():
            made = SQL("CREATE ROLE {user} LOGIN PASSWORD {password} IN ROLE {role}")
            connection.execute(made.format(user=Identifier(user), password=Literal(password), role=Identifier(role)))
    address = urlsplit(dsn)
    return address._replace(netloc=f"{user}:{password}@{address.hostname}:{address.port}").geturl()
