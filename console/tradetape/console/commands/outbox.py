"""`tradetape outbox …`: the decisions that wait on this machine's disk for Kafka."""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TextIO

from tradetape.console import exit_codes
from tradetape.console.json_text import print_json
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from tradetape.console.outboxes import Flushed, Summary
    from tradetape.producers.outbox.reading import OutboxReader
    from tradetape.producers.outbox.salvage import Salvage
    from tradetape.producers.settings import Settings

DEFAULT_COUNT = 10
TIMEOUT_S = 30.0
_WHERE = "The outboxes of TRADETAPE_OUTBOX_DIR, or where that is not set of the platform's folder for state"


def register(commands: Commands) -> None:
    """Add the commands of outboxes."""
    outbox = commands.add_parser(
        "outbox", help="the decisions that wait on disk for Kafka",
        description=f"{_WHERE}. Each source has one; looking takes nothing from a running bot.",
        epilog="examples:\n  tradetape outbox list\n  tradetape outbox flush rsi-bot",
    )  # fmt: skip
    actions = outbox.actions()
    listing = actions.add_parser(
        "list", run=_list, help="every outbox, what waits in it, and who owns it",
        description=f"{_WHERE}: what waits, what is parked because its topic refused it, which bot runs, and which "
        "files were corrupt and set aside. Exit code 4 where one cannot be read.",
        epilog="example:\n  tradetape outbox list --json",
    )  # fmt: skip
    listing.add_json()
    show = actions.add_parser(
        "show", run=_show, help="the decisions in an outbox, decoded",
        description="Print what waits or is parked, the oldest first: lines on a terminal, one JSON document a line "
        "where stdout is piped. A file that was set aside is read from a copy, as far as it can be; exit code 4 where "
        "something of it cannot. TRADETAPE_OUTBOX_DIR says where outboxes are.",
        epilog="examples:\n  tradetape outbox show rsi-bot -n 5\n  tradetape outbox show rsi-bot --parked\n"
        "  tradetape outbox show rsi-bot --file corrupt-20260131T120000000000Z-outbox.sqlite3",
    )  # fmt: skip
    _add_what_to_read(show)
    show.add_argument(
        "-n", type=_count, metavar="N", help=f"at most this many (default: {DEFAULT_COUNT}, all with --file)"
    )
    show.add_argument("--parked", action="store_true", help="only what is parked, with the cause")
    show.add_json("JSON lines on a terminal too")
    flush = actions.add_parser(
        "flush", run=_flush, help="send what waits, for a bot that does not run",
        description="Send what waits to KAFKA_BOOTSTRAP_SERVERS, in order, as the bot's own producer would. Exit code 0 "
        "when all is delivered, 3 when some still waits, 1 when the bot runs (and sends it itself) or a topic refuses "
        "an event, 4 when a file turned out to be corrupt. TRADETAPE_OUTBOX_DIR says where outboxes are.",
        epilog="examples:\n  tradetape outbox flush\n  tradetape outbox flush rsi-bot --parked --timeout 120",
    )  # fmt: skip
    flush.add_argument("sources", metavar="SOURCE", nargs="*", help="whose outbox; all by default")
    flush.add_argument("--parked", action="store_true", help="let what is parked wait again first")
    flush.add_argument(
        "--timeout", type=_seconds, default=TIMEOUT_S, metavar="S",
        help="how many seconds each outbox may take (default: %(default)g)",
    )  # fmt: skip
    flush.add_json()
    export = actions.add_parser(
        "export", run=_export, help="everything in an outbox as JSON lines",
        description="Write everything that waits or is parked, one JSON document a line, complete enough to emit it "
        "again; what cannot be decoded stands there in base64. Exit code 4 where something cannot be read. "
        "TRADETAPE_OUTBOX_DIR says where outboxes are.",
        epilog="example:\n  tradetape outbox export rsi-bot --output rsi-bot.ndjson",
    )  # fmt: skip
    _add_what_to_read(export)
    export.add_argument("--output", metavar="FILE", help="a new file to write to; stdout by default")


def _add_what_to_read(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("source", metavar="SOURCE", nargs="?", help="whose outbox; may be left out with --file")
    parser.add_argument(
        "--file", metavar="FILE", help="another outbox file: one that was set aside in the source's folder, or a path"
    )


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"{text!r} is not a whole number above 0")
    return int(text)


def _seconds(text: str) -> float:
    try:
        seconds = float(text)
    except ValueError:
        seconds = -1.0
    if not 0 <= seconds < float("inf"):
        raise argparse.ArgumentTypeError(f"{text!r} is no number of seconds")
    return seconds


def _settings() -> tuple[Settings, Path]:
    """The settings, and the folder of the outboxes."""
    from tradetape.console.environment import settings as effective_settings
    from tradetape.producers.producer import default_outbox_dir

    settings = effective_settings()
    return settings, Path(settings.outbox_dir) if settings.outbox_dir else default_outbox_dir()


def _list(args: argparse.Namespace) -> int:
    from tradetape.console.outboxes import outboxes, summary

    _, root = _settings()
    found = [summary(folder) for folder in outboxes(root)]
    if args.json:
        print_json(found)
    elif found:
        _print_table(found)
    _print_notes(found, root)
    return exit_codes.BAD_DATA if any(one.trouble for one in found) else exit_codes.OK


