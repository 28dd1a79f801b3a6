"""The owner's four promises: memory, reads, dead keys, durability, beside the replaced system with the same content.

Its Redis is filled and read by its own script. Ours is filled the way it always is: emitted, on Kafka, by the worker.
"""

from __future__ import annotations

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

READS, QUICK_READS = 7, 2
THEIR_DATABASE = 1
"""Both lie in one Redis, in databases of their own, and are flushed by one FLUSHALL."""
WAIT_TIMEOUT_S = 90.0
WAIT_STEP_S = 0.1
FILTER_TIMEFRAMES = ("1h", "15m")
FILTER_VALUES = ("ema_50", "rsi_14", "adx_14", "stochrsi_k")
"""The replaced filters took close and three values of the hour, and one of the quarter of an hour; we take all of both."""
ALL_TIMEFRAMES = ("15m", "1h", "4h")
MEMORY_LIMIT, READ_LIMIT = 0.05, 0.10


class Kept(NamedTuple):
    """What a way of keeping the content costs and loses."""

    bytes: int
    keys: int
    without_expiry: int
    events: int
    lost: int


class Scans(NamedTuple):
    """Seconds that it took to read: theirs and ours in turn, so that both meet the same machine."""

    their_filter: list[float]
    our_filter: list[float]
    their_all: list[float]
    our_all: list[float]


def run(services: Services, options: Options) -> Report:
    """Measure."""
    report = Report("promises", "the same content as the replaced system kept it and as tradetape keeps it")
    if not options.legacy.is_file():
        report.skipped = f"there is no {options.legacy.name} at {options.legacy.parent}; name it with --legacy"
        return report
    their_url = f"{services.redis_url.rpartition('/')[0]}/{THEIR_DATABASE}"
    script = LegacyScript(options.legacy, their_url)
    dsn, catalogue = services.database("promises"), services.topics("promises")
    with (
        services.empty_redis() as client,
        redis.Redis.from_url(their_url) as theirs,
        psycopg.connect(dsn, autocommit=True) as connection,
    ):
        tape = _OnTape(services, catalogue, dsn, client, connection)
        old, content = _fill_theirs(script, client, theirs)
        new = tape.fill(content)
        scans = _scans(script, StateReader(client), content, QUICK_READS if options.quick else READS)
        differ = _differing_values(StateReader(client), content)
        new = new._replace(lost=tape.lost_by_flush())
        old = old._replace(lost=old.events - queued(theirs))
    report.at_most("values that read differently from theirs", differ, 0, must_hold=True)
    _show(report, "replaced system", old)
    _show(report, "tradetape", new)
    _compare(report, old, new, scans)
    return report


def _compare(report: Report, old: Kept, new: Kept, scans: Scans) -> None:
    def scan(name: str, took: Sequence[float]) -> float:
        return report.figure(name, "ms", *(1_000 * one for one in took))

    filter_ratio = scan("tradetape, one scan of the filter", scans.our_filter) / scan(
        "replaced system, one scan of the filter", scans.their_filter
    )
    all_ratio = scan("tradetape, three timeframes of all symbols", scans.our_all) / scan(
        "replaced system, three timeframes of all symbols", scans.their_all
    )
    report.at_most("memory, ours over theirs", new.bytes / old.bytes, MEMORY_LIMIT)
    report.at_most("one scan of the filter, ours over theirs", filter_ratio, READ_LIMIT)
    report.at_most("three timeframes of all symbols, ours over theirs", all_ratio, None)
    report.at_most("keys without expiry, ours over theirs", new.without_expiry / old.without_expiry, 0, must_hold=True)
    report.at_most("lost when Redis is flushed, ours over theirs", new.lost / old.lost, 0, must_hold=True)


def _show(report: Report, name: str, kept: Kept) -> None:
    report.figure(f"{name}, memory", "bytes", kept.bytes)
    report.figure(f"{name}, keys", "keys", kept.keys)
    report.figure(f"{name}, without expiry", "keys", kept.without_expiry)
    report.figure(f"{name}, events it answers for", "events", kept.events)
    report.figure(f"{name}, lost when Redis is flushed", "events", kept.lost)


