"""`tradetape dispatch …`: what was handed to executors, and the last word on orders in doubt."""

from __future__ import annotations

import argparse
import sys

from tradetape.console import exit_codes
from tradetape.console.errors import UsageError
from tradetape.console.parsers import Commands

LISTED = 50
COLUMNS = (
    "intended_at", "venue", "symbol", "trade_id", "leg_index", "attempt", "executor", "outcome", "external_id", "error",
    "resolved_why",
)  # fmt: skip


def register(commands: Commands) -> None:
    """Add the commands of the dispatch."""
    dispatch = commands.add_parser(
        "dispatch", help="orders handed to executors",
        epilog="examples:\n  tradetape dispatch list --in-doubt\n"
        '  tradetape dispatch resolve TRADE_ID 0 --why "not among the orders there" --as failed',
    )  # fmt: skip
    actions = dispatch.actions()
    listed = actions.add_parser(
        "list", run=_list, help="attempts and what became of them",
        description="The newest attempts, those without a final word first.",
        epilog="example:\n  tradetape dispatch list --in-doubt",
    )  # fmt: skip
    listed.add_argument("--in-doubt", action="store_true", help="only those that wait for a person")
    listed.add_argument("-n", "--limit", type=int, default=LISTED, metavar="N", help="at most N (default: %(default)s)")
    listed.add_json("JSON lines")
    resolve = actions.add_parser(
        "resolve", run=_resolve, help="say what became of an order in doubt",
        description="Give an order in doubt its outcome, in the table and on the tape. Nothing is sent.",
        epilog='example:\n  tradetape dispatch resolve TRADE_ID 0 --why "order 4711 at the venue" --as filled',
    )  # fmt: skip
    resolve.add_argument("trade_id", metavar="TRADE_ID", help="the trade")
    resolve.add_argument("leg_index", metavar="LEG", type=int, help="which leg of it, from 0")
    resolve.add_argument(
        "--as", dest="meaning", required=True, choices=("filled", "accepted", "failed", "expired"),
        help="filled or accepted: the far side has it; failed or expired: it never will",
    )  # fmt: skip
    resolve.add_argument("--why", required=True, help="how that is known; kept on the tape")
    resolve.add_argument("--external-id", metavar="ID", help="the far side's id of the order")


def _list(args: argparse.Namespace) -> int:
    from tradetape.console import table_text
    from tradetape.console.environment import settings
    from tradetape.sinks.dispatch.intents import statement
    from tradetape.sinks.history.connection import connect, passing_errors

    dsn = settings().required("DATABASE_URL")
    with passing_errors(), connect(dsn, application="tradetape-dispatch-list") as connection:
        given = {"in_doubt": args.in_doubt, "limit": args.limit}
        rows = connection.execute(statement("listed"), given).fetchall()
    is_for_programs = args.json or not table_text.is_for_people()
    for line in (table_text.json_lines if is_for_programs else table_text.table)(COLUMNS, rows):
        print(line)
    if not rows:
        print("No order is in doubt." if args.in_doubt else "No order was dispatched yet.", file=sys.stderr)
    return exit_codes.OK


def _resolve(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.producers.codecs import codec_of
    from tradetape.producers.connection import KafkaSettings
    from tradetape.sinks.dispatch.resolution import resolve
    from tradetape.sinks.dispatch.telling import Telling
    from tradetape.sinks.history.connection import connect
    from tradetape.streams.effects import KafkaEffects

    if not args.why.strip():
        raise UsageError("--why must say how that is known")
    effective = settings()
    effects = KafkaEffects(worker="dispatch-resolve", codec=codec_of(effective), kafka=KafkaSettings.of(effective))
    try:
        with connect(effective.required("DATABASE_URL"), application="tradetape-dispatch-resolve") as connection:
            attempt = resolve(
                connection, Telling(effects).tell, trade_id=args.trade_id, leg_index=args.leg_index,
                meaning=args.meaning, why=args.why, external_id=args.external_id,
            )  # fmt: skip
    finally:
        effects.close()
    assert attempt.outcome is not None
    print(f"{attempt.trade_id} leg {attempt.leg_index}: {attempt.outcome.value}")
    return exit_codes.OK
