"""`tradetape dlq …`: the dead letters: what there are, what is in one, back onto the tape with them, or done with."""

from __future__ import annotations

import argparse
import base64
import json
import sys
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from tradetape.console import exit_codes
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from tradetape.console.letter_box import LetterBox
    from tradetape.console.letters import Filter, Letter
    from tradetape.schemas import Codec
    from tradetape.streams.record import Record

STATES = ("open", "redriven", "discarded")
SHOWN_BYTES = 512


def register(commands: Commands) -> None:
    """Add the commands of dead letters."""
    dlq = commands.add_parser(
        "dlq", help="records that workers could not process",
        description="The dead letters: records that a worker could not process, each with its reason. A letter is known by "
        "worker:topic:partition:offset and counted once.",
        epilog="examples:\n  tradetape dlq list\n  tradetape dlq redrive --worker history --reason unknown_schema_id --dry-run",
    )  # fmt: skip
    actions = dlq.actions()
    _register_list(actions)
    _register_show(actions)
    redrive = actions.add_parser(
        "redrive", run=_redrive, help="put records back onto their topics",
        description="Put the records of open letters back onto their topics, where every worker reads them again. Each is "
        "driven once; whoever fails again writes a new letter, with a higher attempt.",
        epilog="examples:\n  tradetape dlq redrive --reason unknown_schema_id --dry-run\n  tradetape dlq redrive --worker state --since 2h",
    )  # fmt: skip
    _add_filters(redrive)
    redrive.add_argument("--dry-run", action="store_true", help="only print what would be put back")
    discard = actions.add_parser(
        "discard", run=_discard, help="mark letters as seen and given up",
        description="Mark open letters as seen and given up; they stay readable until retention deletes them.",
        epilog="example:\n  tradetape dlq discard --topic candles --until 1d --why retired-bot",
    )  # fmt: skip
    _add_filters(discard)
    discard.add_argument("--why", required=True, metavar="TEXT", help="why they are given up")
    discard.add_argument("--yes", "-y", action="store_true", help="do not ask on a terminal")


def _register_list(actions: Commands) -> None:
    listing = actions.add_parser(
        "list", run=_list, help="what letters there are",
        description="Letters that are alike together on a terminal; one JSON document a letter where stdout is piped.",
        epilog="examples:\n  tradetape dlq list --since 1d\n  tradetape dlq list --state open --json | jq -r .place",
    )  # fmt: skip
    _add_filters(listing)
    listing.add_argument("--state", choices=STATES, help="only those of which this became")
    listing.add_json("JSON lines on a terminal too")


def _register_show(actions: Commands) -> None:
    show = actions.add_parser(
        "show", run=_show, help="everything that is known of one letter",
        description="A letter's headers, its reason and stack trace, and its value: decoded where it can be.",
        epilog="example:\n  tradetape dlq show history:tradetape.fills:2:1517",
    )  # fmt: skip
    show.add_argument("place", metavar="PLACE", help="worker:topic:partition:offset, as `list` gives it")
    show.add_json()


