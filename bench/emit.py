"""What `emit` costs the bot that calls it: an IndicatorUpdate of 12 values, with the broker up, down and hanging.

In turns with it fastavro and produce of the same record; after it a loop that only waits, which shows what the machine
adds. What emit spends on checking, stamping and encoding is shown alone as well; the rest of it is the key, the lock and
produce.
"""

from __future__ import annotations

import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
from array import array
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from pathlib import Path
from typing import NamedTuple

import fastavro
import psutil

from bench.bare import BareProducer, Plain
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import VENUE, symbol, updates
from bench.services import Services
from bench.timing import NS_PER_MS, NS_PER_US, Percentiles, noise_beyond_ns, percentiles, timed_calls, timed_in_turns
from tradetape.producers import Producer
from tradetape.schemas import Action, Catalogue, Codec, Direction, IndicatorUpdate, RunMode, TradeSignal
from tradetape.schemas.avro_schema import without_logical_types
from tradetape.schemas.stamping import Stamper

COUNT, QUICK_COUNT = 60_000, 10_000
DISTINCT = 2_000
SERIES = 240
FIRST_CLOSE = datetime(2025, 5, 10, tzinfo=UTC)
DECISION_SHARE = 10
DECISION_PAUSE_S = 0.001
DECISION_P50_LIMIT_MS, DECISION_P999_LIMIT_MS = 0.3, 2.0
MEMORY_COUNT, QUICK_MEMORY_COUNT = 1_000_000, 100_000
MEMORY_LIMIT_MB = 8.0
IMPORT_LIMIT_MS = 200.0
MS_PER_S = 1_000
MB = 1024 * 1024
RATIO_LIMIT = 1.25
TURN_ROUNDS = 5
"""More of those that are compared: the ratio of one round moves by a tenth, and by less only in the median of many."""
P999_LIMIT_MS = 1.0
FLUSH_TIMEOUT_S = 60.0


class Round(NamedTuple):
    """One round of emits, and what the machine added to a waiting loop right after it."""

    calls: Percentiles
    noise_ns: float

    @property
    def tail_ms(self) -> float:
        """The p99.9 without the machine's share."""
        return max(0.0, self.calls.p999 - self.noise_ns) / NS_PER_MS


