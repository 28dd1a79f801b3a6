"""What `emit` costs the bot that calls it: an IndicatorUpdate of 12 values, with the broker up, down and hanging.

Beside it: fastavro and produce of the same record, and a loop that only waits, which shows what the machine adds. What
emit spends on its two parts, stamping and encoding, is shown alone as well; the rest of it is the key, the lock and produce.
"""

from __future__ import annotations

import socket
import statistics
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from io import BytesIO
from typing import NamedTuple

import fastavro

from bench.bare import BareProducer, Plain
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import updates
from bench.services import Services
from bench.timing import NS_PER_MS, NS_PER_US, Percentiles, noise_beyond_ns, timed_calls
from tradetape.producers import Producer
from tradetape.schemas import Catalogue, Codec, IndicatorUpdate, RunMode
from tradetape.schemas.avro_schema import without_logical_types
from tradetape.schemas.stamping import Stamper

COUNT, QUICK_COUNT = 60_000, 10_000
DISTINCT = 2_000
QUEUE_SHARE = 3
"""While no broker answers, the queue takes one in so many events: what happens beyond its limit is measured too."""
RATIO_LIMIT = 1.25
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
    events = list(updates(DISTINCT, series=240, first_close=datetime(2025, 5, 10, tzinfo=UTC), step=timedelta(hours=1)))
    catalogue = services.topics("emit")
    plains = _plain(catalogue, events)
    bare, up = _side_by_side(services, catalogue, events, plains, count, options.rounds)
    _show(report, "encode + produce", bare)
    _show(report, "emit, broker up", [one.calls for one in up])
    for part, alone in _parts(catalogue, events, plains, count, options.rounds):
        report.figure(f"{part}, p50", "us", *(one.p50 / NS_PER_US for one in alone))
    for part in ("mean", "p50"):
        ratio = _median([one.calls for one in up], part) / _median(bare, part)
        report.at_most(f"emit over encode + produce, {part}", ratio, RATIO_LIMIT)
    _compare_tail(report, "up", up)
    for state, found in _without_broker(catalogue, events, count, options.rounds):
        _show(report, f"emit, broker {state}", [one.calls for one in found])
        _compare_tail(report, state, found)
    _compare_bytes(report, catalogue, plains[0])
    report.notes.append("The tail is p99.9 less what the machine adds to a loop that waits as long as the median emit.")
    return report


def _plain(catalogue: Catalogue, events: list[IndicatorUpdate]) -> list[Plain]:
    """The events as fastavro takes them, so that the bare side pays for no checking and stamping."""
    stamper = Stamper(catalogue=catalogue, source="bench", run_mode=RunMode.BACKTEST)
    return [stamper.stamp(event)[2] for event in events]


def _parts(
    catalogue: Catalogue, events: list[IndicatorUpdate], plains: list[Plain], count: int, rounds: int
) -> Iterator[tuple[str, list[Percentiles]]]:
    """What emit does before it produces, and fastavro in the place of the second half of it."""
    event_type = catalogue.by_class(IndicatorUpdate)
    schema = fastavro.parse_schema(without_logical_types(event_type.schema))
    stamper = Stamper(catalogue=catalogue, source="bench", run_mode=RunMode.BACKTEST)
    codec = Codec(catalogue)
    spent: dict[str, list[Percentiles]] = {"of emit, stamp": [], "of emit, encode": [], "encode by fastavro alone": []}
    for _ in range(rounds):
        found = (
            timed_calls(stamper.stamp, events, count),
            timed_calls(lambda plain: codec.encode(event_type, plain), plains, count),
            timed_calls(lambda plain: fastavro.schemaless_writer(BytesIO(), schema, plain), plains, count),
        )
        for part, one in zip(spent, found, strict=True):
            spent[part].append(one)
    yield from spent.items()


def _bare(services: Services, catalogue: Catalogue) -> BareProducer:
    event_type = catalogue.by_class(IndicatorUpdate)
    schema = without_logical_types(event_type.schema)
    return BareProducer(services.bootstrap_servers, catalogue.topic_name(event_type), schema, event_type.schema_id)


def _compare_bytes(report: Report, catalogue: Catalogue, plain: Plain) -> None:
    """Both sides put the same record on the tape, or the comparison means nothing."""
    event_type = catalogue.by_class(IndicatorUpdate)
    ours = Codec(catalogue).encode(event_type, plain)
    theirs = BareProducer.encoded(plain, without_logical_types(event_type.schema), event_type.schema_id)
    report.at_most("records that differ between both sides", float(ours != theirs), 0, must_hold=True)


def _side_by_side(
    services: Services,
    catalogue: Catalogue,
    events: list[IndicatorUpdate],
    plains: list[Plain],
    count: int,
    rounds: int,
) -> tuple[list[Percentiles], list[Round]]:
    bare, ours = [], []
    for number in range(rounds):
        say(f"emit: broker up, round {number + 1} of {rounds}")
        by_hand = _bare(services, catalogue)
        # What is sustained is measured, so the connection stands before the clock starts, on both sides.
        by_hand.emit(plains[0])
        by_hand.flush(FLUSH_TIMEOUT_S)
        bare.append(timed_calls(by_hand.emit, plains, count))
        by_hand.flush(FLUSH_TIMEOUT_S)
        with _producer(services.bootstrap_servers, catalogue) as tape:
            tape.emit(events[0])
            tape.flush(FLUSH_TIMEOUT_S)
            ours.append(_round(tape, events, count))
            tape.flush(FLUSH_TIMEOUT_S)
    return bare, ours


def _without_broker(
    catalogue: Catalogue, events: list[IndicatorUpdate], count: int, rounds: int
) -> Iterator[tuple[str, list[Round]]]:
    for state, listens in (("down", False), ("hanging", True)):
        found = []
        for number in range(rounds):
            say(f"emit: broker {state}, round {number + 1} of {rounds}")
            with _silent_address(listens=listens) as address:
                tape = _producer(address, catalogue, queue_events=count // QUEUE_SHARE)
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


def _producer(address: str, catalogue: Catalogue, queue_events: int | None = None) -> Producer:
    options = {"queue.buffering.max.messages": str(queue_events)} if queue_events else {}
    return Producer(
        bootstrap_servers=address, source="bench", run_mode=RunMode.BACKTEST, catalogue=catalogue, kafka_options=options
    )


def _show(report: Report, name: str, found: list[Percentiles]) -> None:
    for part in ("mean", "p50", "p99", "p999"):
        text = part.replace("p999", "p99.9")
        report.figure(f"{name}, {text}", "us", *(getattr(one, part) / NS_PER_US for one in found))


def _compare_tail(report: Report, state: str, found: list[Round]) -> None:
    report.figure(f"waiting loop after it, p99.9 over its median, broker {state}", "us", *(one.noise_ns / NS_PER_US for one in found))  # fmt: skip
    tail_ms = statistics.median(one.tail_ms for one in found)
    report.at_most(f"tail of emit over its budget, broker {state}", tail_ms / P999_LIMIT_MS, 1)


def _median(found: list[Percentiles], part: str) -> float:
    return float(statistics.median(getattr(one, part) for one in found))
