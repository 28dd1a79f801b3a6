"""`tradetape work history`: every event in PostgreSQL, once."""

from __future__ import annotations

import argparse

from tradetape.console.workers.parts import WorkerParts, add_group

BATCH_RECORDS = 5_000


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_group(parser, "history")


def run(args: argparse.Namespace) -> int:
    """Run it; the exit code."""
    from tradetape.sinks.history.sink import HistorySink
    from tradetape.streams.groups import TopicIds

    parts = WorkerParts("history")
    sink = HistorySink(
        dsn=parts.settings.required("DATABASE_URL"),
        catalogue=parts.catalogue,
        codec=parts.codec,
        dead_letters=parts.dead_letters,
        topic_uuid=TopicIds(parts.kafka),
    )
    engine = parts.engine(sink, group=args.group, batch_records=BATCH_RECORDS)
    return parts.run(engine, closing=[sink.close], counts={"history_rows": lambda: sink.counts})
