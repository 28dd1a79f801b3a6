"""`tradetape topics list` and `apply`: the tape's topics on the broker, beside what the catalogue declares."""

from __future__ import annotations

import argparse
import json
import sys
from typing import TYPE_CHECKING

from tradetape.console import exit_codes
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from tradetape.console.topics import Change, Found
    from tradetape.schemas import Catalogue

_MARKS = {"create": "+", "alter": "~"}
_DAY_MS = 86_400_000


def register(commands: Commands) -> None:
    """Add the commands of topics."""
    topics = commands.add_parser(
        "topics", help="the tape's topics on the broker",
        description="The tape's topics on the broker of KAFKA_BOOTSTRAP_SERVERS, under TRADETAPE_TOPIC_PREFIX.",
        epilog="examples:\n  tradetape topics list\n  tradetape topics apply --dry-run",
    )  # fmt: skip
    actions = topics.actions()
    listing = actions.add_parser(
        "list", run=_list, help="their partitions, retention and records",
        epilog="example:\n  tradetape topics list --json",
    )  # fmt: skip
    listing.add_json()
    apply = actions.add_parser(
        "apply", run=_apply, help="create what is missing, and bring settings into line",
        description="Create missing topics and set retention as declared; print what changed. Deletes nothing, never "
        "changes a number of partitions, and is harmless to repeat.",
        epilog="example:\n  tradetape topics apply --partitions 12 --replication 3 --dry-run",
    )  # fmt: skip
    apply.add_argument(
        "--partitions", type=_positive, metavar="N", help="of new topics (default: as the others have, else 4)"
    )
    apply.add_argument(
        "--replication", type=_positive, default=1, metavar="N", help="of new topics (default: %(default)s)"
    )
    apply.add_argument("--dry-run", action="store_true", help="only print what would change")


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _broker() -> tuple[AdminClient, Catalogue]:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.console.topics import admin_client
    from tradetape.producers.connection import KafkaSettings

    settings = effective_settings()
    return admin_client(KafkaSettings.of(settings)), settings.catalogue()


def _list(args: argparse.Namespace) -> int:
    from tradetape.console.topics import listed

    found = listed(*_broker())
    if args.json:
        rows = [
            {"name": one.topic, "partitions": one.partitions, "retention_ms": one.retention_ms, "records": one.records}
            for one in found
        ]
        print(json.dumps(rows, indent=2))
    else:
        _print_table(found)
    if any(one.partitions is None for one in found):
        print("Some topics are missing; `tradetape topics apply` creates them.", file=sys.stderr)
    return exit_codes.OK


def _print_table(found: list[Found]) -> None:
    width = max(len(one.topic) for one in found)
    print(f"{'topic':<{width}}  partitions  {'retention':<9}  {'records':>12}")
    for one in found:
        if one.partitions is None:
            print(f"{one.topic:<{width}}  missing")
        else:
            print(f"{one.topic:<{width}}  {one.partitions:>10}  {_retention(one):<9}  {one.records:>12,}")


def _retention(one: Found) -> str:
    assert one.retention_ms is not None
    if one.retention_ms < 0:
        return "for ever"
    days = one.retention_ms / _DAY_MS
    return f"{days:g} {'day' if days == 1 else 'days'}"


def _apply(args: argparse.Namespace) -> int:
    from tradetape.console.topics import apply

    admin, catalogue = _broker()
    changes = apply(admin, catalogue, partitions=args.partitions, replication=args.replication, dry_run=args.dry_run)
    for change in changes:
        _print_change(change)
    changed = sum(change.action != "same" for change in changes)
    told = f"{changed} of {len(changes)} topics {'would change' if args.dry_run else 'changed'}"
    print(f"{told if changed else f'All {len(changes)} topics are as declared'}.", file=sys.stderr)
    return exit_codes.OK


def _print_change(change: Change) -> None:
    if change.action != "same":
        print(f"{_MARKS[change.action]} {change.topic}  {change.partitions} partitions")
        for name, (before, after) in change.settings.items():
            print(f"    {name}: {after}" if before is None else f"    {name}: {before} -> {after}")
