"""`tradetape dispatch …`: what was handed to executors, and the last word on orders in doubt."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from datetime import datetime
from decimal import Decimal, InvalidOperation
from typing import TYPE_CHECKING

from tradetape.console import exit_codes
from tradetape.console.errors import UsageError
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from tradetape.producers.connection import KafkaSettings
    from tradetape.schemas import Codec, Fill
    from tradetape.sinks.dispatch.job import Attempt

LISTED = 50
FILLED = "filled"
LARGEST_AMOUNT = Decimal(10) ** 20
FILL_OPTIONS = ("price", "quantity", "fee", "fee_asset", "at")
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
        description="Give an order in doubt its outcome, in the table and on the tape. Nothing is sent.\n\n"
        "filled: the far side has carried it out; its fill goes onto the tape. accepted: the far side has it,\n"
        "and whoever else emits fills will emit its own. failed, expired: it never will have it.",
        epilog="examples:\n"
        '  tradetape dispatch resolve TRADE_ID 0 --why "order 4711 there" --as filled --price 64123.1 --quantity 0.5\n'
        '  tradetape dispatch resolve TRADE_ID 0 --why "not among the orders there" --as failed',
    )  # fmt: skip
    resolve.add_argument("trade_id", metavar="TRADE_ID", help="the trade")
    resolve.add_argument("leg_index", metavar="LEG", type=int, help="which leg of it, from 0")
    resolve.add_argument(
        "--as", dest="meaning", required=True, choices=("filled", "accepted", "failed", "expired"),
        help="what became of it",
    )  # fmt: skip
    resolve.add_argument("--why", required=True, help="how that is known; kept on the tape")
    resolve.add_argument("--external-id", metavar="ID", help="the far side's id of the order")
    fill = resolve.add_argument_group("fill", "with --as filled")
    fill.add_argument("--price", type=_positive, metavar="P", help="average price of all of it, in quote currency")
    fill.add_argument("--quantity", type=_positive, metavar="Q", help="how much, in base currency")
    fill.add_argument("--fee", type=_decimal, metavar="F", help="fee paid")
    fill.add_argument("--fee-asset", metavar="ASSET", help="what the fee was paid in (default: the quote currency)")
    fill.add_argument("--at", type=_time, metavar="TIME", help="when, ISO 8601 (default: when it was handed over)")


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

    _check(args)
    effective = settings()
    dsn = effective.required("DATABASE_URL")
    codec, kafka = codec_of(effective), KafkaSettings.of(effective)
    fill_of = _fill_of(args, codec, kafka) if args.meaning == FILLED else None
    effects = KafkaEffects(worker="dispatch-resolve", codec=codec, kafka=kafka)
    try:
        with connect(dsn, application="tradetape-dispatch-resolve") as connection:
            attempt = resolve(
                connection, Telling(effects).tell, trade_id=args.trade_id, leg_index=args.leg_index,
                meaning=args.meaning, why=args.why, external_id=args.external_id, fill_of=fill_of,
            )  # fmt: skip
    finally:
        effects.close()
    assert attempt.outcome is not None
    print(f"{attempt.trade_id} leg {attempt.leg_index}: {attempt.outcome.value}")
    return exit_codes.OK


def _check(args: argparse.Namespace) -> None:
    if not args.why.strip():
        raise UsageError("--why must say how that is known")
    given = [f"--{name.replace('_', '-')}" for name in FILL_OPTIONS if getattr(args, name) is not None]
    if args.meaning != FILLED and given:
        raise UsageError(f"{given[0]} goes with --as {FILLED} alone")
    if args.meaning == FILLED and (args.price is None or args.quantity is None):
        raise UsageError(
            f"--as {FILLED} needs --price and --quantity, for nobody else will tell of that fill; "
            "where somebody will, it is --as accepted"
        )
    if args.fee_asset is not None and args.fee is None:
        raise UsageError("--fee-asset needs --fee")
    if args.meaning == FILLED and args.price * args.quantity >= LARGEST_AMOUNT:
        raise UsageError("--price times --quantity is more than any event can hold")


def _fill_of(args: argparse.Namespace, codec: Codec, kafka: KafkaSettings) -> Callable[[Attempt], Fill]:
    """What makes the fill, looked up and checked before anything is written. Raises NotInDoubt, UsageError."""
    from tradetape.sinks.dispatch.told_fill import ToldFill, fill_of, find_trade
    from tradetape.streams.tape import Tape

    with Tape(kafka=kafka, catalogue=codec.catalogue) as tape:
        trade = find_trade(tape, args.trade_id)
    told = ToldFill(price=args.price, quantity=args.quantity, fee=args.fee, fee_asset=args.fee_asset, at=args.at)
    return lambda attempt: fill_of(told, trade, attempt)


def _decimal(text: str) -> Decimal:
    """A number that the tape can hold exactly."""
    from tradetape.schemas import decimals

    try:
        value = Decimal(text)
    except InvalidOperation:
        raise argparse.ArgumentTypeError(f"{text!r} is not a number") from None
    try:
        decimals.encode(value)
    except ValueError as error:
        raise argparse.ArgumentTypeError(f"{text} {error}") from None
    return value


def _positive(text: str) -> Decimal:
    value = _decimal(text)
    if value <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not more than nothing")
    return value


def _time(text: str) -> datetime:
    try:
        at = datetime.fromisoformat(text)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is not a time such as 2025-06-01T12:00:00Z") from None
    if at.tzinfo is None:
        raise argparse.ArgumentTypeError(f"{text} has no zone: add Z or an offset such as +02:00")
    return at
