"""`tradetape schemas`: what the tape's events look like, and the gate before a version of them is released."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tradetape.console import exit_codes

if TYPE_CHECKING:
    from tradetape.schemas import EventType
    from tradetape.schemas.check import Package
    from tradetape.schemas.registry import Pushed

_RAW = argparse.RawDescriptionHelpFormatter


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of the schemas."""
    schemas = commands.add_parser("schemas", help="the events' schemas: list, check, release, register")
    actions = schemas.add_subparsers(title="actions", metavar="ACTION", required=True)
    listing = actions.add_parser(
        "list", help="every record with its topic, version and fields", formatter_class=_RAW,
        epilog="example:\n  tradetape schemas list --json",
    )  # fmt: skip
    listing.add_argument("--json", action="store_true", help="one JSON document")
    listing.set_defaults(run=_list)
    check = actions.add_parser(
        "check", help="whether released schemas are untouched and new ones may be released", formatter_class=_RAW,
        description="Check frozen files, golden events, compatibility both ways over all versions, our own rules and "
        "events.pyi.\nExits 4 with one line for each problem.",
        epilog="example:\n  tradetape schemas check",
    )  # fmt: skip
    check.set_defaults(run=_check)
    freeze = actions.add_parser(
        "freeze", help="release each schema that changed, as its next version", formatter_class=_RAW,
        description="Write released/<Record>/v<N>.avsc, its line in lock.json and its golden event for each changed "
        "schema.\nThe golden event says what released/golden/<Record>.v<N>.json says; without that file, what the "
        "last\nversion's says. Released files are never changed again.",
        epilog="example:\n  tradetape schemas freeze",
    )  # fmt: skip
    freeze.set_defaults(run=_freeze)
    push = actions.add_parser(
        "push", help="register what the schema registry lacks", formatter_class=_RAW,
        description="Register every released version that the registry of SCHEMA_REGISTRY_URL lacks, under the subjects\n"
        "<topic>-value, with compatibility FULL_TRANSITIVE. Harmless to repeat. Producers never register.\n"
        "Exits 4 when the registry refuses a version.",
        epilog="examples:\n  tradetape schemas push --dry-run\n  TRADETAPE_TOPIC_PREFIX=desk7. tradetape schemas push",
    )  # fmt: skip
    push.add_argument("--dry-run", action="store_true", help="only print what would be registered")
    push.set_defaults(run=_push)
    stubs = actions.add_parser(
        "stubs", help="write events.pyi from the schemas", formatter_class=_RAW,
        epilog="example:\n  tradetape schemas stubs",
    )  # fmt: skip
    stubs.set_defaults(run=_stubs)


def _list(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings

    catalogue = settings().catalogue()
    rows = [_row(one, catalogue.topic_name(one)) for one in catalogue]
    if args.json:
        print(json.dumps(rows, indent=2))
        return exit_codes.OK
    print(f"{'RECORD':<16} {'TOPIC':<30} {'VERSION':<10} {'ID':<10} FIELDS")
    for row in rows:
        version = "unreleased" if row["version"] is None else f"v{row['version']}"
        print(f"{row['record']:<16} {row['topic']:<30} {version:<10} {row['id']:<10} {len(row['fields'])}")
    return exit_codes.OK


def _row(event_type: EventType, topic: str) -> dict[str, Any]:
    from tradetape.schemas.released import lock

    released = {entry["id"]: entry["version"] for entry in lock().get(event_type.record, [])}
    return {
        "record": event_type.record,
        "topic": topic,
        "version": released.get(event_type.schema_id),
        "id": event_type.schema_id,
        "fields": [plan.name for plan in event_type.plans],
    }


def _check(_: argparse.Namespace) -> int:
    from tradetape.schemas import check, stubs

    package = _package()
    if _reported(check.problems(package, stub=stubs.render())):
        return exit_codes.BAD_DATA
    versions = sum(len(package.archive.versions(record)) for record in package.heads)
    print(
        f"{len(package.heads)} records in {versions} released versions: files untouched, golden events read, "
        "compatible both ways, rules kept, events.pyi up to date."
    )
    return exit_codes.OK


def _freeze(_: argparse.Namespace) -> int:
    from tradetape.schemas import check, freezing

    package = _package()
    if _reported(check.before_release(package)):
        return exit_codes.BAD_DATA
    changed = [record for record in package.heads if package.has_unreleased_head(record)]
    for record in changed:
        version = freezing.freeze(_folder() / "released", record=record, head=package.texts[record])
        print(f"{record} v{version.number} released under id {version.schema_id}.")
    if not changed:
        print("Nothing to release: every schema is its last released version.")
    return exit_codes.OK


def _push(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.console.registration import register_all
    from tradetape.schemas.registry import COMPATIBILITY

    code = exit_codes.OK
    new = 0
    guarded: list[str] = []
    for subject, pushed, refusal, before in register_all(settings(), dry_run=args.dry_run):
        for one in pushed:
            new += not one.was_there
            print(f"{subject:<36} v{one.number:<3} {_told(one)}")
        if refusal is not None:
            code = exit_codes.BAD_DATA
            print(f"{subject:<36} refused: {refusal}")
        if before is not None:
            guarded.append(before)
    would = "would be " if args.dry_run else ""
    print(f"{f'{new} versions {would}registered' if new else 'Nothing to register'}.", file=sys.stderr)
    if guarded:
        was = ", ".join(sorted(set(guarded)))
        print(
            f"Compatibility {would}set to {COMPATIBILITY} for {len(guarded)} subjects; it was {was}.", file=sys.stderr
        )
    return code


def _told(pushed: Pushed) -> str:
    if pushed.schema_id is None:
        return "would be registered"
    return f"id {pushed.schema_id:<10} {'there already' if pushed.was_there else 'new'}"


def _stubs(_: argparse.Namespace) -> int:
    from tradetape.schemas import stubs

    path = _folder() / "events.pyi"
    path.write_text(stubs.render(), encoding="utf-8")
    print(f"Wrote {path}.")
    return exit_codes.OK


def _folder() -> Path:
    import tradetape.schemas

    return Path(tradetape.schemas.__path__[0])


def _package() -> Package:
    from tradetape.schemas import check

    return check.read(_folder())


def _reported(problems: list[str]) -> bool:
    for line in problems:
        print(line)
    return bool(problems)
