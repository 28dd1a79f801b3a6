"""`tradetape work …`: run one worker process."""

from __future__ import annotations

import argparse
from types import ModuleType

from tradetape.console.workers import approval, dispatch, history, positions, staleness, state

_RAW = argparse.RawDescriptionHelpFormatter


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the workers."""
    work = commands.add_parser(
        "work", help="run a worker", formatter_class=_RAW,
        description="Run a worker until TERM or Ctrl-C. Settings come from the environment; see the README's table.",
        epilog="examples:\n  tradetape work state --engine kafka\n  TRADETAPE_HTTP_PORT=8080 tradetape work history",
    )  # fmt: skip
    workers = work.add_subparsers(title="workers", metavar="WORKER", required=True)
    _add(workers, "state", state, "keep current state in Redis", "--engine faust")
    _add(workers, "history", history, "write history to PostgreSQL")
    _add(
        workers, "approval", approval, "turn signals into trades, or refuse them", "--policy policy.toml",
        description="Answer every signal of this run mode with a decision, and with a trade where it passes the policy.",
    )  # fmt: skip
    _add(
        workers, "positions", positions, "turn trades and fills into closed trades",
        description="Fold trades, dispatches and fills into closed trades with their profit. It remembers nothing: what is "
        "on the tape is read again at each start.",
    )  # fmt: skip
    _add(
        workers, "dispatch", dispatch, "hand approved trades to an executor", "--executor paper",
        "--executor webhook --webhook-url https://orders.example/new --webhook-idempotent",
        description="Hand each order of this run mode's trades to an executor, once at most unless it tells repeats.",
    )  # fmt: skip
    _add(
        workers, "staleness", staleness, "raise the alarm when a series falls silent", "--grace-s 30",
        description="Emit a market condition `stale` when no bar of a series has come by its close + timeframe + grace, "
        "and `fresh` when it is back.",
    )  # fmt: skip


def _add(
    workers: argparse._SubParsersAction[argparse.ArgumentParser],
    name: str,
    worker: ModuleType,
    summary: str,
    *examples: str,
    description: str | None = None,
) -> None:
    lines = [f"\n  tradetape work {name} {options}".rstrip() for options in examples or [""]]
    parser = workers.add_parser(
        name, help=summary, description=description, formatter_class=_RAW,
        epilog=("examples:" if len(lines) > 1 else "example:") + "".join(lines),
    )  # fmt: skip
    worker.add_arguments(parser)
    parser.set_defaults(run=worker.run)
