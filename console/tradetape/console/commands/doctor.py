"""`tradetape doctor`: what is reachable and as it should be, and what mends the rest."""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING

from tradetape.console import exit_codes

if TYPE_CHECKING:
    from tradetape.console.doctor.finding import Finding

_RAW = argparse.RawDescriptionHelpFormatter
_COLOURS = {"ok": "32", "warn": "33", "FAIL": "31"}


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the command."""
    doctor = commands.add_parser(
        "doctor", help="what is reachable, and what mends the rest", formatter_class=_RAW,
        description="Check Kafka, Redis, PostgreSQL, a schema registry and the packages. Changes nothing. Exit code 0 when all "
        "is well, 3 when a service cannot be reached, 1 for other faults.",
        epilog="examples:\n  tradetape doctor --json\n  tradetape doctor --role bot",
    )  # fmt: skip
    doctor.add_argument(
        "--role", metavar="ROLE",
        help="only whether the environment's user may do what this role has to, and no more: `tradetape access show`",
    )  # fmt: skip
    doctor.add_argument("--json", action="store_true", help="one JSON document")
    doctor.set_defaults(run=_doctor)


def _doctor(args: argparse.Namespace) -> int:
    from tradetape.console.access.roles import role
    from tradetape.console.doctor.examination import examine, examine_role, names_services
    from tradetape.console.environment import settings

    named = names_services(os.environ)
    findings = examine_role(settings(), role(args.role), named=named) if args.role else examine(settings(), named=named)
    if args.json:
        print(json.dumps({"checks": [_document(one) for one in findings]}, indent=2, ensure_ascii=False))
    else:
        _print_lines(findings)
    faults = sum(one.state == "FAIL" for one in findings)
    print(f"{faults} of {len(findings)} checks failed." if faults else "All is well.", file=sys.stderr)
    return _exit_code(findings)


def _exit_code(findings: Sequence[Finding]) -> int:
    if any(one.unreachable for one in findings):
        return exit_codes.UNREACHABLE
    return exit_codes.FAILED if any(one.state == "FAIL" for one in findings) else exit_codes.OK


def _document(finding: Finding) -> dict[str, object]:
    return {
        "check": finding.subject,
        "state": str(finding.state),
        "detail": finding.detail,
        "mend": finding.mend or None,
        "unreachable": finding.unreachable,
    }


def _print_lines(findings: Sequence[Finding]) -> None:
    width = max(len(one.subject) for one in findings)
    for one in findings:
        mend = f"  ->  {one.mend}" if one.mend else ""
        print(f"{_coloured(one.state)}  {one.subject:<{width}}  {one.detail}{mend}")


def _coloured(state: str) -> str:
    shown = f"{state:<4}"
    if not sys.stdout.isatty() or os.environ.get("NO_COLOR"):
        return shown
    return f"\x1b[{_COLOURS[state]}m{shown}\x1b[0m"
