"""The owner's four promises: memory, reads, dead keys, durability, beside the replaced system with the same content.

Its Redis is filled and read by its own script. Ours is filled the way it always is: emitted, on Kafka, by the worker.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any, NamedTuple

import psycopg
import redis

from bench.errors import BenchFailed
from bench.legacy import VENUE, Content, LegacyScript, canonical, events, queued, read_content
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import put_on_tape
from bench.services import Services
from bench.snapshot import Snapshot, differing, snapshot, without_expiry
from bench.statements import statement
from tradetape.console.demo.workers import Workers
from tradetape.schemas import Candle, Catalogue, Event, IndicatorUpdate, TradeSignal
from tradetape.schemas.times import from_datetime
from tradetape.streams.state.keys import Keys
from tradetape.streams.state.reader import IndicatorState, StateReader

READS = 7
WAIT_TIMEOUT_S = 90.0
WAIT_STEP_S = 0.1
FILTER_TIMEFRAMES = ("1h", "15m")
"""The replaced filters took four values of the hour and one of the quarter of an hour."""
ALL_TIMEFRAMES = ("15m", "1h", "4h")
MEMORY_LIMIT, READ_LIMIT = 0.05, 0.10


class Kept(NamedTuple):
    """What a way of keeping the content costs and loses."""

    bytes: int
    keys: int
    without_expiry: int
    filter_scan_s: list[float]
    full_scan_s: list[float]
    events: int
    lost: int


def run(services: Services, options: Options) -> Report:
    """Measure."""
    report = Report("promises", "the same content as the replaced system kept it and as tradetape keeps it")
    if not options.legacy.is_file():
        report.skipped = f"there is no {options.legacy.name} at {options.legacy.parent}; name it with --legacy"
        return report
    reads = 2 if options.quick else READS
    old, content = _replaced(services, options, reads)
    new = _ours(report, services, content, reads)
    _show(report, "replaced system", old)
    _show(report, "tradetape", new)
    report.at_most("memory, ours over theirs", new.bytes / old.bytes, MEMORY_LIMIT)
    report.at_most(
        "one scan of the filter, ours over theirs", _median_ratio(new.filter_scan_s, old.filter_scan_s), READ_LIMIT
    )
    report.at_most(
        "three timeframes of all symbols, ours over theirs", _median_ratio(new.full_scan_s, old.full_scan_s), None
    )
    report.at_most("keys without expiry, ours over theirs", new.without_expiry / old.without_expiry, 0, must_hold=True)
    report.at_most("lost when Redis is flushed, ours over theirs", new.lost / old.lost, 0, must_hold=True)
    return report


def _show(report: Report, name: str, kept: Kept) -> None:
    report.figure(f"{name}, memory", "bytes", kept.bytes)
    report.figure(f"{name}, keys", "keys", kept.keys)
    report.figure(f"{name}, without expiry", "keys", kept.without_expiry)
    report.figure(f"{name}, one scan of the filter", "ms", *(1_000 * one for one in kept.filter_scan_s))
    report.figure(f"{name}, three timeframes of all symbols", "ms", *(1_000 * one for one in kept.full_scan_s))
    report.figure(f"{name}, events it answers for", "events", kept.events)
    report.figure(f"{name}, lost when Redis is flushed", "events", kept.lost)


def _median_ratio(ours: Sequence[float], theirs: Sequence[float]) -> float:
    return statistics.median(ours) / statistics.median(theirs)


def _replaced(services: Services, options: Options, reads: int) -> tuple[Kept, Content]:
    say("promises: the replaced system")
    script = LegacyScript(options.legacy, services.redis_url)
    with services.empty_redis() as client:
        empty = _used_memory(client)
        script("fill")
        filled = script("report")
        scans = [script("read") for _ in range(reads)]
        content = read_content(client)
        entries = queued(client)
        client.flushall()
        kept = Kept(
            bytes=filled["used_memory"] - empty,
            keys=filled["keys"],
            without_expiry=filled["without_expiry"],
            filter_scan_s=[one["five_values_each_s"] for one in scans],
            full_scan_s=[one["three_timeframes_each_s"] for one in scans],
            events=entries,
            lost=entries - queued(client),
        )
        return kept, content


def _used_memory(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"])


def _ours(report: Report, services: Services, content: Content, reads: int) -> Kept:
    say("promises: tradetape")
    catalogue, dsn = services.topics("promises"), services.database("promises")
    emitted = list(events(content, datetime.now(UTC)))
    with services.empty_redis() as client, psycopg.connect(dsn, autocommit=True) as connection:
        empty = _used_memory(client)
        put_on_tape(services, catalogue, emitted)
        with services.workers("promises", catalogue, dsn) as workers:
            workers.start("history", "work", "history")
            _fill_by_worker(services, catalogue, client, emitted)
            _wait(workers, lambda: _stored(connection) >= len(emitted), "the history holds every event")
        before = snapshot(client)
        taken = _used_memory(client) - empty
        reader = StateReader(client)
        scans = [_scan(reader, content, FILTER_TIMEFRAMES) for _ in range(reads)]
        full_scans = [_scan(reader, content, ALL_TIMEFRAMES) for _ in range(reads)]
        report.at_most(
            "values that read differently from theirs", _differing_values(reader, content), 0, must_hold=True
        )
        keys, staying = client.dbsize(), without_expiry(client)
        lost = _lost_by_flush(services, catalogue, client, connection, emitted, before)
        return Kept(taken, int(keys), staying, scans, full_scans, len(emitted), lost)


def _fill_by_worker(services: Services, catalogue: Catalogue, client: redis.Redis, emitted: Sequence[Event]) -> None:
    newest = _newest(emitted)
    with services.workers("promises", catalogue) as workers:
        workers.start("state", "work", "state", "--engine", "kafka")
        _wait(
            workers,
            lambda: _times(client, list(newest)) == list(newest.values()),
            "Redis holds the newest of every series",
        )


def _newest(emitted: Sequence[Event]) -> Mapping[str, int]:
    """The event time that each key must hold in the end, from what was emitted alone."""
    keys, newest = Keys(), dict[str, int]()
    for event in emitted:
        match event:
            case IndicatorUpdate():
                key, when = keys.indicators(event.venue, event.symbol, event.timeframe), event.bar_close_time
            case Candle():
                key, when = keys.candle(event.venue, event.symbol, event.timeframe), event.close_time
            case TradeSignal(event_time=datetime() as when):
                key = keys.signal(event.venue, event.symbol, event.strategy_id)
            case _:
                raise BenchFailed(f"{type(event).__name__} was not meant to be emitted here")
        newest[key] = max(newest.get(key, 0), from_datetime(when))
    return newest


def _times(client: redis.Redis, keys: Sequence[str]) -> list[int]:
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hget(key, "_t")
    return [int(time or 0) for time in pipeline.execute()]


def _stored(connection: psycopg.Connection) -> int:
    row = connection.execute(statement("stored_events")).fetchone()
    return int(row[0]) if row else 0


def _wait(workers: Workers, is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while not is_so():
        workers.check()
        if time.monotonic() > deadline:
            raise BenchFailed(f"waited {WAIT_TIMEOUT_S:.0f} s in vain until {what}")
        time.sleep(WAIT_STEP_S)


def _scan(reader: StateReader, content: Content, timeframes: Sequence[str]) -> float:
    symbols = sorted({one.symbol for one in content.series})
    asked = [(VENUE, symbol, timeframe) for symbol in symbols for timeframe in timeframes]
    began = time.perf_counter()
    found = reader.indicators_many(asked)
    took = time.perf_counter() - began
    if None in found:
        raise BenchFailed(f"{found.count(None)} of {len(asked)} series are unknown to the reader")
    return took


def _differing_values(reader: StateReader, content: Content) -> int:
    found = reader.indicators_many([(VENUE, one.symbol, one.timeframe) for one in content.series])
    return sum(
        not _holds(state, canonical(one.values), one.close) for one, state in zip(content.series, found, strict=True)
    )


def _holds(state: IndicatorState | None, values: Mapping[str, float], close: float) -> bool:
    return state is not None and state.values == values and state.close == Decimal(repr(close))


def _lost_by_flush(
    services: Services,
    catalogue: Catalogue,
    client: redis.Redis,
    connection: psycopg.Connection,
    emitted: Sequence[Event],
    before: Snapshot,
) -> int:
    """Flush, start the worker, and count what is gone from the tape, from the history and from current state."""
    say("promises: flushing Redis")
    client.flushall()
    on_tape = sum(services.records(catalogue.topic_name(one)) for one in catalogue)
    missing = max(0, len(emitted) - on_tape) + max(0, len(emitted) - _stored(connection))
    _fill_by_worker(services, catalogue, client, emitted)
    return missing + differing(before, snapshot(client))
