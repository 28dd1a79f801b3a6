"""`tradetape history partitions`, `retain`, `roles`, `promote-indicator`: months, rights and columns of the history."""

from __future__ import annotations

import argparse
import json
import sys

from tradetape.console import exit_codes
from tradetape.console.history_query import count
from tradetape.console.parsers import Commands

_COLUMNS = ("table", "month", "rows", "bytes", "first", "last")


def register(actions: Commands) -> None:
    """Add the commands."""
    partitions = actions.add_parser(
        "partitions", run=_partitions, help="the months of each table: rows, bytes, first and last event",
        description="Print every month of the history. Rows with ~ are PostgreSQL's own estimate.",
        epilog="example:\n  tradetape history partitions --table candles",
    )  # fmt: skip
    partitions.add_argument("--table", metavar="TABLE", help="only of this table")
    partitions.add_json()
    retain = actions.add_parser(
        "retain", run=_retain, help="drop old months of market data",
        description="Drop the months before the current one and the N before it, one by one. Without --apply only say "
        "which. Decisions and money are kept for ever: only tables listed in tradetape.retention lose months.",
        epilog="examples:\n  tradetape history retain --months 24\n"
        "  tradetape history retain --months 6 --table candles --apply",
    )  # fmt: skip
    retain.add_argument(
        "--months", type=count, required=True, metavar="N", help="how many months before the current one to keep"
    )
    retain.add_argument(
        "--table", action="append", default=[], metavar="TABLE", help="only of this table; may be given again"
    )
    retain.add_argument("--apply", action="store_true", help="do it")
    roles = actions.add_parser(
        "roles", run=_roles, help="roles with least rights: owner, sink, reader, retention",
        description="Make the roles tradetape_owner, tradetape_sink, tradetape_reader and tradetape_retention, and give "
        "them their rights; or print the statements. They have no login: GRANT them to the users that have one. All "
        "workers of one sink log in as one user.",
        epilog="examples:\n  tradetape history roles --print\n  tradetape history roles --apply",
    )  # fmt: skip
    form = roles.add_mutually_exclusive_group(required=True)
    form.add_argument("--print", action="store_true", dest="is_printed", help="print the statements")
    form.add_argument("--apply", action="store_true", help="do it; harmless when done already")
    promote = actions.add_parser(
        "promote-indicator", run=_promote, help="give an indicator a column of its own",
        description="Give an indicator that lies in `extra` a column of indicator_updates, and move its values there, "
        "while sinks go on writing. Harmless when done already.",
        epilog="example:\n  tradetape history promote-indicator rsi_21",
    )  # fmt: skip
    promote.add_argument("name", metavar="NAME", help="its name in extra, such as rsi_21")


def _partitions(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.console.table_text import table, text
    from tradetape.sinks.history import reports, retention

    with reports.reading(settings().required("DATABASE_URL")) as connection:
        months = list(retention.months(connection, args.table))
    if args.json:
        documents = [
            {**one._asdict(), "month": f"{one.month:%Y-%m}", "first": text(one.first), "last": text(one.last)}
            for one in months
        ]
        print(json.dumps(documents, indent=2))
        return exit_codes.OK
    rows = [
        (
            one.table,
            f"{one.month:%Y-%m}",
            f"{'~' if one.is_estimate else ''}{one.rows:,}",
            one.bytes,
            one.first,
            one.last,
        )
        for one in months
    ]
    for line in table(_COLUMNS, rows):
        print(line)
    return exit_codes.OK


def _retain(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.console.errors import UsageError
    from tradetape.sinks.errors import RetentionRefused
    from tradetape.sinks.history import retention
    from tradetape.sinks.history.connection import connect

    with connect(settings().required("DATABASE_URL"), application="tradetape-retention") as connection:
        try:
            expired = retention.expired(connection, keep_months=args.months, tables=args.table)
        except RetentionRefused as error:
            raise UsageError(str(error)) from error
        for one in expired:
            if args.apply and not retention.drop(connection, one):
                continue
            print(f"{'dropped' if args.apply else 'would drop'} {one.table} {one.month:%Y-%m}, {one.bytes:,} bytes")
    if not expired:
        print("No month is that old.", file=sys.stderr)
    elif not args.apply:
        print("Nothing was dropped; --apply does it.", file=sys.stderr)
    return exit_codes.OK


def _roles(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.sinks.history import roles
    from tradetape.sinks.history.connection import connect

    if args.is_printed:
        print(roles.text(), end="")
        return exit_codes.OK
    with connect(settings().required("DATABASE_URL"), application="tradetape-roles") as connection:
        roles.apply(connection)
    print("The roles have their rights; `GRANT tradetape_sink TO …` gives one to a login.", file=sys.stderr)
    return exit_codes.OK


def _promote(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.sinks.history.connection import connect
    from tradetape.sinks.history.promotion import promote

    with connect(settings().required("DATABASE_URL"), application="tradetape-promotion") as connection:
        found = promote(connection, args.name)
    print(f"{'added' if found.is_new else 'found'} column {args.name}, moved {found.rows:,} values into it")
    if found.has_old_sinks:
        print("A running sink may not know the column: restart it, and run this again.", file=sys.stderr)
    return exit_codes.OK
