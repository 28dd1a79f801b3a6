"""The work of one worker and of two of one group, and what the machine did meanwhile.

The workers stand ready, their partitions given out, before the first record comes. The records were encoded before and
come all at once, so hardly anything of the time is the producer's. Two workers are owed half as much again as one where
the machine has the cores for it: where one worker left as many idle as half of what it and the servers used. Approval is
not among them: its replicas decide on one book, so they stand by and gain nothing.
"""

from __future__ import annotations

import os
import statistics
import time
import urllib.request
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

from confluent_kafka import Producer

from bench.bare import PRODUCER
from bench.cores import Cores, CoresUsed
from bench.errors import BenchFailed
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.services import Services
from bench.works import RUN_MODE, WORKS, Ground, Sent, Work, recorded
from tradetape.console.demo.workers import Worker, Workers
from tradetape.console.local.ports import LOOPBACK, any_free
from tradetape.console.ready import ask
from tradetape.producers.settings import PREFIX

SYMBOLS, QUICK_SYMBOLS = 4_000, 400
OWED = 1.5
DEADLINE_S = 180.0
ASK_INTERVAL_S, COUNT_INTERVAL_S = 0.02, 0.1
ROOT = Path(__file__).resolve().parents[1]
PROCESSED = b"tradetape_events_processed_total{"


class Run(NamedTuple):
    """What one run came to. `busiest` is the share of the worker that did most."""

    records_per_s: float
    cores: CoresUsed
    busiest: float


def run(services: Services, options: Options) -> Report:
    """Measure."""
    report = Report("scale", "one worker and two of one group, on records that all come at once")
    for work in WORKS:
        say(f"scale: {work.name}, encoding its records")
        records = recorded(
            work, work.quick_records if options.quick else work.records, QUICK_SYMBOLS if options.quick else SYMBOLS
        )
        runs: dict[int, list[Run]] = {1: [], 2: []}
        for number in range(options.rounds):
            for workers in runs:
                say(f"scale: {work.name}, {workers} at work, round {number + 1} of {options.rounds}")
                runs[workers].append(_run(services, work, records, workers, report))
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


def _run(services: Services, work: Work, records: Sequence[Sent], count: int, report: Report) -> Run:
    ground = Ground(services, services.topics("scale"), services.database("scale"))
    services.empty_redis().close()
    ports, expected = [any_free() for _ in range(count)], work.expected(records)
    with ExitStack() as stack:
        workers = [stack.enter_context(_workers(ground, port)) for port in ports]
        words = ("work", *work.words, "--group", f"{ground.catalogue.prefix}scale")
        started = [one.start(f"{work.words[0]}-{number}", *words) for number, one in enumerate(workers)]
        _await("the workers are ready", lambda: _all_live(started) and all(ask(port)[0] for port in ports))
        cores, began = Cores(started), time.perf_counter()
        _send(ground, records)
        _await("all is processed", lambda: _all_live(started) and sum(map(_processed, ports)) >= len(records))
        if work.is_done_later:
            _await("all is done", lambda: _all_live(started) and work.found(ground) >= expected, COUNT_INTERVAL_S)
        took_s = time.perf_counter() - began
        used, shares = cores.used(took_s), [_processed(port) for port in ports]
    if (found := work.found(ground)) != expected:
        report.at_least(f"{work.name}: of what was expected", found / expected, 1, must_hold=True)
    return Run(len(records) / took_s, used, max(shares) / sum(shares))


def _workers(ground: Ground, port: int) -> Workers:
    more = {f"{PREFIX}HTTP_PORT": str(port), f"{PREFIX}RUN_MODE": RUN_MODE.value, "PYTHONPATH": str(ROOT)}
    return ground.services.workers("scale", ground.catalogue, ground.dsn, more)


def _send(ground: Ground, records: Sequence[Sent]) -> None:
    catalogue = ground.catalogue
    topics = {one.record: catalogue.topic_name(one) for one in catalogue}
    # One that is idempotent waits half a second for its id, which would be a fifth of what is measured.
    producer = Producer({
        **PRODUCER, "bootstrap.servers": ground.services.bootstrap_servers, "enable.idempotence": False,
        "queue.buffering.max.messages": 2 * len(records), "linger.ms": 5,
    })  # fmt: skip
    for one in records:
        producer.produce(topics[one.record], one.value, one.key, timestamp=one.timestamp_ms)
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


def _await(what: str, holds: Callable[[], bool], interval_s: float = ASK_INTERVAL_S) -> None:
    deadline = time.monotonic() + DEADLINE_S
    while not holds():
        if time.monotonic() > deadline:
            raise BenchFailed(f"not within {DEADLINE_S:.0f} s: {what}")
        time.sleep(interval_s)
