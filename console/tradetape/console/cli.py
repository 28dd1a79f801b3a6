"""The `tradetape` command: parses, dispatches, and turns known errors into one sentence and an exit code.

Each command group is a module in `commands` that registers its parsers here and imports what it needs when it runs, so
that `tradetape --help` stays quick. stdout carries results, stderr everything else.
"""

from __future__ import annotations

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from tradetape.console import exit_codes
from tradetape.console.parsers import CommandParser

COMMANDS = (
    "stack", "demo", "doctor", "topics", "schemas", "tail", "dlq", "outbox", "state", "history", "policy", "dispatch",
    "replay",
    "work",
)  # fmt: skip

_EPILOG = """\
first steps:
  tradetape demo                       real candles to trades and their profit, and proof that nothing was lost
  tradetape up                         a Kafka, a PostgreSQL and a Redis of your own, on this machine
  tradetape tail trade-signals -n 5    the newest events of a topic, decoded
  tradetape doctor                     what is reachable, and what mends it

exit codes: 0 done, 1 failed, 2 usage or settings, 3 a service cannot be reached, 4 the data is wrong
"""


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; the exit code."""
    args = _parser().parse_args(argv)
    try:
        code = int(args.run(args))
        # Here and not when Python ends, where a reader that is gone would be an error.
        print(end="", flush=True)
        return code
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    except BrokenPipeError:
        # The reader has seen enough (`tradetape tail … | head`): nothing is wrong, and nothing more can be written.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return exit_codes.OK
    except Exception as error:
        known = _explained(error)
        if known is None or args.traceback:
            raise
        code, sentence = known
        print(f"tradetape: {sentence}", file=sys.stderr)
        return code


def _parser() -> argparse.ArgumentParser:
    parser = CommandParser(
        prog="tradetape",
        description="The durable tape of a trading system.",
        epilog=_EPILOG,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the version and exit")
    parser.add_argument("--traceback", action="store_true", help="show where an error came from")
    commands = parser.add_subparsers(title="commands", metavar="COMMAND", required=True)
    for name in COMMANDS:
        importlib.import_module(f"tradetape.console.commands.{name}").register(commands)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: object) -> None:
        from importlib.metadata import version

        print(f"tradetape {version('tradetape')}")
        parser.exit()


def _explained(error: Exception) -> tuple[int, str] | None:
    """The exit code and sentence of an error that speaks for itself; None for one that is a defect of ours."""
    if isinstance(error, ModuleNotFoundError):
        from tradetape.console.extras import extra_of

        extra = extra_of(error)
        return (exit_codes.USAGE, f"this command needs more packages: install tradetape[{extra}]") if extra else None
    from tradetape.console.errors import ConsoleError, UsageError
    from tradetape.producers.errors import ProducersError, SettingsError
    from tradetape.schemas.errors import IncompatibleSchema, SchemasError, Transient
    from tradetape.streams.errors import StreamsError

    if isinstance(error, (SettingsError, UsageError)):
        return exit_codes.USAGE, str(error)
    if isinstance(error, Transient):
        return exit_codes.UNREACHABLE, str(error)
    if isinstance(error, IncompatibleSchema):
        return exit_codes.BAD_DATA, str(error)
    if isinstance(error, (ConsoleError, ProducersError, SchemasError, StreamsError)):
        return exit_codes.FAILED, str(error)
    return None


if __name__ == "__main__":
    sys.exit(main())