def _print_table(found: list[Summary]) -> None:
    width = max(len("source"), *(len(one.source) for one in found))
    print(f"{'source':<{width}}  {'waiting':>8}  {'parked':>7}  {'bytes':>13}  {'oldest':>8}  owner")
    for one in found:
        age = "" if one.oldest_age_s is None else _age(one.oldest_age_s)
        numbers = f"{_number(one.events):>8}  {_number(one.parked):>7}  {_number(one.bytes):>13}  {age:>8}"
        print(f"{one.source:<{width}}  {numbers}  {one.owner or 'nobody: its bot does not run'}")


def _number(value: int | None) -> str:
    return "?" if value is None else f"{value:,}"


def _age(seconds: float) -> str:
    for unit, length_s in (("d", 86_400), ("h", 3_600), ("m", 60)):
        if seconds >= 2 * length_s:
            return f"{seconds / length_s:.0f} {unit}"
    return f"{seconds:.0f} s"


def _print_notes(found: list[Summary], root: Path) -> None:
    if not found:
        _say(f"There is no outbox in {root}.")
    for one in found:
        if one.trouble:
            ways = "the running bot's health() tells" if one.owner else f"`tradetape outbox show {one.source}` may"
            _say(f"{one.trouble}; {ways} what it holds")
        for file in one.set_aside:
            _say(f"{one.source}: {file} was corrupt; `tradetape outbox show --file` reads what is readable")
    if any(one.events and not one.owner for one in found):
        _say("`tradetape outbox flush` sends what waits where no bot runs.")


def _show(args: argparse.Namespace) -> int:
    from tradetape.console.outbox_text import OutboxText
    from tradetape.console.outboxes import file_of, opened
    from tradetape.producers.codecs import codec_of

    settings, root = _settings()
    path = file_of(root, args.source, args.file)
    text = OutboxText(codec_of(settings))
    show = text.line if sys.stdout.isatty() and not args.json else text.document
    limit = args.n or (None if args.file else DEFAULT_COUNT)
    with opened(path) as reader:
        wanted = (one for one in reader.entries() if one.cause is not None or not args.parked)
        for entry in islice(wanted, limit):
            print(show(entry))
        if next(wanted, None) is not None:
            _say("There are more: -n shows more of them, `tradetape outbox export` gives all.")
        return _judge(reader)


def _export(args: argparse.Namespace) -> int:
    from tradetape.console.errors import ConsoleError
    from tradetape.console.outbox_text import OutboxText
    from tradetape.console.outboxes import file_of, opened
    from tradetape.producers.codecs import codec_of

    settings, root = _settings()
    path = file_of(root, args.source, args.file)
    text = OutboxText(codec_of(settings))
    with opened(path) as reader:
        lines = (text.document(entry) for entry in reader.entries())
        if args.output is None:
            written = _write(lines, sys.stdout)
        else:
            try:
                # Nobody else's business, as the outbox itself.
                fd = os.open(args.output, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
                with open(fd, "w", encoding="utf-8") as output:
                    written = _write(lines, output)
            except OSError as error:
                raise ConsoleError(f"{args.output} cannot be written: {error.strerror}") from error
        _say(f"{written:,} events exported.")
        return _judge(reader)


def _write(lines: Iterator[str], output: TextIO) -> int:
    count = 0
    for count, line in enumerate(lines, 1):  # noqa: B007  # the last one counts
        print(line, file=output)
    return count


def _judge(reader: OutboxReader | Salvage) -> int:
    for one in reader.unread:
        _say(f"cannot be read: {one}")
    return exit_codes.BAD_DATA if reader.unread else exit_codes.OK


def _flush(args: argparse.Namespace) -> int:
    from tradetape.console.outboxes import flush, outbox_of, outboxes
    from tradetape.producers.connection import KafkaSettings
    from tradetape.producers.errors import OutboxError

    settings, root = _settings()
    kafka = KafkaSettings.of(settings)
    folders = [outbox_of(root, source) for source in args.sources] or outboxes(root)
    if not folders:
        _say(f"There is no outbox in {root}.")
    flushed, code = [], exit_codes.OK
    for folder in folders:
        try:
            one = flush(folder, kafka, unpark=args.parked, timeout_s=args.timeout, durability=settings.durability)
        except OutboxError as error:
            _say(f"{folder.name}: {error}")
            code = max(code, exit_codes.FAILED)
        else:
            flushed.append(one)
            code = max(code, _told(one))
            if not args.json:
                print(_line(one))
    if args.json:
        print_json(flushed)
    return code


def _line(one: Flushed) -> str:
    waiting = f", {one.waiting:,} still wait" if one.waiting else ""
    refused = f", {one.refused:,} refused and parked" if one.refused else ""
    return f"{one.source}  {one.delivered:,} delivered{waiting}{refused}"


def _told(one: Flushed) -> int:
    """Say what is not as it should be; the exit code for it."""
    code = exit_codes.OK
    if one.parked_before:
        _say(f"{one.source}: {one.parked_before:,} are parked; --parked tries them again")
    if one.refused:
        _say(f"{one.source}: `tradetape outbox show {one.source} --parked` tells why they were refused")
        code = exit_codes.FAILED
    if one.waiting:
        _say(f"{one.source}: {one.why}")
        code = exit_codes.UNREACHABLE
    for file in one.set_aside:
        _say(f"{one.source}: {file} was corrupt, and is set aside; `tradetape outbox export --file` saves its events")
        code = exit_codes.BAD_DATA
    return code


def _say(text: str) -> None:
    print(text, file=sys.stderr)
