"""`tradetape work dispatch`: approved trades go to an executor."""

from __future__ import annotations

import argparse

from tradetape.console.workers import dispatch_executors
from tradetape.console.workers.parts import WorkerParts, add_group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_group(parser, "dispatch")
    dispatch_executors.add_arguments(parser)


def run(args: argparse.Namespace) -> int:
    """Run it; the exit code. Raises UsageError, SettingsError, ExecutorUnusable."""
    parts = WorkerParts("dispatch")
    sink = dispatch_executors.sink_of(
        args, parts.settings, parts.kafka, parts.codec, parts.dead_letters, parts.progress
    )
    gauges = {
        "dispatch_in_doubt": lambda: sink.in_doubt,
        "dispatch_in_flight": sink.lanes.in_flight,
        "dispatch_lanes_held_back": lambda: sink.lanes.reached,
    }
    engine = parts.engine(sink, group=args.group)
    return parts.run(engine, closing=[sink.close], counts={"dispatches": lambda: sink.counts}, gauges=gauges)
