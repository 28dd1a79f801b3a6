"""`tradetape work positions`: trades and fills become closed trades."""

from __future__ import annotations

import argparse

from tradetape.console.workers.parts import WorkerParts, add_engine, add_group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_engine(parser, default="kafka")
    add_group(parser, "positions")


def run(args: argparse.Namespace) -> int:
    """Run it; the exit code."""
    from tradetape.streams.effects import KafkaEffects
    from tradetape.streams.positions.past import Past
    from tradetape.streams.processors.positions import Positions
    from tradetape.streams.topic_reader import TopicReader

    parts = WorkerParts("positions")
    reader = TopicReader(parts.kafka)
    effects = KafkaEffects(worker=parts.name, codec=parts.codec, kafka=parts.kafka)
    processor = Positions(
        codec=parts.codec,
        past=Past(reader=reader, codec=parts.codec),
        effects=effects,
        dead_letters=parts.dead_letters,
        run_mode=parts.settings.mode(),
    )
    return parts.run(
        parts.engine(processor, group=args.group, kind=args.engine),
        closing=[effects.close, reader.close],
        counts={"positions": lambda: processor.counts},
    )
