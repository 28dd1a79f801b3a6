"""`tradetape state …`: what is current, as Redis has it."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tradetape.console import exit_codes

if TYPE_CHECKING:
    from tradetape.console.state_content import KeyContent, StateContent

_RAW = argparse.RawDescriptionHelpFormatter
_ORDER_FIELDS = ("_t", "_o", "_id", "_x")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of current state."""
    state = commands.add_parser(
        "state", help="what is current, as Redis has it", formatter_class=_RAW,
        epilog="examples:\n  tradetape state show binance BTCUSDT 1h\n  tradetape state stats",
    )  # fmt: skip
    actions = state.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show", help="everything that is known of a symbol", formatter_class=_RAW,
        description="Print the current state of a symbol. Exit code 1 where nothing is known: it has expired, or no "
        "worker has written it.",
        epilog="example:\n  tradetape state show demo1 BTCUSDT 1h",
    )  # fmt: skip
    show.add_argument("venue", metavar="VENUE", help="such as binance")
    show.add_argument("symbol", metavar="SYMBOL", help="such as BTCUSDT or BTC/USDT")
    show.add_argument("timeframe", metavar="TIMEFRAME", nargs="?", help="such as 1h; all by default")
    show.add_argument("--json", action="store_true", help="one JSON document")
    show.set_defaults(run=_show)
    stats = actions.add_parser(
        "stats", help="how many keys of which kind, and what they weigh", formatter_class=_RAW,
        description="Count every key under the prefix. Exit code 4 where one has no expiry or is of no declared kind.",
        epilog="example:\n  tradetape state stats --json",
    )  # fmt: skip
    stats.add_argument("--json", action="store_true", help="one JSON document")
    stats.set_defaults(run=_stats)


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
        _print_json(found)
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


def _stats(args: argparse.Namespace) -> int:
    from tradetape.console.state_content import UNDECLARED

    with _content() as content:
        totals = content.totals()
    if args.json:
        _print_json(totals)
    else:
        print(f"{'kind':<12} {'keys':>8} {'bytes':>12} {'without expiry':>15} {'not compact':>12}")
        for one in totals:
            print(f"{one.kind:<12} {one.keys:>8,} {one.bytes:>12,} {one.without_expiry:>15,} {one.not_compact:>12,}")
    is_sound = not any(one.without_expiry or one.kind == UNDECLARED for one in totals)
    return exit_codes.OK if is_sound else exit_codes.BAD_DATA


def _print_json(found: object) -> None:
    import msgspec

    print(msgspec.json.format(msgspec.json.encode(found)).decode())
