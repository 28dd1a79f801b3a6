"""History and current state kept by one worker and by two of one group, and what the machine did meanwhile.

The workers stand ready, their partitions given out, before the first record comes. The records were encoded before and
come all at once, so hardly anything of the time is the producer's. Two workers are owed half as much again as one where
the machine has the cores for it: where one worker left as many idle as half of what it and the servers used.
"""

from __future__ import annotations

import os
import statistics
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import psycopg
from confluent_kafka import OFFSET_BEGINNING, Consumer, Producer, TopicPartition

from bench.cores import Cores, CoresUsed
from bench.errors import BenchFailed
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import put_on_tape, updates
from bench.services import PARTITIONS, Services
from tradetape.console.demo.workers import Worker
from tradetape.console.local.ports import LOOPBACK, any_free
from tradetape.console.ready import ask
from tradetape.schemas import Catalogue, IndicatorUpdate

SERIES, QUICK_SERIES = 4_000, 400
OWED = 1.5
DEADLINE_S = 180.0
ASK_INTERVAL_S = 0.02
PROCESSED = b"tradetape_events_processed_total{"


class Sent(NamedTuple):
    """A record as it lay on the tape."""

    partition: int
    key: bytes
    value: bytes
    timestamp_ms: int


class Work(NamedTuple):
    """A worker that is measured: its words behind `tradetape work`, and how many records it is given."""

    name: str
    words: tuple[str, ...]
    records: int
    quick_records: int


WORKS = (
    Work("history", ("history",), 120_000, 8_000),
    Work("state, plain engine", ("state", "--engine", "kafka"), 60_000, 4_000),
    Work("state, Faust", ("state", "--engine", "faust"), 24_000, 2_000),
)


class Run(NamedTuple):
    """What one run came to. `busiest` is the share of the worker that did most."""

    records_per_s: float
    cores: CoresUsed
    busiest: float


def run(services: Services, options: Options) -> Report:
    """Measure."""
    report = Report("scale", "one worker and two of one group, on records that all come at once")
    series = QUICK_SERIES if options.quick else SERIES
    records = _records(services, max(one.quick_records if options.quick else one.records for one in WORKS), series)
    for work in WORKS:
        taken = records[: work.quick_records if options.quick else work.records]
        runs: dict[int, list[Run]] = {1: [], 2: []}
        for number in range(options.rounds):
            for workers in runs:
                say(f"scale: {work.name}, {workers} at work, round {number + 1} of {options.rounds}")
                runs[workers].append(_run(services, work, taken, workers, report))
        _report(report, work, runs)
    return report


def _report(report: Report, work: Work, runs: dict[int, list[Run]]) -> None:
    rates, cores = {}, {}
    for workers, found in runs.items():
        what = f"{work.name}, {'one' if workers == 1 else 'two'}"
        rates[workers] = report.figure(what, "records/s", *(one.records_per_s for one in found))
        cores[workers] = _middle([one.cores for one in found])
        report.figure(f"{what}: workers", "cores", *(one.cores.workers for one in found))
        report.figure(f"{what}: servers", "cores", *(one.cores.servers for one in found))
        report.figure(f"{what}: others, we too", "cores", *(one.cores.others for one in found))
    report.figure(f"{work.name}, two: share of the busier", "", *(one.busiest for one in runs[2]))
    ours = cores[1].workers + cores[1].servers
    idle = max(0.0, (os.cpu_count() or 1) - ours - cores[1].others)
    has_room = idle >= (OWED - 1) * ours
    report.at_least(f"{work.name}, two workers over one", rates[2] / rates[1], OWED if has_room else None)
    if not has_room:
        report.notes.append(
            f"{work.name}: {OWED} × takes {(OWED - 1) * ours:.1f} cores more, and one worker left {idle:.1f} of {os.cpu_count()} idle."
        )


def _middle(cores: Sequence[CoresUsed]) -> CoresUsed:
    return CoresUsed(*(statistics.median(values) for values in zip(*cores, strict=True)))


