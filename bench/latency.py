"""How long after `emit` an event can be read at 500 events/s: in Redis by way of both engines, and as a row in PostgreSQL.

The workers are processes of their own, as in production; beside them the same by hand, behind the same producer.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator, Sequence
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
from tradetape.producers.market import LINGER_MS
from tradetape.schemas import Catalogue, IndicatorUpdate, RunMode
from tradetape.schemas.times import from_datetime
from tradetape.streams.state.keys import Keys

RATE_PER_S = 500
WINDOW_S, QUICK_WINDOW_S = 6.0, 3.0
WARM_UP_S = 1.0
STOP_TIMEOUT_S = 10.0
ROOT = Path(__file__).resolve().parents[1]
P50_BUDGET_MS, P99_BUDGET_MS = 3.0, 15.0
ROW_P99_BUDGET_MS = 250.0


Way = Callable[[], Percentiles]


def run(services: Services, options: Options) -> Report:
    """Measure."""
    report = Report("latency", f"from emit until it can be read, at {RATE_PER_S} events/s")
    seconds = QUICK_WINDOW_S if options.quick else WINDOW_S
    ways: dict[str, Way] = {
        "Redis, by hand": lambda: _to_redis(services, seconds),
        "Redis, plain engine": lambda: _to_redis(services, seconds, engine="kafka"),
        "Redis, plain engine, linger 0": lambda: _to_redis(services, seconds, engine="kafka", linger_ms=0),
        "Redis, Faust": lambda: _to_redis(services, seconds, engine="faust"),
        "row": lambda: _to_row(services, seconds),
    }
    found: dict[str, list[Percentiles]] = {name: [] for name in ways}
    for number in range(options.rounds):
        for name, way in ways.items():
            say(f"latency: {name}, round {number + 1} of {options.rounds}")
            found[name].append(way())
    _compare(report, found)
    return report


def _compare(report: Report, found: dict[str, list[Percentiles]]) -> None:
    p50 = {
        name: report.figure(f"{name}, p50", "ms", *(one.p50 / NS_PER_MS for one in all_))
        for name, all_ in found.items()
    }
    p99 = {
        name: report.figure(f"{name}, p99", "ms", *(one.p99 / NS_PER_MS for one in all_))
        for name, all_ in found.items()
    }
    for name in ("Redis, plain engine", "Redis, Faust"):
        report.at_most(f"{name} over by hand, p50", p50[name] / p50["Redis, by hand"], None)
        report.at_most(f"{name} over by hand, p99", p99[name] / p99["Redis, by hand"], None)
    for name in ("Redis, plain engine", "Redis, plain engine, linger 0"):
        report.at_most(f"{name} over its budget, p50", p50[name] / P50_BUDGET_MS, 1)
        report.at_most(f"{name} over its budget, p99", p99[name] / P99_BUDGET_MS, 1)
    report.at_most("row over its budget, p99", p99["row"] / ROW_P99_BUDGET_MS, 1)
    report.notes.append(f"Budgets: Redis p50 {P50_BUDGET_MS:g} ms, p99 {P99_BUDGET_MS:g} ms; row p99 {ROW_P99_BUDGET_MS:g} ms. The producer lingers {LINGER_MS} ms unless it says otherwise.")  # fmt: skip


def _to_redis(
    services: Services, seconds: float, *, engine: str | None = None, linger_ms: int = LINGER_MS
) -> Percentiles:
    """By the engine named, by hand where none is."""
    catalogue = services.topics("latency")
    with ExitStack() as held:
        client = held.enter_context(services.empty_redis())
        if engine is None:
            held.enter_context(_by_hand(services, catalogue))
        else:
            workers = held.enter_context(services.workers("latency", catalogue))
            workers.start(f"state-{engine}", "work", "state", "--engine", engine, "--group", catalogue.prefix)
        tape = held.enter_context(_producer(services, catalogue, linger_ms))
        return _window(Visibility(tape, _in_redis(client)), seconds)


def _to_row(services: Services, seconds: float) -> Percentiles:
    catalogue, dsn = services.topics("latency"), services.database("latency")
    with ExitStack() as held:
        connection = held.enter_context(psycopg.connect(dsn, autocommit=True))
        workers = held.enter_context(services.workers("latency", catalogue, dsn))
        workers.start("history", "work", "history", "--group", catalogue.prefix)
        tape = held.enter_context(_producer(services, catalogue, LINGER_MS))
        return _window(Visibility(tape, _as_row(connection)), seconds)


def _window(visibility: Visibility, seconds: float) -> Percentiles:
    """The second window: the first warms the worker up."""
    visibility.wait_until_ready()
    visibility.window(rate_per_s=RATE_PER_S, seconds=WARM_UP_S)
    return visibility.window(rate_per_s=RATE_PER_S, seconds=seconds)


def _producer(services: Services, catalogue: Catalogue, linger_ms: int) -> Producer:
    return Producer(
        bootstrap_servers=services.bootstrap_servers,
        source="bench",
        run_mode=RunMode.BACKTEST,
        catalogue=catalogue,
        outbox_dir=services.outboxes,
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
