"""`Tape.read` to an iterator, in the order of the tape and in that of time, beside a bare loop that consumes and decodes."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

from bench.bare import batches, decoder
from bench.errors import BenchFailed
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import put_on_tape, updates
from bench.services import Services
from tradetape.schemas import Catalogue, IndicatorUpdate
from tradetape.streams.tape import Order, Tape
from tradetape.streams.time_order import RUN_BYTES

COUNT, QUICK_COUNT = 200_000, 20_000
BATCH_RECORDS = 2_000
TAPE_LIMIT = 0.8
FIRST_CLOSE = datetime(2025, 5, 10, tzinfo=UTC)
SPILLING_RUN_BYTES = 8 * 1024 * 1024
"""So little that an order of time of this many events goes through the disk."""


def run(services: Services, options: Options) -> Report:
    """Measure."""
    count = QUICK_COUNT if options.quick else COUNT
    report = Report("replay", f"{count:,} IndicatorUpdates read from Kafka, decoded to events")
    catalogue = services.topics("replay")
    say(f"replay: putting {count:,} events on the tape")
    put_on_tape(services, catalogue, updates(count, series=240, first_close=FIRST_CLOSE, step=timedelta(minutes=1)))
    bare, as_stored, by_time, spilled = [], [], [], []
    for number in range(options.rounds):
        say(f"replay: round {number + 1} of {options.rounds}")
        bare.append(_bare(services, catalogue, count))
        as_stored.append(_read(services, catalogue, count, "tape"))
        by_time.append(_read(services, catalogue, count, "time"))
        spilled.append(_read(services, catalogue, count, "time", run_bytes=SPILLING_RUN_BYTES))
    by_hand = report.figure("consume, decode with fastavro", "events/s", *bare)
    stored = report.figure("Tape.read, order of the tape", "events/s", *as_stored)
    timed = report.figure("Tape.read, order of time", "events/s", *by_time)
    on_disk = report.figure("Tape.read, order of time, 8 MiB of memory", "events/s", *spilled)
    report.at_least("order of the tape over the bare loop", stored / by_hand, TAPE_LIMIT)
    report.at_least("order of time over the bare loop", timed / by_hand, None)
    report.at_least("order of time through the disk over the bare loop", on_disk / by_hand, None)
    return report


def _bare(services: Services, catalogue: Catalogue, count: int) -> float:
    event_type = catalogue.by_class(IndicatorUpdate)
    decode = decoder(event_type.schema)
    began = time.perf_counter()
    for batch in batches(
        services.bootstrap_servers, catalogue.topic_name(event_type), size=BATCH_RECORDS, expected=count
    ):
        deque((decode(message.value() or b"") for message in batch), maxlen=0)
    return count / (time.perf_counter() - began)


def _read(services: Services, catalogue: Catalogue, count: int, order: Order, *, run_bytes: int = RUN_BYTES) -> float:
    with Tape(kafka=services.kafka, catalogue=catalogue, run_bytes=run_bytes) as tape:
        began = time.perf_counter()
        read, is_sorted = _counted(tape.read(IndicatorUpdate, order=order))
        taken_s = time.perf_counter() - began
    if read != count or not (is_sorted or order == "tape"):
        raise BenchFailed(f"{read} of {count} events in the order of {order}, {'in' if is_sorted else 'not in'} order")
    return count / taken_s


def _counted(events: Iterator[IndicatorUpdate]) -> tuple[int, bool]:
    count, is_sorted, before = 0, True, FIRST_CLOSE
    for event in events:
        count += 1
        assert event.event_time
        is_sorted = is_sorted and event.event_time >= before
        before = event.event_time
    return count, is_sorted
