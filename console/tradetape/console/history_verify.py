"""`tradetape history verify`: whether the history holds what is on the tape, column by column."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING

from tradetape.console import exit_codes
from tradetape.console.history_query import instant
from tradetape.console.json_text import print_json
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from tradetape.schemas import Catalogue, EventType
    from tradetape.sinks.history.verification import Finding

KINDS = ("equal", "missing", "extra", "different", "refused", "pending", "dropped", "unchecked")


def register(actions: Commands) -> None:
    """Add the command."""
    verify = actions.add_parser(
        "verify", run=_verify, help="compare the history with the tape, by content",
        description="Read topics and tables for a stretch of event time and compare each event with its row, every "
        "column. refused: among the sink's dead letters; pending: not come to yet; dropped: by retention; unchecked: "
        "rows whose records are not on the tape (any more). Exit code 4 when a row is missing, extra or different.",
        epilog="examples:\n  tradetape history verify --from 2d\n"
        "  tradetape history verify --from 2026-01-01T00:00Z --to 2026-02-01T00:00Z --topics fills,trades",
    )  # fmt: skip
    verify.add_argument(
        "--from", dest="start", metavar="TIME", help="from this event time on: 2026-01-31T12:00Z, or 2h before now"
    )
    verify.add_argument("--to", dest="end", metavar="TIME", help="up to this event time, without it")
    verify.add_argument("--topics", metavar="TOPIC,…", help="only these, with or without prefix (default: all)")
    verify.add_json()


def _verify(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.producers.codecs import codec_of
    from tradetape.producers.connection import KafkaSettings
    from tradetape.sinks.history import reports
    from tradetape.sinks.history.verification import Verification
    from tradetape.streams.groups import TopicIds
    from tradetape.streams.topic_reader import TopicReader

    settings = effective_settings()
    kafka, codec = KafkaSettings.of(settings), codec_of(settings)
    event_types = _event_types(codec.catalogue, args.topics)
    start, end = instant(args.start), instant(args.end)
    reader = TopicReader(kafka)
    try:
        with reports.reading(settings.required("DATABASE_URL")) as connection:
            verification = Verification(connection=connection, reader=reader, codec=codec, topic_uuid=TopicIds(kafka))
            findings = list(verification.run(event_types, start, end))
    finally:
        reader.close()
    (_print_json if args.json else _print_text)(findings)
    return exit_codes.OK if all(one.is_right for one in findings) else exit_codes.BAD_DATA


def _event_types(catalogue: Catalogue, names: str | None) -> list[EventType]:
    from tradetape.console.errors import UsageError
    from tradetape.console.topic_tail import topic_named

    if names is None:
        return list(catalogue)
    topics = {topic_named(catalogue, name.strip()) for name in names.split(",")}
    if catalogue.dead_letters_topic in topics:
        raise UsageError("dead letters have no table to be compared with")
    return [one for one in catalogue if catalogue.topic_name(one) in topics]


def _print_json(findings: list[Finding]) -> None:
    documents = [
        {
            "topic": one.topic,
            "table": one.table,
            **{kind: one.counts[kind] for kind in KINDS},
            "examples": [example._asdict() for example in one.examples],
        }
        for one in findings
    ]
    print_json(documents)


def _print_text(findings: list[Finding]) -> None:
    from tradetape.console.table_text import table, text

    for line in table(("topic", *KINDS), [(one.topic, *(one.counts[kind] for kind in KINDS)) for one in findings]):
        print(line)
    for one in findings:
        for example in one.examples:
            columns = f": {', '.join(example.columns)}" if example.columns else ""
            print(f"{example.kind} {example.event_id} {text(example.event_time)} {example.place}{columns}")
    if not all(one.is_right for one in findings):
        print("The history is not what is on the tape.", file=sys.stderr)