def _add_filters(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--worker", metavar="NAME", help="only those of this worker, such as history")
    parser.add_argument("--topic", metavar="TOPIC", help="only records of this topic, with or without its prefix")
    parser.add_argument("--reason", metavar="SLUG", help="only those for this reason, such as crash")
    parser.add_argument(
        "--since", metavar="WHEN", help="sent at or after a time (2026-01-31T12:00Z) or a stretch ago (2h)"
    )
    parser.add_argument("--until", metavar="WHEN", help="sent before a time or a stretch ago")
    parser.add_argument("--id", dest="event_id", metavar="EVENT_ID", help="only those of this event")


def _filter(args: argparse.Namespace, codec: Codec) -> Filter:
    from tradetape.console.letters import Filter
    from tradetape.console.topic_tail import topic_named

    return Filter(
        worker=args.worker, reason=args.reason, event_id=args.event_id, state=getattr(args, "state", None),
        topic=topic_named(codec.catalogue, args.topic) if args.topic else None,
        since_ms=_time_ms(args.since), until_ms=_time_ms(args.until),
    )  # fmt: skip


def _time_ms(text: str | None) -> int | None:
    from tradetape.console.errors import UsageError
    from tradetape.console.topic_tail import place

    if text is None:
        return None
    found = place(text).timestamp_ms
    if found is None:
        raise UsageError(f"{text!r} is no time: give one such as 2026-01-31T12:00Z, or a stretch before now such as 2h")
    return found


def _opened() -> tuple[LetterBox, Codec]:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.console.letter_box import LetterBox
    from tradetape.producers.codecs import codec_of
    from tradetape.producers.connection import KafkaSettings

    settings = effective_settings()
    codec = codec_of(settings)
    return LetterBox(KafkaSettings.of(settings), codec.catalogue), codec


def _list(args: argparse.Namespace) -> int:
    from tradetape.console.letters import groups

    box, codec = _opened()
    wanted = _filter(args, codec)
    with box:
        letters = box.letters()
    selected = list(letters.selected(wanted))
    if args.json or not sys.stdout.isatty():
        for one in selected:
            print(json.dumps(_document(one)))
    else:
        _print_groups(groups(selected))
    still_open = sum(one.state == "open" for one in selected)
    strangers = f", {letters.strangers} records that are no letters" if letters.strangers else ""
    print(f"{_counted(len(selected), 'letter')}, {still_open} of them open{strangers}.", file=sys.stderr)
    return exit_codes.OK


def _print_groups(found: Sequence[Any]) -> None:
    titles = ("worker", "topic", "reason", "state", "letters", "first", "newest")
    rows = [
        (
            one.worker,
            one.topic,
            one.reason,
            one.state,
            f"{one.letters:,}",
            _moment(one.first_at_ms),
            _moment(one.last_at_ms),
        )
        for one in found
    ]
    widths = [max(map(len, column)) for column in zip(titles, *rows, strict=True)]
    for row in (titles, *rows) if rows else ():
        print("  ".join(f"{cell:<{width}}" for cell, width in zip(row, widths, strict=True)).rstrip())


def _document(letter: Letter) -> dict[str, Any]:
    import msgspec

    times = ("first_at_ms", "last_at_ms", "record_at_ms", "marked_at_ms")
    found = msgspec.structs.asdict(letter)
    for name in times:
        at_ms = found.pop(name)
        found[name.removesuffix("_ms")] = None if at_ms is None else _moment(at_ms)
    return {"place": str(letter.identity), **found}


def _moment(at_ms: int) -> str:
    return datetime.fromtimestamp(at_ms / 1_000, UTC).isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _show(args: argparse.Namespace) -> int:
    from tradetape.console.errors import ConsoleError
    from tradetape.console.letters import Identity

    identity = Identity.read(args.place)
    box, codec = _opened()
    with box:
        letter = box.letters().get(identity)
        if letter is None:
            raise ConsoleError(f"there is no dead letter {identity}; `tradetape dlq list` gives those that there are")
        ((_, record),) = box.records([letter])
    headers = [(name, (value or b"").decode(errors="replace")) for name, value in record.headers]
    event, trouble = _decoded(letter, record, codec)
    if args.json:
        value = None if record.value is None else base64.b64encode(record.value).decode()
        document = {**_document(letter), "headers": headers, "event": event, "trouble": trouble, "value_base64": value}
        print(json.dumps(document, indent=2))
        return exit_codes.OK
    for name, told in _document(letter).items():
        if told is not None:
            print(f"{name:<17} {told}")
    print("\nheaders")
    for name, text in headers:
        print(f"  {name}: " + text.rstrip().replace("\n", "\n    "))
    print("\nvalue" + ("" if record.value is None else f", {len(record.value):,} bytes"))
    print(f"  {trouble}" if trouble else json.dumps(event, indent=2))
    if trouble and record.value:
        _print_hex(record.value)
    return exit_codes.OK


def _decoded(letter: Letter, record: Record, codec: Codec) -> tuple[Any, str | None]:
    """The event as plain JSON, or what is wrong with the value. What killed a worker is not tried again."""
    import msgspec

    from tradetape.schemas.errors import SchemasError

    if letter.reason == "crash":
        return None, "not decoded: it ends the process that decodes it"
    if letter.cut_from_bytes is not None:
        return None, f"only the beginning of {letter.cut_from_bytes:,} bytes"
    try:
        return msgspec.to_builtins(codec.decode(letter.topic, record.value)), None
    except SchemasError as error:
        return None, f"cannot be decoded: {error}"


def _print_hex(value: bytes) -> None:
    for start in range(0, min(len(value), SHOWN_BYTES), 16):
        row = value[start : start + 16]
        text = "".join(chr(byte) if 32 <= byte < 127 else "." for byte in row)
        print(f"  {start:06x}  {row.hex(' '):<47}  {text}")
    if len(value) > SHOWN_BYTES:
        print(f"  … {len(value) - SHOWN_BYTES:,} bytes more; --json has them all")


def _counted(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'s' * (count != 1)}"


def _redrive(args: argparse.Namespace) -> int:
    box, codec = _opened()
    wanted = _filter(args, codec)
    with box:
        letters = box.letters()
        outcome = box.redrive(letters.selected(wanted), letters, dry_run=args.dry_run)
    verb = "would be put back" if args.dry_run else "put back"
    print(
        f"{_counted(outcome.records, 'record')} {verb}, of {_counted(outcome.letters, 'letter')}; "
        f"{_counted(len(outcome.refused), 'letter')} refused."
    )
    for letter, why in outcome.refused:
        print(f"refused {letter.identity}: {why}", file=sys.stderr)
    return exit_codes.FAILED if outcome.refused else exit_codes.OK


def _discard(args: argparse.Namespace) -> int:
    box, codec = _opened()
    wanted = _filter(args, codec)
    with box:
        chosen = [one for one in box.letters().selected(wanted) if one.state == "open"]
        if chosen and not (args.yes or _is_confirmed(len(chosen))):
            print("Nothing was discarded.", file=sys.stderr)
            return exit_codes.FAILED
        print(f"{_counted(box.discard(chosen, why=args.why), 'letter')} discarded.")
    return exit_codes.OK


def _is_confirmed(count: int) -> bool:
    """Ask on a terminal; a script has said what it wants."""
    if not sys.stdin.isatty():
        return True
    print(f"Give up {_counted(count, 'dead letter')}? [y/N] ", end="", file=sys.stderr, flush=True)
    return sys.stdin.readline().strip().lower() in ("y", "yes")
