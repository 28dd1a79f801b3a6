"""The history sink beside quixstreams' PostgreSQL sink and beside Faust with `executemany`: same topic, same rows.

All of them write the same table with the same key, a transaction for so many records; the peers are child processes.
Their rows must be ours in every column, or nothing was compared.
"""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
from psycopg.sql import Identifier

from bench.history import sink_rows_per_s
from bench.options import Options
from bench.peers.environment import interpreter
from bench.peers.process import Job, seconds
from bench.progress import say
from bench.report import Report
from bench.sample import put_on_tape, updates
from bench.services import Services
from bench.statements import statement
from tradetape.console.workers.history import BATCH_RECORDS
from tradetape.schemas import Catalogue, IndicatorUpdate
from tradetape.streams.engines.kafka import Limits

COUNT, QUICK_COUNT, FULL_COUNT = 100_000, 10_000, 300_000
QUIX_LIMIT = 4.0
SINK, QUIX, FAUST = "tradetape", "quixstreams", "faust"
NAMES = {SINK: "history sink", QUIX: "quixstreams' PostgreSQL sink", FAUST: "Faust and executemany"}
GUARANTEES = (
    "tradetape: each event once, its row and its offset in one fenced transaction; a bad record becomes a dead letter.",
    "quixstreams 3.28: at least once; what was stored but not committed to Kafka comes again after a crash. Here the",
    "  table's key leaves it out; in a table that the sink makes by itself it doubles. A bad record stops it, and a column",
    "  that is null in a checkpoint's first row is lost in all of its rows.",
    "Faust and executemany: at least once, and that only by acknowledging after COMMIT; its take() loses what fails.",
)

Way = Callable[[], float]


def run(services: Services, options: Options) -> Report:
    """Measure."""
    count = QUICK_COUNT if options.quick else FULL_COUNT if options.full else COUNT
    report = Report("peers", f"{count:,} IndicatorUpdates from Kafka to PostgreSQL, {BATCH_RECORDS:,} a transaction")
    quix_python = interpreter()
    catalogue, dsn = services.topics("peers"), services.database("peers")
    say(f"peers: putting {count:,} events on the tape")
    first_close = datetime(2025, 5, 10, tzinfo=UTC)
    put_on_tape(services, catalogue, updates(count, series=240, first_close=first_close, step=timedelta(minutes=1)))
    quix = [str(quix_python), str(Path(__file__).with_name("quix_sink.py"))]
    faust = [sys.executable, "-m", "bench.peers.faust_sink"]
    ways: dict[str, Way] = {
        SINK: lambda: sink_rows_per_s(services, catalogue, dsn, count),
        QUIX: lambda: count / seconds(quix, _job(services, catalogue, dsn, QUIX, count), services.logs / "quix.log"),
        FAUST: lambda: (
            count / seconds(faust, _job(services, catalogue, dsn, FAUST, count), services.logs / "faust.log")
        ),
    }
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.execute(statement("make_peers"))
        found = _interleaved(connection, ways, options.rounds)
        _compare(report, found)
        _check(report, connection, count)
    report.notes += GUARANTEES
    return report


def _interleaved(connection: psycopg.Connection, ways: dict[str, Way], rounds: int) -> dict[str, list[float]]:
    found: dict[str, list[float]] = {name: [] for name in ways}
    for number in range(rounds):
        connection.execute(statement("empty_peers"))
        for name, way in ways.items():
            say(f"peers: {NAMES[name]}, round {number + 1} of {rounds}")
            connection.execute("CHECKPOINT")
            found[name].append(way())
    return found


def _job(services: Services, catalogue: Catalogue, dsn: str, table: str, count: int) -> Job:
    event_type = catalogue.by_class(IndicatorUpdate)
    return Job(
        bootstrap_servers=services.bootstrap_servers,
        topic=catalogue.topic_name(event_type),
        group=f"bench-{uuid.uuid4().hex[:8]}",
        schema=dict(event_type.schema),
        dsn=dsn,
        table=table,
        expected=count,
        batch_records=BATCH_RECORDS,
        commit_interval_s=Limits().commit_interval_s,
    )


def _compare(report: Report, found: dict[str, list[float]]) -> None:
    middle = {name: report.figure(NAMES[name], "rows/s", *rates) for name, rates in found.items()}
    report.at_least("history sink over quixstreams' PostgreSQL sink", middle[SINK] / middle[QUIX], QUIX_LIMIT)
    report.at_least("history sink over Faust and executemany", middle[SINK] / middle[FAUST], None)


def _check(report: Report, connection: psycopg.Connection, count: int) -> None:
    for name in (QUIX, FAUST):
        differing = statement("differing_from_sink").format(table=Identifier("bench", name))
        row = connection.execute(differing).fetchone()
        report.at_most(f"rows of {name} that differ from the sink's", row[0] if row else count, 0, must_hold=True)
    row = connection.execute(statement("stored_updates")).fetchone()
    report.at_least("rows of the sink over records on the tape", (row[0] if row else 0) / count, 1, must_hold=True)
