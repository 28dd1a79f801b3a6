"""The processor of current state on the plain engine and on Faust, beside consume, decode and pipelined EVALSHA by hand.

Twice: a few series, where only the newest event of each in a batch has to be written, and so many series that each
record of a batch is written, where nothing but the code around Redis differs.
"""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from bench import bare_state
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import put_on_tape, updates
from bench.services import Services
from bench.snapshot import Snapshot, differing, snapshot
from bench.stopwatch import Stopwatch
from tradetape.schemas import Catalogue, IndicatorUpdate
from tradetape.streams.dead_letters import KafkaDeadLetters
from tradetape.streams.engines.faust import FaustEngine
from tradetape.streams.engines.kafka import KafkaEngine
from tradetape.streams.processor import Processor
from tradetape.streams.processors.current_state import CurrentState
from tradetape.streams.state.store import StateStore
from tradetape.streams.worker import Engine

COUNT, QUICK_COUNT = 40_000, 6_000
FEW, MANY = 240, 4_000
PLAIN_LIMIT = 0.8

Way = Callable[[], float]


def run(services: Services, options: Options) -> Report:
    """Measure."""
    count = QUICK_COUNT if options.quick else COUNT
    report = Report("state", f"{count:,} IndicatorUpdates from Kafka to Redis")
    for series in (FEW, MANY):
        _measure(report, services, count, series, options.rounds)
    return report


def _measure(report: Report, services: Services, count: int, series: int, rounds: int) -> None:
    catalogue = services.topics("state")
    say(f"state: putting {count:,} events of {series:,} series on the tape")
    first_close = datetime.now(UTC) - timedelta(minutes=30)
    put_on_tape(services, catalogue, updates(count, series=series, first_close=first_close, step=timedelta(seconds=1)))
    ways: dict[str, Way] = {
        "by hand": lambda: _by_hand(services, catalogue, count),
        "plain engine": lambda: _worker(services, catalogue, count, KafkaEngine),
        "Faust": lambda: _worker(services, catalogue, count, FaustEngine),
    }
    found: dict[str, list[float]] = {name: [] for name in ways}
    left: dict[str, Snapshot] = {}
    for number in range(rounds):
        say(f"state: {series:,} series, round {number + 1} of {rounds}")
        for name, way in ways.items():
            with services.empty_redis() as client:
                found[name].append(way())
                left[name] = snapshot(client)
    _compare(report, series, found, left)


def _compare(report: Report, series: int, found: dict[str, list[float]], left: dict[str, Snapshot]) -> None:
    what = f"{series:,} series"
    middle = {name: report.figure(f"{what}, {name}", "events/s", *rates) for name, rates in found.items()}
    by_hand = middle["by hand"]
    report.at_least(f"{what}, plain engine over by hand", middle["plain engine"] / by_hand, PLAIN_LIMIT)
    report.at_least(f"{what}, Faust over by hand", middle["Faust"] / by_hand, None)
    report.at_least(f"{what}, hashes over series", len(left["by hand"]) / series, 1, must_hold=True)
    for name in ("plain engine", "Faust"):
        report.at_most(f"{what}, hashes of {name} that differ from by hand", differing(left[name], left["by hand"]), 0, must_hold=True)  # fmt: skip


def _by_hand(services: Services, catalogue: Catalogue, count: int) -> float:
    event_type = catalogue.by_class(IndicatorUpdate)
    return bare_state.records_per_s(
        services.bootstrap_servers, catalogue.topic_name(event_type), event_type.schema, services.redis_url, expected=count
    )  # fmt: skip


def _worker(services: Services, catalogue: Catalogue, count: int, kind: type[KafkaEngine] | type[FaustEngine]) -> float:
    dead_letters = KafkaDeadLetters(worker="state", topic=catalogue.dead_letters_topic, kafka=services.kafka)
    store = StateStore.from_url(services.redis_url, prefix="tradetape")
    processor = CurrentState(catalogue=catalogue, store=store, dead_letters=dead_letters)

    def engine(watched: Processor) -> Engine:
        group = f"bench-{uuid.uuid4().hex[:8]}"
        return kind(processor=watched, kafka=services.kafka, group=group, dead_letters=dead_letters)

    try:
        return Stopwatch(processor, expected=count).records_per_s(engine)
    finally:
        store.close()