def run(services: Services, options: Options) -> Report:
    """Measure."""
    count = QUICK_COUNT if options.quick else COUNT
    report = Report("emit", f"{count:,} IndicatorUpdates in a tight loop, time in the caller's thread")
    events = list(updates(DISTINCT, series=SERIES, first_close=FIRST_CLOSE, step=timedelta(hours=1)))
    catalogue = services.topics("emit")
    plains = _plain(catalogue, events)
    bare, beside = _in_turns(services, catalogue, events, plains, count, TURN_ROUNDS * options.rounds)
    _show(report, "encode + produce", bare)
    _show(report, "emit, in turns with it", beside)
    up = _alone(services, catalogue, events, count, options.rounds, report)
    _show(report, "emit, broker up", [one.calls for one in up])
    for part, alone in _parts(catalogue, events, plains, count, options.rounds):
        report.figure(f"{part}, p50", "us", *(one.p50 / NS_PER_US for one in alone))
    for part in ("mean", "p50"):
        ratio = statistics.median(
            getattr(own, part) / getattr(theirs, part) for theirs, own in zip(bare, beside, strict=True)
        )
        report.at_most(f"emit over encode + produce, {part}", ratio, RATIO_LIMIT)
    _compare_tail(report, "up", up)
    for state, found in _without_broker(services, catalogue, events, count, options.rounds):
        _show(report, f"emit, broker {state}", [one.calls for one in found])
        _compare_tail(report, state, found)
    _decisions(report, services, catalogue, count // DECISION_SHARE)
    _memory(report, services, catalogue, events, QUICK_MEMORY_COUNT if options.quick else MEMORY_COUNT)
    _import(report, options.rounds)
    _compare_bytes(report, catalogue, events)
    report.notes.append("The tail is p99.9 less what the machine adds to a loop that waits as long as the median emit.")
    return report


def _plain(catalogue: Catalogue, events: list[IndicatorUpdate]) -> list[Plain]:
    """The events as fastavro takes them, so that the bare side pays for no checking and stamping."""
    codec = Codec(catalogue)
    topic = catalogue.topic_name(catalogue.by_class(IndicatorUpdate))
    return [codec.decode_fields(topic, payload) for payload in _stamped(codec, events)]


def _stamped(codec: Codec, events: list[IndicatorUpdate]) -> Iterator[bytes]:
    """The values that emit puts on the tape."""
    stamper = Stamper(codec=codec, source="bench", run_mode=RunMode.BACKTEST)
    for event in events:
        _, _, payload, _ = stamper.stamp(event)
        yield payload


def _parts(
    catalogue: Catalogue, events: list[IndicatorUpdate], plains: list[Plain], count: int, rounds: int
) -> Iterator[tuple[str, list[Percentiles]]]:
    """What emit does before it produces, and fastavro, which only encodes."""
    event_type = catalogue.by_class(IndicatorUpdate)
    schema = fastavro.parse_schema(without_logical_types(event_type.schema))
    stamper = Stamper(codec=Codec(catalogue), source="bench", run_mode=RunMode.BACKTEST)
    spent: dict[str, list[Percentiles]] = {"of emit, check, stamp and encode": [], "encode by fastavro alone": []}
    for _ in range(rounds):
        found = (
            timed_calls(stamper.stamp, events, count),
            timed_calls(lambda plain: fastavro.schemaless_writer(BytesIO(), schema, plain), plains, count),
        )
        for part, one in zip(spent, found, strict=True):
            spent[part].append(one)
    yield from spent.items()


def _bare(services: Services, catalogue: Catalogue) -> BareProducer:
    event_type = catalogue.by_class(IndicatorUpdate)
    schema = without_logical_types(event_type.schema)
    return BareProducer(services.bootstrap_servers, catalogue.topic_name(event_type), schema, event_type.schema_id)


def _compare_bytes(report: Report, catalogue: Catalogue, events: list[IndicatorUpdate]) -> None:
    """Both sides put the same record on the tape, or the comparison means nothing."""
    event_type, codec = catalogue.by_class(IndicatorUpdate), Codec(catalogue)
    ours = next(_stamped(codec, events))
    plain = codec.decode_fields(catalogue.topic_name(event_type), ours)
    theirs = BareProducer.encoded(plain, without_logical_types(event_type.schema), event_type.schema_id)
    report.at_most("records that differ between both sides", float(ours != theirs), 0, must_hold=True)


def _in_turns(
    services: Services,
    catalogue: Catalogue,
    events: list[IndicatorUpdate],
    plains: list[Plain],
    count: int,
    rounds: int,
) -> tuple[list[Percentiles], list[Percentiles]]:
    """Fastavro and produce, and emit."""
    bare, ours = [], []
    for number in range(rounds):
        say(f"emit: in turns with fastavro and produce, round {number + 1} of {rounds}")
        by_hand = _bare(services, catalogue)
        with _producer(services.bootstrap_servers, catalogue, services.outboxes) as tape:
            # What is sustained is measured, so the connections stand before the clock starts.
            by_hand.emit(plains[0])
            by_hand.flush(FLUSH_TIMEOUT_S)
            tape.emit(events[0])
            tape.flush(FLUSH_TIMEOUT_S)
            theirs, own = timed_in_turns((by_hand.emit, plains), (tape.emit, events), count)
            bare.append(theirs)
            ours.append(own)
            by_hand.flush(FLUSH_TIMEOUT_S)
            tape.flush(FLUSH_TIMEOUT_S)
    return bare, ours


def _alone(
    services: Services, catalogue: Catalogue, events: list[IndicatorUpdate], count: int, rounds: int, report: Report
) -> list[Round]:
    found, dropped = [], 0
    for number in range(rounds):
        say(f"emit: broker up, round {number + 1} of {rounds}")
        with _producer(services.bootstrap_servers, catalogue, services.outboxes) as tape:
            tape.emit(events[0])
            tape.flush(FLUSH_TIMEOUT_S)
            found.append(_round(tape, events, count))
            tape.flush(FLUSH_TIMEOUT_S)
            dropped += sum(tape.health().dropped.values())
    report.at_most("updates dropped while the broker was up", dropped, 0)
    return found


def _decisions(report: Report, services: Services, catalogue: Catalogue, count: int) -> None:
    """What a decision costs: it is on disk when emit returns. Paced, since no bot decides in a tight loop."""
    say("emit: decisions")
    calls = array("q")
    with _producer(services.bootstrap_servers, catalogue, services.outboxes) as tape:
        for number in range(count):
            signal = TradeSignal(
                strategy_id="bench", venue=VENUE, symbol=symbol(number % SERIES), timeframe="1m",
                bar_close_time=FIRST_CLOSE + timedelta(minutes=number), action=Action.ENTER, direction=Direction.LONG,
                reference_price="64123.10",
            )  # fmt: skip
            began = time.perf_counter_ns()
            tape.emit(signal)
            calls.append(time.perf_counter_ns() - began)
            time.sleep(DECISION_PAUSE_S)
        tape.flush(FLUSH_TIMEOUT_S)
    found = Round(percentiles(calls), noise_beyond_ns(percentiles(calls).p50, count))
    report.figure("emit of a decision, p50", "us", found.calls.p50 / NS_PER_US)
    report.figure("emit of a decision, p99.9", "us", found.calls.p999 / NS_PER_US)
    report.at_most("emit of a decision, p50 in ms", found.calls.p50 / NS_PER_MS, DECISION_P50_LIMIT_MS)
    report.at_most("tail of emit of a decision over its budget", found.tail_ms / DECISION_P999_LIMIT_MS, 1)


def _memory(
    report: Report, services: Services, catalogue: Catalogue, events: list[IndicatorUpdate], count: int
) -> None:
    """Emits without end leave the process as it is."""
    say(f"emit: memory over {count:,} emits")
    process = psutil.Process()
    with _producer(services.bootstrap_servers, catalogue, services.outboxes) as tape:
        for number in range(count // 5):
            tape.emit(events[number % len(events)])
        before = process.memory_info().rss
        for number in range(count):
            tape.emit(events[number % len(events)])
        after = process.memory_info().rss
        tape.flush(FLUSH_TIMEOUT_S)
    report.figure(f"memory that {count:,} emits took", "MB", (after - before) / MB)
    report.at_most("memory that many emits took, MB", (after - before) / MB, MEMORY_LIMIT_MB)


def _import(report: Report, rounds: int) -> None:
    """What a bot pays for `import tradetape.producers`, by CPU time, which others do not stretch."""
    script = "import time; began = time.process_time(); import tradetape.producers; print(time.process_time() - began)"
    with tempfile.TemporaryDirectory(prefix="tradetape-bench-") as compiled:
        # As after an installation, which compiles: the first of them does, whatever the caller's environment says.
        environment = {**os.environ, "PYTHONPYCACHEPREFIX": compiled, "PYTHONDONTWRITEBYTECODE": ""}
        _, *took = (
            float(subprocess.check_output([sys.executable, "-c", script], env=environment)) * MS_PER_S
            for _ in range(rounds + 3)
        )
    report.at_most("import of tradetape.producers, ms", report.figure("import", "ms", *took), IMPORT_LIMIT_MS)


def _without_broker(
    services: Services, catalogue: Catalogue, events: list[IndicatorUpdate], count: int, rounds: int
) -> Iterator[tuple[str, list[Round]]]:
    for state, listens in (("down", False), ("hanging", True)):
        found = []
        for number in range(rounds):
            say(f"emit: broker {state}, round {number + 1} of {rounds}")
            with _silent_address(listens=listens) as address:
                tape = _producer(address, catalogue, services.outboxes)
                found.append(_round(tape, events, count))
                tape.close(timeout_s=0)
        yield state, found


def _round(tape: Producer, events: list[IndicatorUpdate], count: int) -> Round:
    calls = timed_calls(tape.emit, events, count)
    return Round(calls, noise_beyond_ns(calls.p50, count))


@contextmanager
def _silent_address(*, listens: bool) -> Iterator[str]:
    """An address where nothing listens, or where something takes connections and never answers."""
    with ExitStack() as held:
        one = held.enter_context(socket.socket())
        one.bind(("127.0.0.1", 0))
        if listens:
            one.listen(64)
        # Bound without listening, the port stays closed and nobody else can get it.
        yield f"127.0.0.1:{one.getsockname()[1]}"


def _producer(address: str, catalogue: Catalogue, outboxes: Path) -> Producer:
    return Producer(
        bootstrap_servers=address, source="bench", run_mode=RunMode.BACKTEST, catalogue=catalogue, outbox_dir=outboxes
    )


def _show(report: Report, name: str, found: list[Percentiles]) -> None:
    for part in ("mean", "p50", "p99", "p999"):
        text = part.replace("p999", "p99.9")
        report.figure(f"{name}, {text}", "us", *(getattr(one, part) / NS_PER_US for one in found))


def _compare_tail(report: Report, state: str, found: list[Round]) -> None:
    report.figure(f"waiting loop after it, p99.9 over its median, broker {state}", "us", *(one.noise_ns / NS_PER_US for one in found))  # fmt: skip
    tail_ms = statistics.median(one.tail_ms for one in found)
    report.at_most(f"tail of emit over its budget, broker {state}", tail_ms / P999_LIMIT_MS, 1)
