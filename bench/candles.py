"""Every one-minute candle of the shared files by way of producer, Kafka and history worker: none lost, doubled or changed.

PostgreSQL itself reads the files' text as decimals and compares them with what the worker stored.
"""

from __future__ import annotations

import csv
import gzip
import heapq
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import NamedTuple

import psycopg
from psycopg.sql import SQL

from bench.errors import BenchFailed
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import put_on_tape
from bench.services import Services
from bench.statements import statement
from tradetape.console.demo.workers import Workers
from tradetape.schemas import Candle, Catalogue

VENUE = "binance-usdm"
FILES = f"{VENUE}_*_1m.csv.gz"
MINUTE = timedelta(minutes=1)
QUICK_ROWS = 2_000
PRICES = ("open", "high", "low", "close", "volume")
IDLE_TIMEOUT_S = 60.0
POLL_S = 0.5
INTO = SQL("COPY bench.files FROM STDIN")


class Row(NamedTuple):
    """A line of a file, its numbers as the text that stands there."""

    open_time_ms: int
    symbol: str
    numbers: tuple[str, ...]


def run(services: Services, options: Options) -> Report:
    """Measure."""
    report = Report("candles", "the shared one-minute files by way of producer, Kafka and history worker")
    files = sorted((options.data / "klines").glob(FILES))
    if not files:
        report.skipped = f"there are no {FILES} under {options.data}; name the folder with --data"
        return report
    limit = QUICK_ROWS if options.quick else None
    catalogue, dsn = services.topics("candles"), services.database("candles")
    with psycopg.connect(dsn, autocommit=True) as connection:
        expected = _load_files(connection, files, limit)
        report.title = f"{expected:,} candles of {len(files)} files by way of producer, Kafka and history worker"
        _travel(report, services, catalogue, dsn, connection, _feed(files, limit), expected)
        _compare(report, connection, expected)
    letters = services.records(catalogue.dead_letters_topic)
    report.at_most("dead letters", letters, 0, must_hold=True)
    return report


def _rows(file: Path, limit: int | None) -> list[Row]:
    """The file's last rows, oldest first."""
    symbol = file.name.removeprefix(f"{VENUE}_").partition("_")[0]
    with gzip.open(file, "rt", encoding="utf-8", newline="") as text:
        found = [
            Row(int(line["open_time_ms"]), symbol, tuple(line[name] for name in PRICES))
            for line in csv.DictReader(text)
        ]
    return found[-limit:] if limit else found


def _feed(files: Sequence[Path], limit: int | None) -> Iterator[Candle]:
    """All symbols minute by minute, as a live feed gives them."""
    for row in heapq.merge(*(_rows(file, limit) for file in files)):
        open_time = datetime.fromtimestamp(row.open_time_ms // 1_000, UTC)
        open_, high, low, close, volume = row.numbers
        yield Candle(
            venue=VENUE, symbol=row.symbol, timeframe="1m", open_time=open_time, close_time=open_time + MINUTE,
            open=open_, high=high, low=low, close=close, volume=volume, is_final=True,
        )  # fmt: skip


def _load_files(connection: psycopg.Connection, files: Sequence[Path], limit: int | None) -> int:
    """Put the files' own text before PostgreSQL; how many candles they hold."""
    connection.execute(statement("make_files"))
    count = 0
    with connection.cursor() as cursor, cursor.copy(INTO) as copy:
        for file in files:
            for row in _rows(file, limit):
                copy.write_row((row.symbol, row.open_time_ms, *row.numbers))
                count += 1
    return count


def _travel(
    report: Report,
    services: Services,
    catalogue: Catalogue,
    dsn: str,
    connection: psycopg.Connection,
    feed: Iterator[Candle],
    expected: int,
) -> None:
    with services.workers("candles", catalogue, dsn) as workers:
        workers.start("history", "work", "history")
        say(f"candles: emitting {expected:,}")
        began = time.perf_counter()
        put_on_tape(services, catalogue, feed)
        emitted = time.perf_counter()
        say("candles: waiting for the history")
        _wait(workers, connection, expected)
        stored = time.perf_counter()
    report.figure("read, checked, emitted and acknowledged", "events/s", expected / (emitted - began))
    report.figure("from the first emit to the last row", "events/s", expected / (stored - began))


def _wait(workers: Workers, connection: psycopg.Connection, expected: int) -> None:
    """Until every row is there, or none has come for a while; what is missing then is for the comparison to say."""
    stored, moved = 0, time.monotonic()
    while stored < expected and time.monotonic() - moved < IDLE_TIMEOUT_S:
        workers.check()
        now = _numbers(connection, "stored_candles")[0]
        if now > stored:
            stored, moved = now, time.monotonic()
        time.sleep(POLL_S)


def _compare(report: Report, connection: psycopg.Connection, expected: int) -> None:
    say("candles: comparing with the files")
    rows, distinct, lost, unknown, different = _numbers(connection, "compare_files")
    report.at_least("rows over candles in the files", rows / expected, 1, must_hold=True)
    report.at_most("doubled", rows - distinct, 0, must_hold=True)
    report.at_most("lost", lost, 0, must_hold=True)
    report.at_most("stored, but in no file", unknown, 0, must_hold=True)
    report.at_most("with a number other than the file's text", different, 0, must_hold=True)


def _numbers(connection: psycopg.Connection, name: str) -> tuple[int, ...]:
    row = connection.execute(statement(name)).fetchone()
    if row is None:
        raise BenchFailed(f"{name} gave no row")
    return tuple(row)
