"""The history sink on IndicatorUpdates that lie on Kafka already, beside the same by hand and beside its parts alone."""

from __future__ import annotations

import time
import uuid
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import psycopg
from psycopg.sql import SQL

from bench import bare_history
from bench.history_parts import Parts
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import put_on_tape, updates
from bench.services import Services
from bench.statements import statement
from bench.stopwatch import KeeperStopwatch
from tradetape.console.workers.history import BATCH_RECORDS
from tradetape.schemas import Catalogue, IndicatorUpdate
from tradetape.sinks.history.copy_rows import HEADER, TRAILER
from tradetape.sinks.history.sink import HistorySink
from tradetape.streams.dead_letters import KafkaDeadLetters
from tradetape.streams.engines.kafka import KafkaEngine, Limits
from tradetape.streams.groups import TopicIds
from tradetape.streams.processor import Processor

COUNT, QUICK_COUNT, FULL_COUNT = 100_000, 10_000, 300_000
BARE_LIMIT = 0.8
RAW_GOAL = 0.6
OUT = SQL("COPY (TABLE tradetape.indicator_updates) TO STDOUT (FORMAT BINARY)")
IN = SQL("COPY bench.raw FROM STDIN (FORMAT BINARY)")


def run(services: Services, options: Options) -> Report:
    """Measure."""
    count = QUICK_COUNT if options.quick else FULL_COUNT if options.full else COUNT
    report = Report("history", f"{count:,} IndicatorUpdates from Kafka to PostgreSQL, {BATCH_RECORDS:,} a transaction")
    catalogue, dsn = services.topics("history"), services.database("history")
    say(f"history: putting {count:,} events on the tape")
    first_close = datetime(2025, 5, 10, tzinfo=UTC)
    put_on_tape(services, catalogue, updates(count, series=240, first_close=first_close, step=timedelta(minutes=1)))
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement("make_copies"))
        ours, bare, raw, decoded, encoded = _interleaved(services, catalogue, dsn, connection, count, options.rounds)
        _check(report, connection, count)
    sink = report.figure("history sink", "rows/s", *ours)
    by_hand = report.figure("consume, decode, write_row", "rows/s", *bare)
    report.figure("decoding alone", "rows/s", *decoded)
    report.figure("encoding rows alone", "rows/s", *encoded)
    ready = report.figure("COPY of ready bytes", "rows/s", *raw)
    report.at_least("sink over the bare loop", sink / by_hand, BARE_LIMIT)
    report.at_least("sink over COPY of ready bytes", sink / ready, None)
    report.notes.append(
        f"A columnar encoder owes {RAW_GOAL} of COPY of ready bytes; the row encoder owes nothing there."
    )
    return report


def _interleaved(
    services: Services, catalogue: Catalogue, dsn: str, connection: psycopg.Connection, count: int, rounds: int
) -> tuple[list[float], ...]:
    event_type = catalogue.by_class(IndicatorUpdate)
    topic = catalogue.topic_name(event_type)
    ours, bare, raw, decoded, encoded = [], [], [], [], []
    parts = Parts(services, catalogue, connection, count)
    for number in range(rounds):
        say(f"history: round {number + 1} of {rounds}")
        connection.execute(statement("empty_copies"))
        connection.execute("CHECKPOINT")
        ours.append(sink_rows_per_s(services, catalogue, dsn, count))
        connection.execute("CHECKPOINT")
        bare.append(
            bare_history.rows_per_s(
                services.bootstrap_servers, topic, event_type.schema, dsn,
                batch_rows=BATCH_RECORDS, expected=count,
            )
        )  # fmt: skip
        ready = _ready(connection)
        connection.execute("CHECKPOINT")
        raw.append(_raw(connection, ready, count))
        decoding, encoding = parts.rates()
        decoded.append(decoding)
        encoded.append(encoding)
    return ours, bare, raw, decoded, encoded


def sink_rows_per_s(
    services: Services, catalogue: Catalogue, dsn: str, count: int, *, worker: str = "history"
) -> float:
    """The sink under its engine on all that is on the tape; `worker` is what its dead letters are signed with."""
    dead_letters = KafkaDeadLetters(worker=worker, topic=catalogue.dead_letters_topic, kafka=services.kafka)
    sink = HistorySink(dsn=dsn, catalogue=catalogue, dead_letters=dead_letters, topic_uuid=TopicIds(services.kafka))

    def engine(processor: Processor) -> KafkaEngine:
        return KafkaEngine(
            processor=processor,
            kafka=services.kafka,
            group=f"bench-{uuid.uuid4().hex[:8]}",
            dead_letters=dead_letters,
            limits=Limits(max_batch_records=BATCH_RECORDS),
        )

    try:
        return KeeperStopwatch(sink, sink, expected=count).records_per_s(engine)
    finally:
        sink.close()


def _ready(connection: psycopg.Connection) -> list[bytes]:
    """What the sink stored, as COPY streams of one transaction each."""
    with connection.cursor() as cursor, cursor.copy(OUT) as copy:
        rows = [bytes(data) for data in copy]
    rows[0] = rows[0].removeprefix(HEADER)
    rows = [row for row in rows if row not in (b"", TRAILER)]
    starts = range(0, len(rows), BATCH_RECORDS)
    return [HEADER + b"".join(rows[start : start + BATCH_RECORDS]) + TRAILER for start in starts]


def _raw(connection: psycopg.Connection, ready: Sequence[bytes], count: int) -> float:
    began = time.perf_counter()
    for stream in ready:
        with connection.transaction(), connection.cursor() as cursor, cursor.copy(IN) as copy:
            copy.write(stream)
    return count / (time.perf_counter() - began)


def _check(report: Report, connection: psycopg.Connection, count: int) -> None:
    """All three tables hold the same, or nothing was compared."""
    for name in ("tradetape.indicator_updates", "bench.bare", "bench.raw"):
        schema, _, table = name.partition(".")
        stored = _count(connection, schema, table)
        report.at_least(f"rows in {name} over records on the tape", stored / count, 1, must_hold=True)
    row = connection.execute(statement("differing_rows")).fetchone()
    report.at_most("rows that sink and bare loop wrote differently", row[0] if row else count, 0, must_hold=True)


def _count(connection: psycopg.Connection, schema: str, table: str) -> int:
    query = SQL("SELECT count(*) FROM {}").format(psycopg.sql.Identifier(schema, table))
    row = connection.execute(query).fetchone()
    return int(row[0]) if row else 0
