"""`tradetape demo`: real candles through the whole tape to trades and their profit, and the proof that nothing was lost."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from tradetape.console import exit_codes
from tradetape.console.errors import UsageError

if TYPE_CHECKING:
    from tradetape.console.demo.gauges import Snapshot
    from tradetape.console.demo.ground import Ground
    from tradetape.console.demo.run import Outcome

SYMBOLS_SHIPPED = 4
DEFAULT_SPEED = 10_800.0
LINE_INTERVAL_S = 5.0
PIPED_WIDTH = 120


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the demo."""
    demo = commands.add_parser(
        "demo", help="real candles to trades on paper and their profit, and proof that nothing was lost",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        description="Start the local stack, play three days of real one-minute candles through it, let the workers "
        "turn a bot's signals into trades, fills on paper and closed trades, and reconcile what Kafka, PostgreSQL and "
        "Redis hold. Exit code 4 if anything differs.",
        epilog="examples:\n  tradetape demo\n  tradetape demo --symbols 1 --speed max --down\n"
        "  tradetape demo --services environment",
    )  # fmt: skip
    demo.add_argument(
        "--symbols", type=int, choices=range(1, SYMBOLS_SHIPPED + 1), default=SYMBOLS_SHIPPED, metavar="N",
        help="how many symbols, 1 to %(choices)s (default: %(default)s)".replace("%(choices)s", str(SYMBOLS_SHIPPED)),
    )  # fmt: skip
    demo.add_argument(
        "--speed", type=_speed, default=DEFAULT_SPEED, metavar="FACTOR",
        help=f"market seconds in a second, or max (default: {DEFAULT_SPEED:.0f}, three hours in a second)",
    )  # fmt: skip
    demo.add_argument(
        "--as-recorded", action="store_true",
        help="keep the candles' own times of 2025: too old for current state, so Redis stays empty",
    )  # fmt: skip
    demo.add_argument(
        "--services", choices=("local", "environment"), default="local",
        help="a local stack with workers of the demo's own, or what the environment names with the workers that are at "
        "work there (default: %(default)s)",
    )  # fmt: skip
    demo.add_argument(
        "--engine", choices=("faust", "kafka"), help="what feeds the demo's own state worker (default: faust)"
    )
    demo.add_argument("--down", action="store_true", help="stop the local stack at the end")
    demo.add_argument("--json", action="store_true", help="one JSON document instead of tables")
    demo.set_defaults(run=_demo)


def _speed(text: str) -> float | None:
    """The factor, None for max."""
    if text == "max":
        return None
    factor = float(text)
    if not 1 <= factor < float("inf"):
        raise argparse.ArgumentTypeError("must be 1 (real time) or more, or max")
    return factor


def _demo(args: argparse.Namespace) -> int:
    from tradetape.console.demo.bars import SYMBOLS
    from tradetape.console.demo.emission import Plan
    from tradetape.console.demo.run import carry_out

    plan = Plan(SYMBOLS[: args.symbols], args.speed, args.as_recorded)
    with _ground(args) as ground, _watching() as show:
        outcome = carry_out(ground, plan, show=show, say=_say)
    _print(outcome, as_json=args.json)
    return exit_codes.BAD_DATA if outcome.proof.differences else exit_codes.OK


@contextmanager
def _ground(args: argparse.Namespace) -> Iterator[Ground]:
    """What the demo runs on; with --down a local stack ends with it. Raises UsageError."""
    if args.services == "environment":
        from tradetape.console.demo.given_ground import GivenGround

        if args.down or args.engine:
            raise UsageError(
                "--down and --engine are for a local stack; these services and workers are somebody else's"
            )
        yield GivenGround()
        return
    from tradetape.console.demo.local_ground import LocalGround
    from tradetape.console.local.stack import LocalStack

    _say("Starting Kafka, PostgreSQL and Redis (the first start fetches Kafka, about 45 MB) …")
    stack = LocalStack()
    try:
        yield LocalGround(stack, engine=args.engine or "faust")
    finally:
        if args.down:
            stack.down()


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr, flush=True)


@contextmanager
def _watching() -> Iterator[Callable[[Snapshot], None]]:
    """Show a run on stderr: as a table that changes in place on a terminal, else as a line now and then."""
    from rich.console import Console
    from rich.live import Live

    from tradetape.console.demo import view

    screen = Console(stderr=True)
    if screen.is_terminal:
        with Live(console=screen, transient=True) as live:
            yield lambda snapshot: live.update(view.live(snapshot), refresh=True)
        return
    printed_at = float("-inf")

    def print_line(snapshot: Snapshot) -> None:
        nonlocal printed_at
        if time.monotonic() - printed_at >= LINE_INTERVAL_S:
            printed_at = time.monotonic()
            _say(view.line(snapshot))

    yield print_line


def _print(outcome: Outcome, *, as_json: bool) -> None:
    import msgspec
    from rich.console import Console

    from tradetape.console.demo import view

    if as_json:
        sys.stdout.write(msgspec.json.encode(outcome._asdict()).decode() + "\n")
    else:
        Console(width=None if sys.stdout.isatty() else PIPED_WIDTH, highlight=False).print(view.outcome(outcome))
