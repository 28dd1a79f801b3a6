"""`tradetape policy …`: whether a policy file is sound, why a signal was refused, whether decisions still come out alike."""

from __future__ import annotations

import argparse
import sys
from collections import Counter
from contextlib import closing
from typing import TYPE_CHECKING, Any

from tradetape.console import exit_codes
from tradetape.console.history_query import instant
from tradetape.console.json_text import print_json
from tradetape.console.parsers import Commands

if TYPE_CHECKING:
    from tradetape.streams.approval.policy import Policy


def register(commands: Commands) -> None:
    """Add the commands of approval's policy."""
    policy = commands.add_parser(
        "policy", help="what signals become trades by",
        epilog="examples:\n  tradetape policy check policy.toml\n  tradetape policy recompute --from 7d",
    )  # fmt: skip
    actions = policy.actions()
    _register_check(actions)
    explain = actions.add_parser(
        "explain", run=_explain, help="what became of a signal, and why",
        description="Print a signal's decisions with their facts, limits and reasons, and its trade, from the tape. "
        "Exit code 1 where the tape has no decision about it.",
        epilog="example:\n  tradetape policy explain 0b4c1f3e-7c0b-5b5e-9d53-2f3d0b8f4a11",
    )  # fmt: skip
    explain.add_argument("signal", metavar="SIGNAL_ID", help="the signal's id, or that of its trade")
    explain.add_json()
    recompute = actions.add_parser(
        "recompute", run=_recompute, help="take recorded decisions again, from their facts",
        description="Take every recorded decision of a stretch of time again, from the facts and limits that it "
        "recorded, and list those that come out differently: exit code 4. Where a policy in Python had its say, the "
        "file of that version is needed: without it such decisions are unchecked, exit code 1.",
        epilog="examples:\n  tradetape policy recompute --from 7d\n"
        "  tradetape policy recompute --from 2026-01-01T00:00Z --to 2026-02-01T00:00Z --policy policy.toml",
    )  # fmt: skip
    recompute.add_argument(
        "--from", dest="start", metavar="TIME", help="from this event time on: 2026-01-31T12:00Z, or 2h before now"
    )
    recompute.add_argument("--to", dest="end", metavar="TIME", help="up to this event time, without it")
    recompute.add_argument("--policy", metavar="FILE", help="a policy file (default: TRADETAPE_POLICY_FILE)")
    recompute.add_json()


def _register_check(actions: Commands) -> None:
    check = actions.add_parser(
        "check", run=_check, help="read a policy file, and say what it does",
        description="Read a policy file as the worker does. Exit code 2 where it is wrong, with the place and what may stand there.",
        epilog="example:\n  tradetape policy check policy.toml",
    )  # fmt: skip
    check.add_argument("file", metavar="FILE", nargs="?", help="default: TRADETAPE_POLICY_FILE")
    check.add_json()


def _check(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings
    from tradetape.console.errors import UsageError
    from tradetape.streams.approval import policy_file
    from tradetape.streams.approval.policy import texts_of

    named = args.file or settings().policy_file
    if named is None:
        raise UsageError("no policy file is named: give one, or set TRADETAPE_POLICY_FILE")
    policy = policy_file.load(named)
    limits: dict[str, Any] = texts_of(policy.limits)
    if policy.allowed_symbols is not None:
        limits["allowed_symbols"] = ", ".join(sorted(policy.allowed_symbols))
    if args.json:
        print_json({"file": str(named), "version": policy.version, "limits": limits})
        return exit_codes.OK
    print(f"{named} is sound: version {policy.version}")
    for name, value in limits.items():
        print(f"  {name:<26} {value}")
    if not limits:
        print("  no limits: only expired and repeated signals are refused")
    return exit_codes.OK


def _explain(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.console.policy_explanation import SignalSearch, lines
    from tradetape.producers.codecs import codec_of
    from tradetape.producers.connection import KafkaSettings
    from tradetape.streams.topic_reader import TopicReader

    settings = effective_settings()
    with closing(TopicReader(KafkaSettings.of(settings))) as reader:
        found = SignalSearch(reader, codec_of(settings)).explanation(args.signal)
    if args.json:
        print_json(found)
    else:
        for line in lines(found):
            print(line)
    if not found.decisions:
        print(f"No stage has decided about {args.signal}, as far as the tape says.", file=sys.stderr)
    return exit_codes.OK if found.decisions else exit_codes.FAILED


def _recompute(args: argparse.Namespace) -> int:
    from tradetape.console.environment import settings as effective_settings
    from tradetape.streams.approval.audit import DIFFERENT, SAME, UNCHECKED, audit
    from tradetape.streams.tape import Tape

    settings = effective_settings()
    policy = _policy(args.policy or settings.policy_file)
    counts: Counter[str] = Counter({SAME: 0, DIFFERENT: 0, UNCHECKED: 0})
    listed = []
    with Tape.from_env(settings) as tape:
        for one in audit(tape, instant(args.start), instant(args.end), policy):
            counts[one.result] += 1
            if one.result != SAME:
                listed.append({"signal_id": one.decision.signal_id, "result": one.result, "why": one.why})
                if not args.json:
                    print(f"{one.result:<9}  {one.decision.signal_id}  {one.why}")
    if args.json:
        print_json({**counts, "listed": listed})
    else:
        print(
            f"{counts[SAME]:,} come out alike, {counts[DIFFERENT]:,} differently, {counts[UNCHECKED]:,} are unchecked"
        )
    if counts[DIFFERENT]:
        return exit_codes.BAD_DATA
    return exit_codes.FAILED if counts[UNCHECKED] else exit_codes.OK


def _policy(named: str | None) -> Policy | None:
    from tradetape.streams.approval import policy_file

    return policy_file.load(named) if named else None