def _records(services: Services, count: int, series: int) -> list[Sent]:
    """So many updates, as a producer of ours puts them on the tape."""
    catalogue = services.topics("scale")
    say(f"scale: encoding {count:,} events of {series:,} series")
    first_close = datetime.now(UTC) - timedelta(minutes=30)
    put_on_tape(services, catalogue, updates(count, series=series, first_close=first_close, step=timedelta(seconds=1)))
    topic = catalogue.topic_name(catalogue.by_class(IndicatorUpdate))
    consumer = Consumer({"bootstrap.servers": services.bootstrap_servers, "group.id": "bench-scale"})
    found: list[Sent] = []
    try:
        consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in range(PARTITIONS)])
        _await(f"{count:,} records are read", lambda: _read(consumer, found) >= count)
    finally:
        consumer.close()
    # In the order of emission among the partitions too: it was read partition by partition.
    return sorted(found, key=lambda one: one.timestamp_ms)


def _read(consumer: Consumer, found: list[Sent]) -> int:
    for message in consumer.consume(10_000, 0.1):
        partition, key, value = message.partition(), message.key(), message.value()
        assert partition is not None
        assert isinstance(key, bytes)
        assert isinstance(value, bytes)
        found.append(Sent(partition, key, value, message.timestamp()[1]))
    return len(found)


def _run(services: Services, work: Work, records: Sequence[Sent], count: int, report: Report) -> Run:
    catalogue, dsn = services.topics("scale"), services.database("scale")
    services.empty_redis().close()
    ports = [any_free() for _ in range(count)]
    with ExitStack() as stack:
        workers = [
            stack.enter_context(services.workers("scale", catalogue, dsn, {"TRADETAPE_HTTP_PORT": str(port)}))
            for port in ports
        ]
        words = ("work", *work.words, "--group", f"{catalogue.prefix}scale")
        started = [one.start(f"{work.words[0]}-{number}", *words) for number, one in enumerate(workers)]
        _await("the workers are ready", lambda: _all_live(started) and all(ask(port)[0] for port in ports))
        cores, began = Cores(started), time.perf_counter()
        _send(services, catalogue, records)
        _await("all is processed", lambda: _all_live(started) and sum(map(_processed, ports)) >= len(records))
        took_s = time.perf_counter() - began
        used, shares = cores.used(took_s), [_processed(port) for port in ports]
    _check(services, work, dsn, records, report)
    return Run(len(records) / took_s, used, max(shares) / sum(shares))


def _send(services: Services, catalogue: Catalogue, records: Sequence[Sent]) -> None:
    topic = catalogue.topic_name(catalogue.by_class(IndicatorUpdate))
    producer = Producer({
        "bootstrap.servers": services.bootstrap_servers, "compression.type": "lz4", "enable.idempotence": True,
        "max.in.flight": 1, "queue.buffering.max.messages": 2 * len(records), "linger.ms": 5,
    })  # fmt: skip
    for one in records:
        producer.produce(topic, one.value, one.key, partition=one.partition, timestamp=one.timestamp_ms)
    if producer.flush(DEADLINE_S):
        raise BenchFailed("not all records were acknowledged")


def _processed(port: int) -> int:
    """How many records a worker says that it has processed."""
    with urllib.request.urlopen(f"http://{LOOPBACK}:{port}/metrics", timeout=10) as page:
        return sum(int(float(line.split()[-1])) for line in page if line.startswith(PROCESSED))


def _all_live(workers: Sequence[Worker]) -> bool:
    for one in workers:
        one.check()
    return True


def _await(what: str, holds: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            raise BenchFailed(f"not within {DEADLINE_S:.0f} s: {what}")
        time.sleep(ASK_INTERVAL_S)


def _check(services: Services, work: Work, dsn: str, records: Sequence[Sent], report: Report) -> None:
    """Each record is a row, or each series a hash; else nothing was measured."""
    if work.words[0] == "history":
        with psycopg.connect(dsn) as connection:
            row = connection.execute("SELECT count(*) FROM tradetape.indicator_updates").fetchone()
        stored, expected = row[0] if row else 0, len(records)
    else:
        with services.redis_client() as client:
            stored = sum(1 for _ in client.scan_iter(match="tradetape:1:indicators:*", count=1_000))
        expected = len({one.key for one in records})
    if stored != expected:
        report.at_least(f"{work.name}: rows or hashes over those expected", stored / expected, 1, must_hold=True)
