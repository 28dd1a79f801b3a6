"""`tradetape replay`: a stretch of the tape once more. This is the composition: request in, reading and target out."""

from __future__ import annotations

import argparse
import signal
import sys
import threading
import time
from contextlib import closing
from types import FrameType
from typing import TYPE_CHECKING

from tradetape.console import exit_codes
from tradetape.console.json_text import print_json
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from tradetape.console.replay_run import ReplayRun
    from tradetape.producers.settings import Settings
    from tradetape.sinks.replay.plan import Request
    from tradetape.sinks.replay.replay import Summary


def register(commands: Commands) -> None:
    """Add the command."""
    replay = commands.add_parser(
        "replay", run=_replay, help="a stretch of the tape once more",
        description="Replay the events of a stretch of time, up to the tape's end at the start, into the history, "
        "current state, other topics or lines. No worker is disturbed and no trade is dispatched. Exit code 4 where "
        "records could not be replayed, or a copy of the history differs from the live one.",
        epilog="examples:\n  tradetape replay --from 2026-01-01T00:00Z --to 2026-02-01T00:00Z --into history\n"
        "  tradetape replay --into history --schema rebuilt\n"
        "  tradetape replay --into state --prefix lastmonth --at 2026-01-31T12:00Z\n"
        "  tradetape replay --from 2h --topics candles,trade-signals --into topics:rehearsal. --speed 10x\n"
        "  tradetape replay --from 1d --topics fills --into stdout | jq .event.price\n"
        "  tradetape replay --list",
    )  # fmt: skip
    replay.add_argument(
        "--into", metavar="TARGET",
        help="history, state, topic:NAME (one topic), topics:PREFIX (each topic under another prefix), stdout (JSON lines)",
    )  # fmt: skip
    replay.add_argument(
        "--from", dest="start", metavar="TIME",
        help="events from this event time on: 2026-01-31T12:00Z, or a stretch before now (90s, 15m, 2h, 3d); by "
        "default from the tape's beginning",
    )  # fmt: skip
    replay.add_argument(
        "--to", dest="end", metavar="TIME", help="events before this event time; by default up to the end"
    )
    replay.add_argument(
        "--topics", metavar="NAMES", help="which, comma-separated, with or without prefix; by default all of events"
    )
    replay.add_argument(
        "--speed", default="max", metavar="SPEED",
        help="the pace of event time: 1x, 10x, …, or max (default: %(default)s)",
    )  # fmt: skip
    replay.add_argument(
        "--dry-run", action="store_true", help="write nothing anywhere, only count what would be written"
    )
    replay.add_argument(
        "--schema", metavar="NAME", help="history: make a copy in a new schema, and compare it with the live one"
    )
    replay.add_argument("--prefix", metavar="PREFIX", help="state: build the past under this Redis prefix")
    replay.add_argument("--at", metavar="TIME", help="state: as it was at this event time (default: that of --to)")
    replay.add_argument(
        "--verbatim", action="store_true", help="topics: the bytes as they are, run modes too; else run_mode is REPLAY"
    )
    replay.add_argument("--resume", metavar="RUN", help="go on with a run that was interrupted")
    replay.add_argument("--list", action="store_true", help="show the newest runs and how they ended")
    replay.add_argument(
        "--json", action="store_true", help="the summary as one JSON document (on stderr where events go to stdout)"
    )


def _replay(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.console.errors import UsageError
    from tradetape.sinks.errors import ReplayRefused, ReplayStopped, SchemaNameRefused

    settings = effective_settings()
    stop = threading.Event()
    caught: list[int] = []

    def asked(number: int, _: FrameType | None) -> None:
        caught.append(number)
        stop.set()

    try:
        if args.list:
            return _list(settings, as_json=args.json)
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, asked)
        return _carry_out(args, settings, stop)
    except (ReplayRefused, SchemaNameRefused) as error:
        raise UsageError(str(error)) from error
    except ReplayStopped:
        return 128 + caught[-1]


