"""What bad records cost: the history sink on a tape of which one record in a hundred is bad, beside the same without.

The bad ones are of every kind that is found before PostgreSQL sees them and of those that it refuses. Each has to be a
dead letter once, with complete headers, and everything else a row.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path
from typing import NamedTuple

import psycopg
from confluent_kafka import Message, Producer

from bench.bare import PRODUCER, batches
from bench.damage import damages
from bench.errors import BenchFailed
from bench.history import sink_rows_per_s
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import put_on_tape, updates
from bench.services import Services
from bench.statements import statement
from tradetape.schemas import Catalogue, IndicatorUpdate
from tradetape.streams.dead_letters import CONNECT
from tradetape.streams.logs import JsonFormatter
from tradetape.streams.record import from_message

COUNT, QUICK_COUNT, FULL_COUNT = 100_000, 10_000, 300_000
ROUNDS, QUICK_ROUNDS = 7, 1
"""More than elsewhere: what is looked for is small."""
ONE_IN = 100
LIMIT = 0.95
FLUSH_TIMEOUT_S = 60.0
CONNECT_HEADERS = frozenset(
    CONNECT + name
    for name in (
        "topic", "partition", "offset", "connector.name", "task.id", "stage", "class.name", "exception.class.name",
        "exception.message", "exception.stacktrace",
    )
)  # fmt: skip
"""Kafka Connect's, of KIP-298."""
OUR_HEADERS = frozenset(("x-worker", "x-reason", "x-attempt", "x-timestamp"))


class Place(NamedTuple):
    """Where a record lies on its topic."""

    partition: int
    offset: int


def run(services: Services, options: Options) -> Report:
    """Measure."""
    count = QUICK_COUNT if options.quick else FULL_COUNT if options.full else COUNT
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    report = Report("poison", f"{count:,} IndicatorUpdates into the history, one in {ONE_IN} of them bad")
    source, clean, poisoned = (services.topics(name) for name in ("source", "clean", "poisoned"))
    dsn = services.database("poison")
    say(f"poison: putting {count:,} events on the tape, three times")
    first_close = datetime(2025, 5, 10, tzinfo=UTC)
    put_on_tape(services, source, updates(count, series=240, first_close=first_close, step=timedelta(minutes=1)))
    # Both are copies, written alike: how records are packed together makes a difference to whoever reads them.
    _copied(services, source, clean, count, one_in=0)
    bad = _copied(services, source, poisoned, count, one_in=ONE_IN)
    found: dict[str, list[float]] = {"clean": [], "poisoned": []}
    stored: list[int] = []
    with psycopg.connect(dsn, autocommit=True) as connection, _logged(services.logs / "poison.log"):
        tapes = [("clean", clean), ("poisoned", poisoned)]
        for number in range(rounds):
            say(f"poison: round {number + 1} of {rounds}")
            tapes.reverse()
            for name, catalogue in tapes:
                connection.execute(statement("empty_history"))
                connection.execute("CHECKPOINT")
                found[name].append(sink_rows_per_s(services, catalogue, dsn, count, worker=f"history-{number}"))
                if name == "poisoned":
                    stored.append(_stored(connection))
        report.at_least("rows over good records on the tape", min(stored) / (count - len(bad)), 1, must_hold=True)
    _check_letters(report, services, poisoned, bad, rounds)
    middle = {name: report.figure(f"{name} tape", "records/s", *rates) for name, rates in found.items()}
    report.at_least("with bad records over without", middle["poisoned"] / middle["clean"], LIMIT)
    return report


def _copied(services: Services, source: Catalogue, target: Catalogue, count: int, *, one_in: int) -> dict[Place, bytes]:
    """The same records at the same places, but for one in so many, which is damaged; the values of these."""
    event_type = source.by_class(IndicatorUpdate)
    kinds = cycle(damages(event_type.schema).values())
    topic = target.topic_name(event_type)
    producer = Producer({**PRODUCER, "bootstrap.servers": services.bootstrap_servers})
    bad: dict[Place, bytes] = {}
    numbers: Counter[int] = Counter()
    for batch in batches(services.bootstrap_servers, source.topic_name(event_type), size=1_000, expected=count):
        for message in batch:
            partition, value = message.partition() or 0, message.value() or b""
            if one_in and (numbers.total() + 1) % one_in == 0:
                value = next(kinds)(value)
                bad[Place(partition, numbers[partition])] = value
            numbers[partition] += 1
            producer.produce(
                topic, value=value, key=message.key(), partition=partition, timestamp=message.timestamp()[1]
            )
        producer.poll(0)
    if producer.flush(FLUSH_TIMEOUT_S):
        raise BenchFailed("the damaged records were not acknowledged")
    return bad


@contextmanager
def _logged(log: Path) -> Iterator[None]:
    """What the sink says of each dead letter goes to a file, formatted as in a worker: it is part of the cost."""
    logger, handler = logging.getLogger("tradetape"), logging.FileHandler(log)
    handler.setFormatter(JsonFormatter())
    logger.addHandler(handler)
    try:
        yield
    finally:
        logger.removeHandler(handler)
        handler.close()


def _stored(connection: psycopg.Connection) -> int:
    row = connection.execute(statement("stored_updates")).fetchone()
    return int(row[0]) if row else 0


def _check_letters(
    report: Report, services: Services, catalogue: Catalogue, bad: Mapping[Place, bytes], rounds: int
) -> None:
    """Each bad record, by each round's worker, once, unchanged, and with all that is to be known of it."""
    topic = catalogue.dead_letters_topic
    expected = services.records(topic)
    seen: Counter[tuple[str, Place]] = Counter()
    incomplete = 0
    for batch in batches(services.bootstrap_servers, topic, size=1_000, expected=expected):
        for message in batch:
            headers = _headers(message)
            place = Place(int(headers[CONNECT + "partition"]), int(headers[CONNECT + "offset"]))
            seen[headers["x-worker"].decode(), place] += 1
            is_complete = all(headers.get(name) for name in CONNECT_HEADERS | OUR_HEADERS)
            incomplete += not is_complete or message.value() != bad.get(place)
    wanted = {(f"history-{number}", place) for number in range(rounds) for place in bad}
    report.at_most("bad records without a dead letter", len(wanted - seen.keys()), 0, must_hold=True)
    report.at_most("dead letters of good records", len(seen.keys() - wanted), 0, must_hold=True)
    report.at_most("dead letters of a record beyond its first", seen.total() - len(seen), 0, must_hold=True)
    report.at_most("dead letters that are changed or lack a header", incomplete, 0, must_hold=True)


def _headers(message: Message) -> dict[str, bytes]:
    return {name: value or b"" for name, value in from_message(message).headers}
