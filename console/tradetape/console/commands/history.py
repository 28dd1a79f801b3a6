"""`tradetape history …`: the tables of the history, and how far its sinks have come."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterable, Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

from tradetape.console import exit_codes, history_query, history_upkeep, history_verify
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    import psycopg
    from confluent_kafka.admin import AdminClient

    from tradetape.producers.settings import Settings

COUNTED_BYTES = 1024**3
"""Tables up to this size are counted; of larger ones PostgreSQL's own estimate is shown."""
KAFKA_TIMEOUT_S = 5.0


def register(commands: Commands) -> None:
    """Add the commands of the history."""
    history = commands.add_parser(
        "history", help="the tables of the history",
        epilog="examples:\n  tradetape history migrate\n  tradetape history query daily_pnl --symbol BTCUSDT",
    )  # fmt: skip
    actions = history.actions()
    migrate = actions.add_parser(
        "migrate", run=_migrate, help="make the tables, or bring them up to date",
        description="Apply the migrations that are pending. Harmless when there are none.",
        epilog="example:\n  tradetape history migrate --dry-run",
    )  # fmt: skip
    migrate.add_argument("--dry-run", action="store_true", help="only say what would be applied")
    status = actions.add_parser(
        "status", run=_status, help="migrations, rows, offsets and lag",
        description="What the database holds. Exit code 1 while migrations are pending.",
        epilog="example:\n  tradetape history status --json",
    )  # fmt: skip
    status.add_json()
    history_query.register(actions)
    history_upkeep.register(actions)
    history_verify.register(actions)


class Table(NamedTuple):
    """One table of the history. `is_estimate` says that `rows` was not counted."""

    name: str
    rows: int
    is_estimate: bool
    partitions: int


class Place(NamedTuple):
    """How far a sink has come on one partition; `lag` in records, None where Kafka does not say."""

    sink: str
    topic: str
    partition: int
    next_offset: int | None
    lag: int | None


