"""`tradetape state …`: what is current, as Redis has it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tradetape.console import exit_codes
from tradetape.console.json_text import print_json
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from tradetape.console.state_activity import Activity
    from tradetape.console.state_content import KeyContent, StateContent
    from tradetape.streams.state.activity import LastScan

_ORDER_FIELDS = ("_t", "_o", "_id", "_x")
MAX_MINUTES = 120
"""Current state counts decisions for so long."""


def register(commands: Commands) -> None:
    """Add the commands of current state."""
    state = commands.add_parser(
        "state", help="what is current, as Redis has it",
        epilog="examples:\n  tradetape state show binance BTCUSDT 1h\n  tradetape state activity\n  tradetape state stats",
    )  # fmt: skip
    actions = state.actions()
    show = actions.add_parser(
        "show", run=_show, help="everything that is known of a symbol",
        description="Print the current state of a symbol. Exit code 1 where nothing is known: it has expired, or no "
        "worker has written it.",
        epilog="example:\n  tradetape state show demo1 BTCUSDT 1h",
    )  # fmt: skip
    show.add_argument("venue", metavar="VENUE", help="such as binance")
    show.add_argument("symbol", metavar="SYMBOL", help="such as BTCUSDT or BTC/USDT")
    show.add_argument("timeframe", metavar="TIMEFRAME", nargs="?", help="such as 1h; all by default")
    show.add_json()
    activity = actions.add_parser(
        "activity", run=_activity, help="decisions of the last minutes, last scans, trades in flight",
        description="Say for each stage how its decisions of the last minutes came out and when it made the newest one, "
        "for each strategy when it last signalled, and which trades were approved and are not closed.",
        epilog="example:\n  tradetape state activity --minutes 15",
    )  # fmt: skip
    activity.add_argument("--minutes", type=_minutes, default=60, help="1 to 120 (default: %(default)s)")
    activity.add_json()
    stats = actions.add_parser(
        "stats", run=_stats, help="how many keys of which kind, and what they weigh",
        description="Count every key under the prefix. Exit code 4 where one has no expiry or is of no declared kind.",
        epilog="example:\n  tradetape state stats --json",
    )  # fmt: skip
    stats.add_json()


@contextmanager
def _content() -> Iterator[StateContent]:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.console.state_content import StateContent
    from tradetape.streams.state.connection import connect
    from tradetape.streams.state.keys import Keys

    settings = effective_settings()
    client = connect(settings.required("REDIS_URL"))
    try:
        yield StateContent(client, Keys(settings.redis_prefix))
    finally:
        client.close()


def _show(args: argparse.Namespace) -> int:
    with _content() as content:
        found = content.of(args.venue, args.symbol, args.timeframe)
    if args.json:
        print_json(found)
    else:
        for one in found:
            print("\n".join(_lines(one)))
    if not found:
        print(f"Nothing is known of {args.venue} {args.symbol}: it has expired, or was never there.", file=sys.stderr)
    return exit_codes.OK if found else exit_codes.FAILED


def _lines(one: KeyContent) -> Iterator[str]:
    yield one.key
    if one.event_time is not None and one.age_s is not None:
        expiry = "never expires" if one.expires_in_s is None else f"expires in {one.expires_in_s:,.0f} s"
        yield f"  as of {one.event_time:%Y-%m-%d %H:%M:%S}Z, {one.age_s:,.0f} s ago, {expiry}"
    width = max(map(len, one.fields))
    for name, value in sorted(one.fields.items()):
        if name not in _ORDER_FIELDS:
            yield f"  {name:<{width}}  {value}"


def _minutes(text: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MAX_MINUTES:
        raise argparse.ArgumentTypeError(f"must be a whole number from 1 to {MAX_MINUTES}")
    return int(text)


def _activity(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.console.state_activity import activity
    from tradetape.streams.state.reader import StateReader

    with _content() as content, StateReader.from_env(effective_settings()) as reader:
        found = activity(content, reader, minutes=args.minutes)
    if args.json:
        print_json(found)
    else:
        print("\n".join(_activity_lines(found)))
    return exit_codes.OK


def _activity_lines(found: Activity) -> Iterator[str]:
    yield f"{'stage':<24} {'in':>7} {'out':>7}  last, in {found.minutes} minutes"
    for stage in found.stages:
        seen, passed = sum(stage.by_outcome.values()), stage.by_outcome.get("PASSED", 0)
        yield f"{stage.stage:<24} {seen:>7,} {passed:>7,}  {_last(stage.last)}"
    yield ""
    yield f"{'strategy':<24} last signal"
    for strategy in found.strategies:
        yield f"{strategy.strategy_id:<24} {_last(strategy.last)}"
    yield ""
    yield f"{'in flight':<24} {'what':<13} {'dispatch':<17} {'age':>9}  trade"
    for symbol in found.symbols:
        for trade in symbol.trades:
            what = f"{trade.action} {trade.direction}"
            yield (
                f"{f'{symbol.venue} {symbol.symbol}':<24} {what:<13} {trade.dispatched or '-':<17} "
                f"{trade.age.total_seconds():>7,.0f} s  {trade.trade_id}"
            )


def _last(scan: LastScan | None) -> str:
    return f"{scan.what} {scan.venue} {scan.symbol}, {scan.age.total_seconds():,.0f} s ago" if scan else "unknown"


def _stats(args: argparse.Namespace) -> int:
    from tradetape.console.state_content import UNDECLARED

    with _content() as content:
        totals = content.totals()
    if args.json:
        print_json(totals)
    else:
        print(f"{'kind':<12} {'keys':>8} {'bytes':>12} {'without expiry':>15} {'not compact':>12}")
        for one in totals:
            print(f"{one.kind:<12} {one.keys:>8,} {one.bytes:>12,} {one.without_expiry:>15,} {one.not_compact:>12,}")
    is_sound = not any(one.without_expiry or one.kind == UNDECLARED for one in totals)
    return exit_codes.OK if is_sound else exit_codes.BAD_DATA
