"""`tradetape tail TOPIC`: what is on a topic, decoded."""

from __future__ import annotations

import argparse
import sys

from tradetape.console import exit_codes
from tradetape.console.parsers import Commands

DEFAULT_COUNT = 10


def register(commands: Commands) -> None:
    """Add the command."""
    tail = commands.add_parser(
        "tail", run=_tail, help="what is on a topic, decoded",
        description="Print the newest events of a topic in the order they were emitted: lines on a terminal, one JSON "
        "document a line where stdout is piped. Reading disturbs no worker.",
        epilog="examples:\n  tradetape tail trade-signals -n 5\n  tradetape tail candles --from 2h --follow\n"
        "  tradetape tail indicator-updates --from 2026-01-01T00:00Z --to 2026-01-02T00:00Z | jq .event.values\n"
        "  tradetape tail dead-letters",
    )  # fmt: skip
    tail.add_argument("topic", metavar="TOPIC", help="a topic, with or without its prefix, or a record's name")
    tail.add_argument(
        "--from", dest="start", metavar="WHERE",
        help="from where: a time (2026-01-31T12:00Z), a stretch before now (90s, 15m, 2h, 3d), an offset of every "
        "partition (1500), or beginning; by default only the newest are shown",
    )  # fmt: skip
    tail.add_argument(
        "--to", dest="end", metavar="WHERE", help="up to, without: a time, a stretch before now, an offset"
    )
    tail.add_argument(
        "-n", type=_count, metavar="N", help=f"at most this many (default: {DEFAULT_COUNT} without --from, else all)"
    )
    tail.add_argument("--follow", "-f", action="store_true", help="go on with what comes, until Ctrl-C")
    tail.add_json("JSON lines on a terminal too")


def _count(text: str) -> int:
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def _tail(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.console.record_text import RecordText
    from tradetape.console.topic_tail import Selection, TopicTail, place, topic_named
    from tradetape.producers.codecs import codec_of
    from tradetape.producers.connection import KafkaSettings

    settings = effective_settings()
    catalogue = settings.catalogue()
    selection = Selection(
        topic=topic_named(catalogue, args.topic),
        start=place(args.start) if args.start else None,
        end=place(args.end) if args.end else None,
        limit=args.n or (None if args.start else DEFAULT_COUNT),
        follow=args.follow,
    )
    is_for_people = sys.stdout.isatty() and not args.json
    text = RecordText(codec_of(settings))
    with TopicTail(KafkaSettings.of(settings)) as tail:
        show = text.line if is_for_people else text.document
        for record in tail.records(selection):
            print(show(record), flush=args.follow)
    return exit_codes.OK
