"""`tradetape work staleness`: an alarm when a series falls silent."""

from __future__ import annotations

import argparse

from tradetape.console.workers.parts import WorkerParts, add_group

SECOND_US = 1_000_000
HOUR_US = 3_600 * SECOND_US
STALL_US = 5 * SECOND_US
"""A worker whose clock jumps by more than so much was stopped, or its machine was asleep."""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    parser.add_argument("--grace-s", type=float, default=10.0, help="how late a bar may be (default: %(default)s)")
    parser.add_argument(
        "--lookback-h", type=float, default=26.0,
        help="how much is read again at the start: longer than the longest timeframe (default: %(default)s)",
    )  # fmt: skip
    add_group(parser, "staleness")


def run(args: argparse.Namespace) -> int:
    """Run it; the exit code."""
    from tradetape.streams.effects import KafkaEffects
    from tradetape.streams.processors.staleness import Staleness
    from tradetape.streams.processors.staleness_past import KafkaPast
    from tradetape.streams.topic_reader import TopicReader

    parts = WorkerParts("staleness")
    effects = KafkaEffects(worker=parts.name, codec=parts.codec, kafka=parts.kafka)
    reader = TopicReader(parts.kafka)
    conditions_topic = parts.catalogue.topic_name(parts.catalogue.by_record("MarketCondition"))
    processor = Staleness(
        codec=parts.codec,
        effects=effects,
        dead_letters=parts.dead_letters,
        past=KafkaPast(reader, conditions_topic=conditions_topic, lookback_us=int(args.lookback_h * HOUR_US)),
        is_behind=lambda partition: parts.progress.lag.get(partition, 0) > 0,
        grace_us=int(args.grace_s * SECOND_US),
        stall_us=STALL_US,
    )
    return parts.run(
        parts.engine(processor, group=args.group),
        closing=[effects.close, reader.close],
        counts={"staleness_alarms": lambda: processor.counts},
    )
