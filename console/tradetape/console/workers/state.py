"""`tradetape work state`: current state in Redis."""

from __future__ import annotations

import argparse

from tradetape.console.workers.parts import WorkerParts, add_engine, add_group


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Its options."""
    add_engine(parser, default="faust")
    add_group(parser, "state")


def run(args: argparse.Namespace) -> int:
    """Run it; the exit code."""
    from tradetape.streams.groups import forget_offsets
    from tradetape.streams.patience import awaited
    from tradetape.streams.processors.current_state import CurrentState
    from tradetape.streams.state.store import StateStore

    parts = WorkerParts("state")
    store = StateStore.from_url(parts.settings.required("REDIS_URL"), prefix=parts.settings.redis_prefix)
    # A Redis that is new or was flushed is filled again from the tape, unless other workers of the group are at work.
    is_filled = awaited(lambda: store.is_filled() or forget_offsets(parts.kafka, args.group))
    processor = CurrentState(
        catalogue=parts.catalogue, codec=parts.codec, store=store, dead_letters=parts.dead_letters, may_mark=is_filled
    )
    engine = parts.engine(processor, group=args.group, kind=args.engine)
    return parts.run(engine, closing=[store.close], counts={"state_writes": lambda: store.results})
