"""`tradetape work approval`: each signal becomes a decision, and a trade where it passes."""

from __future__ import annotations

import argparse

from tradetape.console.workers.parts import WorkerParts, add_engine, add_group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_engine(parser, default="faust")
    parser.add_argument("--policy", metavar="FILE", help="the policy file (default: TRADETAPE_POLICY_FILE)")
    add_group(parser, "approval")


def run(args: argparse.Namespace) -> int:
    """Run it; the exit code. Raises PolicyError for a policy file that cannot be used."""
    from tradetape.streams.approval import policy_file
    from tradetape.streams.approval.memory import Memory
    from tradetape.streams.approval.tape_memory import TapeMemory
    from tradetape.streams.effects import KafkaEffects
    from tradetape.streams.processors.approval import Approval

    parts = WorkerParts("approval")
    named, mode = args.policy or parts.settings.policy_file, parts.settings.mode()
    policy = policy_file.load(named) if named else None
    memory = Memory.from_url(parts.settings.required("REDIS_URL"), prefix=parts.settings.redis_prefix)
    tape = TapeMemory(kafka=parts.kafka, codec=parts.codec, run_mode=mode)
    effects = KafkaEffects(worker=parts.name, codec=parts.codec, kafka=parts.kafka)
    processor = Approval(
        codec=parts.codec,
        memory=memory,
        tape=tape,
        effects=effects,
        dead_letters=parts.dead_letters,
        run_mode=mode,
        policy=policy,
    )
    return parts.run(
        parts.engine(processor, group=args.group, kind=args.engine),
        closing=[effects.close, tape.close, memory.close],
        counts={"approval_records": lambda: processor.results, "approval_refusals": lambda: processor.refusals},
    )
