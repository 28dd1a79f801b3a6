"""`python -m bench [subject …] [--json] [--quick]`: one set of services, each subject in turn, one answer.

Exit code 0 also where a limit of speed is missed, since machines are noisy; 4 where something was lost, doubled or
differs, 1 where a subject could not be carried through.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from bench import candles, dispatch, emit, history, latency, outage, poison, promises, replay, scale, state
from bench.errors import BenchFailed
from bench.options import Options
from bench.peers import comparison as peers
from bench.progress import say
from bench.report import Report
from bench.services import Services, running_services
from tradetape.console import exit_codes
from tradetape.console.errors import ConsoleError

SUBJECTS: Mapping[str, Callable[[Services, Options], Report]] = {
    "emit": emit.run,
    "outage": outage.run,
    "history": history.run,
    "peers": peers.run,
    "poison": poison.run,
    "state": state.run,
    "latency": latency.run,
    "dispatch": dispatch.run,
    "replay": replay.run,
    "scale": scale.run,
    "promises": promises.run,
    "candles": candles.run,
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run the subjects named, all when none is; the exit code."""
    args = _parser().parse_args(argv)
    options = Options(quick=args.quick, full=args.full, legacy=args.legacy, data=args.data)
    machine = _machine()
    say(f"bench: {machine['cores']} cores, of which others use {machine['load']:.1f}; read ratios, not times")
    try:
        reports = _run(args.subjects or list(SUBJECTS), options, show=not args.json)
    except ConsoleError as error:
        say(f"bench: {error}")
        return exit_codes.FAILED
    except KeyboardInterrupt:
        return exit_codes.INTERRUPTED
    if args.json:
        print(json.dumps({"machine": machine, "quick": args.quick, "subjects": [one.document() for one in reports]}))
    return _exit_code(reports)


def _run(subjects: Sequence[str], options: Options, *, show: bool) -> list[Report]:
    reports = []
    say("bench: starting Kafka, PostgreSQL and Redis")
    with running_services() as services:
        for subject in subjects:
            began = time.monotonic()
            say(f"bench: {subject}")
            reports.append(_measured(subject, services, options))
            say(f"bench: {subject} took {time.monotonic() - began:.0f} s")
            if show:
                print(reports[-1].table(), flush=True)
    return reports


def _measured(subject: str, services: Services, options: Options) -> Report:
    try:
        return SUBJECTS[subject](services, options)
    except (BenchFailed, ConsoleError) as error:
        report = Report(subject, "could not be carried through")
        report.failure = str(error)
        return report


def _exit_code(reports: Sequence[Report]) -> int:
    if any(one.failure is not None for one in reports):
        return exit_codes.FAILED
    return exit_codes.BAD_DATA if any(one.is_wrong for one in reports) else exit_codes.OK


def _machine() -> dict[str, Any]:
    load = os.getloadavg()[0]
    return {"python": platform.python_version(), "system": platform.system(), "cores": os.cpu_count(), "load": load}


def _subject(name: str) -> str:
    if name not in SUBJECTS:
        raise argparse.ArgumentTypeError(f"there is no {name}; there are {', '.join(SUBJECTS)}")
    return name


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m bench",
        description="Measure tradetape beside the bare libraries, each against its limit in the same run.",
        epilog="examples:\n  python -m bench\n  python -m bench emit latency --quick\n  python -m bench --json > bench.json",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("subjects", nargs="*", metavar="subject", type=_subject, help=", ".join(SUBJECTS))
    parser.add_argument("--json", action="store_true", help="one document on stdout instead of tables")
    parser.add_argument("--quick", action="store_true", help="small counts and one round; not for quoting")
    parser.add_argument(
        "--full",
        action="store_true",
        help="history: 300,000 records instead of 100,000; outage: ten minutes instead of one",
    )
    parser.add_argument("--legacy", type=Path, default=Options().legacy, help="the script that fills a Redis as the replaced system did (default: %(default)s)")  # fmt: skip
    parser.add_argument("--data", type=Path, default=Options().data, help="the folder of real market data (default: %(default)s)")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())
