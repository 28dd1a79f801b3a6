"""`tradetape history query`: asks a view or a shipped query of the history, with the same filters for all."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from tradetape.console import exit_codes
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from tradetape.sinks.history.reports import Answer, Report

ROWS_ON_TERMINAL = 50


def register(actions: Commands) -> None:
    """Add the command."""
    query = actions.add_parser(
        "query", run=_query, help="ask a view, or a query that is shipped",
        description="Print what a view or a shipped query says, newest first: a table on a terminal, CSV where stdout "
        "is piped. Without a name, list what there is. Nothing is changed.",
        epilog="examples:\n  tradetape history query\n  tradetape history query daily_pnl --symbol BTCUSDT\n"
        "  tradetape history query trade_journal --from 2026-01-01T00:00Z -n 20 --json | jq .decisions",
    )  # fmt: skip
    query.add_argument("name", metavar="NAME", nargs="?", help="such as trade_journal or daily_pnl")
    query.add_argument(
        "--from", dest="start", metavar="TIME", help="from this time on: 2026-01-31T12:00Z, or 2h before now"
    )
    query.add_argument("--to", dest="end", metavar="TIME", help="up to this time, without it")
    query.add_argument("--symbol", metavar="SYMBOL", help="only of this symbol, such as BTCUSDT")
    query.add_argument("--venue", metavar="VENUE", help="only of this venue, such as binance")
    query.add_argument(
        "-n", type=count, metavar="N", help=f"at most this many (default: {ROWS_ON_TERMINAL} on a terminal, else all)"
    )
    form = query.add_mutually_exclusive_group()
    form.add_argument("--csv", action="store_true", help="CSV, on a terminal too")
    form.add_argument("--json", action="store_true", help="one JSON document a line; decimals are text")


def count(text: str) -> int:
    """A number of 1 or more."""
    if int(text) < 1:
        raise argparse.ArgumentTypeError("must be 1 or more")
    return int(text)


def instant(text: str | None) -> datetime | None:
    """A time as people write it, None for none. Raises UsageError."""
    from tradetape.console import topic_tail

    return None if text is None else topic_tail.instant(text, now=lambda: datetime.now(UTC))


def _query(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.console.errors import UsageError
    from tradetape.console.table_text import is_for_people
    from tradetape.sinks.errors import ReportUnknown
    from tradetape.sinks.history import reports

    is_table = is_for_people() and not (args.csv or args.json)
    limit = args.n or (ROWS_ON_TERMINAL if is_table else None)
    which = reports.Filter(instant(args.start), instant(args.end), args.symbol, args.venue, limit)
    with reports.reading(settings().required("DATABASE_URL")) as connection:
        known = reports.reports(connection)
        if args.name is None:
            return _list(known, args)
        try:
            answer = reports.ask(connection, reports.named(known, args.name), which)
        except ReportUnknown as error:
            raise UsageError(str(error)) from error
        lines = 0
        for line in _lines(answer, args, is_table=is_table):
            print(line)
            lines += 1
    if is_table and args.n is None and lines > ROWS_ON_TERMINAL:
        print(f"The newest {ROWS_ON_TERMINAL}; -n shows more.", file=sys.stderr)
    return exit_codes.OK


def _lines(answer: Answer, args: argparse.Namespace, *, is_table: bool) -> Iterator[str]:
    from tradetape.console.table_text import csv_lines, json_lines, table

    show = json_lines if args.json else table if is_table else csv_lines
    return show(answer.columns, answer.rows)


def _list(known: list[Report], args: argparse.Namespace) -> int:
    from tradetape.console.table_text import csv_lines, json_lines

    if args.json or args.csv:
        show = json_lines if args.json else csv_lines
        for line in show(("name", "comment"), [(one.name, one.comment) for one in known]):
            print(line)
        return exit_codes.OK
    width = max(len(one.name) for one in known)
    for one in known:
        print(f"{one.name:<{width}}  {one.comment}")
    return exit_codes.OK