def _migrate(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.sinks.history import migrate
    from tradetape.sinks.history.connection import connect

    dsn = settings().required("DATABASE_URL")
    if args.dry_run:
        with connect(dsn, application="tradetape-migrate") as connection:
            names = [one.name for one in migrate.pending(connection, migrate.shipped())]
    else:
        names = migrate.migrate(dsn)
    for name in names:
        print(f"{'would apply' if args.dry_run else 'applied'} {name}")
    if not names:
        print("The tables are up to date.", file=sys.stderr)
    return exit_codes.OK


def _status(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.sinks.history import migrate
    from tradetape.sinks.history.connection import connect, passing_errors

    effective = settings()
    with (
        passing_errors(),
        connect(effective.required("DATABASE_URL"), application="tradetape-status") as connection,
    ):
        shipped = migrate.shipped()
        done = sorted(migrate.applied(connection))
        pending = [one.name for one in migrate.pending(connection, shipped)]
        tables, places = (_tables(connection), _places(connection, effective)) if done else ([], [])
    applied = [one.name for one in shipped if one.version in done]
    show = _print_json if args.json else _print_text
    show(applied, pending, tables, places)
    return exit_codes.FAILED if pending else exit_codes.OK


def _tables(connection: psycopg.Connection) -> list[Table]:
    from psycopg.sql import SQL, Identifier

    from tradetape.sinks.history.queries import query
    from tradetape.sinks.history.schema import SCHEMA

    count = SQL("SELECT count(*) FROM {table}")
    tables = []
    for name, partitions, estimate, size_bytes in connection.execute(query("tables")).fetchall():
        is_estimate = size_bytes > COUNTED_BYTES
        counted = None if is_estimate else connection.execute(count.format(table=Identifier(SCHEMA, name))).fetchone()
        tables.append(Table(name, counted[0] if counted else estimate, is_estimate, partitions))
    return tables


def _places(connection: psycopg.Connection, settings: Settings) -> list[Place]:
    from tradetape.sinks.history.queries import query

    rows = connection.execute(query("offsets")).fetchall()
    ends = _ends(settings, {(topic, topic_uuid, partition) for _, topic, topic_uuid, partition, *_ in rows})
    return [
        Place(sink, topic, partition, next_offset, _lag(ends.get((topic, topic_uuid, partition)), next_offset))
        for sink, topic, topic_uuid, partition, next_offset, _, _ in rows
    ]


def _lag(ends: tuple[int, int] | None, next_offset: int | None) -> int | None:
    if ends is None:
        return None
    low, high = ends
    return max(0, high - (low if next_offset is None else next_offset))


Key = tuple[str, str, int]
"""A topic's name, its UUID and a partition."""


def _ends(settings: Settings, keys: Iterable[Key]) -> Mapping[Key, tuple[int, int]]:
    """The first and the next offset of each partition; empty where Kafka does not answer, or is not named."""
    from confluent_kafka import KafkaException

    from tradetape.producers.errors import SettingsError

    try:
        return _asked_ends(settings, keys)
    except (KafkaException, SettingsError) as error:
        text = error.args[0].str() if isinstance(error, KafkaException) else str(error)
        print(f"No lag: {text}", file=sys.stderr)
        return {}


def _asked_ends(settings: Settings, keys: Iterable[Key]) -> Mapping[Key, tuple[int, int]]:
    from confluent_kafka import TopicPartition
    from confluent_kafka.admin import OffsetSpec

    from tradetape.console.topics import admin_client
    from tradetape.producers.connection import KafkaSettings

    admin, keys = admin_client(KafkaSettings.of(settings)), list(keys)
    uuids = _topic_uuids(admin, {topic for topic, _, _ in keys})
    # A topic that was made anew under the same name says nothing about offsets of the old one.
    places = {key: TopicPartition(key[0], key[2]) for key in keys if uuids.get(key[0]) == key[1]}
    if not places:
        return {}
    lows, highs = (
        admin.list_offsets(dict.fromkeys(places.values(), spec), request_timeout=KAFKA_TIMEOUT_S)
        for spec in (OffsetSpec.earliest(), OffsetSpec.latest())
    )
    return {key: (lows[one].result().offset, highs[one].result().offset) for key, one in places.items()}


def _topic_uuids(admin: AdminClient, names: set[str]) -> Mapping[str, str]:
    from confluent_kafka import TopicCollection

    found = sorted(names & set(admin.list_topics(timeout=KAFKA_TIMEOUT_S).topics))
    described = admin.describe_topics(TopicCollection(found), request_timeout=KAFKA_TIMEOUT_S) if found else {}
    return {name: str(one.result().topic_id) for name, one in described.items()}


def _print_json(applied: list[str], pending: list[str], tables: list[Table], places: list[Place]) -> None:
    document: dict[str, Any] = {
        "migrations": {"applied": applied, "pending": pending},
        "tables": [one._asdict() for one in tables],
        "offsets": [one._asdict() for one in places],
    }
    print(json.dumps(document, indent=2))


def _print_text(applied: list[str], pending: list[str], tables: list[Table], places: list[Place]) -> None:
    for name in applied:
        print(f"applied   {name}")
    for name in pending:
        print(f"pending   {name}  (run `tradetape history migrate`)")
    if tables:
        print(f"\n{'table':<20} {'rows':>14} {'months':>7}")
    for table in tables:
        rows = f"{'~' if table.is_estimate else ''}{table.rows:,}"
        print(f"{table.name:<20} {rows:>14} {table.partitions:>7}")
    if places:
        width = max(len(one.topic) for one in places)
        print(f"\n{'sink':<10} {'topic':<{width}} {'partition':>9} {'next offset':>12} {'lag':>9}")
    for one in places:
        print(
            f"{one.sink:<10} {one.topic:<{width}} {one.partition:>9} {_shown(one.next_offset):>12} {_shown(one.lag):>9}"
        )


def _shown(number: int | None) -> str:
    return "-" if number is None else f"{number:,}"