def _list(settings: Settings, *, as_json: bool) -> int:
    from tradetape.console.replay_view import listed
    from tradetape.sinks.replay.runs import RunBook

    with closing(RunBook(settings.required("DATABASE_URL"))) as book:
        found = book.newest()
    if as_json:
        print_json([one._asdict() for one in found])
    elif found:
        print("\n".join(listed(found)))
    else:
        print("No replay was run yet.", file=sys.stderr)
    return exit_codes.OK


def _carry_out(args: argparse.Namespace, settings: Settings, stop: threading.Event) -> int:
    from tradetape.console import replay_view
    from tradetape.console.errors import UsageError
    from tradetape.console.replay_run import ReplayRun
    from tradetape.sinks.errors import ReplayStopped
    from tradetape.sinks.replay.runs import DONE

    with ReplayRun(settings, is_dry=args.dry_run) as run:
        if args.resume and args.dry_run:
            raise UsageError("--resume goes on writing: leave out --dry-run, or plan a new replay")
        if args.resume:
            run.resume(args.resume)
        else:
            run.begin(_request(args, settings))
        if not args.dry_run:
            _say(f"run {run.run_id}" if run.run_id else "This run is not recorded: DATABASE_URL is not set.")
        began = time.monotonic()
        try:
            with replay_view.bar(is_wanted=sys.stderr.isatty() and not args.json) as tell:
                summary = run.carry_out(stop=stop, tell=tell)
        except ReplayStopped:
            _say(f"Interrupted; `tradetape replay --resume {run.run_id}` goes on." if run.run_id else "Interrupted.")
            raise
        _show(run, summary, time.monotonic() - began, as_json=args.json)
    return exit_codes.OK if summary.outcome == DONE else exit_codes.BAD_DATA


def _request(args: argparse.Namespace, settings: Settings) -> Request:
    from tradetape.console.errors import UsageError
    from tradetape.console.replay_run import refuse_unfit
    from tradetape.console.topic_tail import instant, topic_named
    from tradetape.schemas import times
    from tradetape.sinks.replay.plan import STATE, Request, parse_into, parse_speed
    from tradetape.streams.processors.current_state import RECORDS

    if not args.into:
        raise UsageError("say with --into where the events go: history, state, topic:NAME, topics:PREFIX, stdout")
    kind, name = parse_into(args.into)
    catalogue = settings.catalogue()
    projected = [catalogue.topic_name(catalogue.by_record(record)) for record in RECORDS]
    topics = [topic_named(catalogue, one.strip()) for one in args.topics.split(",")] if args.topics else []
    if unfit := [
        one for one in topics if one == catalogue.dead_letters_topic or (kind == STATE and one not in projected)
    ]:
        raise UsageError(f"{unfit[0]} cannot be replayed into {args.into}")
    start_us, end_us, at_us = (
        None if text is None else times.from_datetime(instant(text)) for text in (args.start, args.end, args.at)
    )
    speed = parse_speed(args.speed)
    if kind == STATE and args.prefix is not None and speed is None and at_us is None:
        at_us = times.from_datetime(instant("0s")) if end_us is None else end_us - 1
    request = Request(
        kind=kind, name=name, start_us=start_us, end_us=end_us, speed=speed, schema=args.schema, prefix=args.prefix,
        topics=tuple(dict.fromkeys(topics or (projected if kind == STATE else ()))), at_us=at_us, verbatim=args.verbatim,
    )  # fmt: skip
    refuse_unfit(request)
    return request


def _show(run: ReplayRun, summary: Summary, took_s: float, *, as_json: bool) -> None:
    import msgspec

    from tradetape.console import replay_view
    from tradetape.sinks.replay.plan import STDOUT

    into, outcome, counts, differences = (
        run.plan.request.into, summary.outcome, summary.counts, summary.differences
    )  # fmt: skip
    if as_json:
        document = replay_view.document(
            run_id=run.run_id, outcome=outcome, counts=counts, differences=differences, took_s=took_s
        )
        print(msgspec.json.encode(document).decode(), file=sys.stderr if into == STDOUT else sys.stdout)
        return
    if differences:
        print("\n".join(replay_view.table(differences)))
    _say("\n".join(replay_view.lines(into=into, outcome=outcome, counts=counts, took_s=took_s)))


def _say(text: str) -> None:
    print(text, file=sys.stderr)
