"""How long after `emit` an event can be read at 500 events/s: in Redis by way of both engines, and as a row in PostgreSQL.

The workers are processes of their own, as in production; beside them the same by hand, behind the same producer.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psycopg
import redis

from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import VENUE
from bench.services import Services
from bench.statements import statement
from bench.timing import NS_PER_MS, Percentiles
from bench.visible import Awaited, Probe, Visibility
from tradetape.producers import Producer
from tradetape.schemas import Catalogue, IndicatorUpdate, RunMode
from tradetape.schemas.times import from_datetime
from tradetape.streams.state.keys import Keys

RATE_PER_S = 500
WINDOW_S, QUICK_WINDOW_S = 6.0, 3.0
STOP_TIMEOUT_S = 10.0
ROOT = Path(__file__).resolve().parents[1]
P50_BUDGET_MS, P99_BUDGET_MS = 3.0, 15.0
ROW_P99_BUDGET_MS = 250.0


def run(services: Services, options: Options) -> Report:
    """Measure."""
    report = Report("latency", f"from emit until it can be read, at {RATE_PER_S} events/s")
    by_hand = _to_redis(report, services, options, "Redis, by hand")
    plain = _to_redis(report, services, options, "Redis, plain engine", engine="kafka")
    at_once = _to_redis(report, services, options, "Redis, plain engine, linger 0", engine="kafka", linger_ms=0)
    faust = _to_redis(report, services, options, "Redis, Faust", engine="faust")
    row = _to_row(report, services, options)
    for name, found in (("plain engine", plain), ("Faust", faust)):
        report.at_most(f"Redis, {name} over by hand, p50", found[0] / by_hand[0], None)
        report.at_most(f"Redis, {name} over by hand, p99", found[1] / by_hand[1], None)
    for name, found in (("plain engine", plain), ("plain engine, linger 0", at_once)):
        report.at_most(f"Redis, {name} over its budget, p50", found[0] / P50_BUDGET_MS, 1)
        report.at_most(f"Redis, {name} over its budget, p99", found[1] / P99_BUDGET_MS, 1)
    report.at_most("row over its budget, p99", row[1] / ROW_P99_BUDGET_MS, 1)
    return report


def _to_redis(
    report: Report, services: Services, options: Options, name: str, *, engine: str | None = None, linger_ms: int = 5
) -> tuple[float, float]:
    catalogue = services.topics("latency")
    with ExitStack() as held:
        client = held.enter_context(services.empty_redis())
        if engine is None:
            held.enter_context(_by_hand(services, catalogue))
        else:
            workers = held.enter_context(services.workers("latency", catalogue))
            workers.start(f"state-{engine}", "work", "state", "--engine", engine, "--group", catalogue.prefix)
        tape = held.enter_context(_producer(services, catalogue, linger_ms))
        return _windows(report, name, Visibility(tape, _in_redis(client)), options)


def _to_row(report: Report, services: Services, options: Options) -> tuple[float, float]:
    catalogue, dsn = services.topics("latency"), services.database("latency")
    with ExitStack() as held:
        connection = held.enter_context(psycopg.connect(dsn, autocommit=True))
        workers = held.enter_context(services.workers("latency", catalogue, dsn))
        workers.start("history", "work", "history", "--group", catalogue.prefix)
        tape = held.enter_context(_producer(services, catalogue, 5))
        return _windows(report, "row in PostgreSQL", Visibility(tape, _as_row(connection)), options)


def _windows(report: Report, name: str, visibility: Visibility, options: Options) -> tuple[float, float]:
    """The medians of p50 and p99 in milliseconds."""
    say(f"latency: {name}")
    visibility.wait_until_ready()
    # The first window warms the worker up.
    visibility.window(rate_per_s=RATE_PER_S, seconds=1.0)
    seconds = QUICK_WINDOW_S if options.quick else WINDOW_S
    found: list[Percentiles] = [
        visibility.window(rate_per_s=RATE_PER_S, seconds=seconds) for _ in range(options.rounds)
    ]
    p50 = report.figure(f"{name}, p50", "ms", *(one.p50 / NS_PER_MS for one in found))
    p99 = report.figure(f"{name}, p99", "ms", *(one.p99 / NS_PER_MS for one in found))
    return p50, p99


def _producer(services: Services, catalogue: Catalogue, linger_ms: int) -> Producer:
    return Producer(
        bootstrap_servers=services.bootstrap_servers,
        source="bench",
        run_mode=RunMode.BACKTEST,
        catalogue=catalogue,
        kafka_options={"linger.ms": str(linger_ms)},
    )


@contextmanager
def _by_hand(services: Services, catalogue: Catalogue) -> Iterator[None]:
    topic = catalogue.topic_name(catalogue.by_class(IndicatorUpdate))
    options = ["--bootstrap-servers", services.bootstrap_servers, "--topic", topic, "--redis-url", services.redis_url]
    process = subprocess.Popen([sys.executable, "-m", "bench.bare_state", *options], cwd=ROOT, start_new_session=True)
    try:
        yield
    finally:
        process.terminate()
        try:
            process.wait(STOP_TIMEOUT_S)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


def _in_redis(client: redis.Redis) -> Probe:
    keys = Keys()

    def probe(awaited: Sequence[Awaited]) -> list[bool]:
        pipeline = client.pipeline(transaction=False)
        for one in awaited:
            pipeline.hget(keys.indicators(VENUE, one.symbol, "1h"), "_t")
        held = pipeline.execute()
        return [
            time is not None and int(time) >= from_datetime(one.close_time)
            for one, time in zip(awaited, held, strict=True)
        ]

    return probe


def _as_row(connection: psycopg.Connection) -> Probe:
    query = statement("closes_since")

    def probe(awaited: Sequence[Awaited]) -> list[bool]:
        oldest = min(one.close_time for one in awaited)
        stored = {row[0] for row in connection.execute(query, [oldest])}
        return [one.close_time in stored for one in awaited]

    return probe