def _fill_theirs(script: LegacyScript, client: redis.Redis, theirs: redis.Redis) -> tuple[Kept, Content]:
    say("promises: the replaced system")
    empty = _used_memory(client)
    script("fill")
    filled = script("report")
    entries = queued(theirs)
    taken = filled["used_memory"] - empty
    return Kept(taken, filled["keys"], filled["without_expiry"], entries, entries), read_content(theirs)


def _scans(script: LegacyScript, reader: StateReader, content: Content, reads: int) -> Scans:
    scans = Scans([], [], [], [])
    for _ in range(reads):
        found = script("read")
        scans.their_filter.append(found["five_values_each_s"])
        scans.their_all.append(found["three_timeframes_each_s"])
        scans.our_filter.append(_scan(reader, content, FILTER_TIMEFRAMES, only=FILTER_VALUES))
        scans.our_all.append(_scan(reader, content, ALL_TIMEFRAMES))
    return scans


def _used_memory(client: redis.Redis) -> int:
    info: Any = client.info("memory")
    return int(info["used_memory"])


class _OnTape:
    """The content the way it goes with us: emitted, on Kafka, in the history, and kept current by the worker."""

    def __init__(
        self, services: Services, catalogue: Catalogue, dsn: str, client: redis.Redis, connection: psycopg.Connection
    ) -> None:
        self._services = services
        self._catalogue = catalogue
        self._dsn = dsn
        self._client = client
        self._connection = connection
        self._emitted: list[Event] = []
        self._before: Snapshot = {}

    def fill(self, content: Content) -> Kept:
        """Emit it and let the workers do the rest."""
        say("promises: tradetape")
        empty = _used_memory(self._client)
        self._emitted = list(events(content, datetime.now(UTC)))
        put_on_tape(self._services, self._catalogue, self._emitted)
        with self._services.workers("promises", self._catalogue, self._dsn) as workers:
            workers.start("history", "work", "history")
            self._keep_current()
            _wait(workers, lambda: self._stored() >= len(self._emitted), "the history holds every event")
        taken = _used_memory(self._client) - empty
        self._before = snapshot(self._client)
        keys = len(list(self._client.scan_iter(count=1_000)))
        return Kept(taken, keys, without_expiry(self._client), len(self._emitted), 0)

    def lost_by_flush(self) -> int:
        """Flush, start the worker, and count what is gone from the tape, from the history and from current state."""
        say("promises: flushing Redis")
        self._client.flushall()
        on_tape = sum(self._services.records(self._catalogue.topic_name(one)) for one in self._catalogue)
        missing = max(0, len(self._emitted) - on_tape) + max(0, len(self._emitted) - self._stored())
        self._keep_current()
        return missing + differing(self._before, snapshot(self._client))

    def _keep_current(self) -> None:
        newest = _newest(self._emitted)
        with self._services.workers("promises", self._catalogue) as workers:
            workers.start("state", "work", "state", "--engine", "kafka")
            _wait(
                workers,
                lambda: _times(self._client, list(newest)) == list(newest.values()),
                "Redis holds the newest of every series",
            )

    def _stored(self) -> int:
        row = self._connection.execute(statement("stored_events")).fetchone()
        return int(row[0]) if row else 0


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


def _wait(workers: Workers, is_so: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + WAIT_TIMEOUT_S
    while not is_so():
        workers.check()
        if time.monotonic() > deadline:
            raise BenchFailed(f"waited {WAIT_TIMEOUT_S:.0f} s in vain until {what}")
        time.sleep(WAIT_STEP_S)


def _scan(
    reader: StateReader, content: Content, timeframes: Sequence[str], *, only: Sequence[str] | None = None
) -> float:
    symbols = sorted({one.symbol for one in content.series})
    asked = [(VENUE, symbol, timeframe) for symbol in symbols for timeframe in timeframes]
    began = time.perf_counter()
    found = reader.indicators_many(asked, only=only)
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
