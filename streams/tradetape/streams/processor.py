"""What turns records into effects, whatever engine feeds it.

A processor is synchronous and idempotent: an engine may hand it the same batch again after a crash. It sends what it
cannot process to its dead letters and goes on with the rest.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import Literal, NamedTuple, Protocol, runtime_checkable

from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.errors import BadRecord, ProcessorBroken, Transient
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.streams")

STAGE = "TRANSFORMATION"


class Partition(NamedTuple):
    """One partition of a topic."""

    topic: str
    partition: int


class Processor(Protocol):
    """Takes batches of records. Raises Transient to be called again with the same batch; anything else ends the worker."""

    name: str
    """The worker's name, also in its consumer group's."""
    topics: tuple[str, ...]

    def process(self, batch: Sequence[Record]) -> None:
        """Do what the records ask for, all of it, before returning."""


@runtime_checkable
class Ticking(Protocol):
    """A processor that wants to know the time, also when no record comes."""

    def tick(self, now_us: int) -> None:
        """Called about once a second. Alarms may rest on it, decisions may not. Transient is logged, and tried again."""


@runtime_checkable
class OffsetKeeper(Protocol):
    """A processor that keeps its own offsets, beside what it writes."""

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Take these partitions; where to start each, None for its beginning. May raise Transient."""

    def released(self, partitions: Iterable[Partition]) -> None:
        """These partitions belong to somebody else from now on, given up in order or lost."""


@runtime_checkable
class Examining(Protocol):
    """A processor that can say whether a record is dangerous; see quarantine.py."""

    def examine(self, record: Record) -> object:
        """Do with the record what may kill a process (decode it), and nothing else. Called in a child process."""

    def pass_over(self, records: Sequence[Record]) -> None:
        """These are dead letters already: an OffsetKeeper moves past them without a look inside. May raise Transient."""


@runtime_checkable
class Copartitioned(Protocol):
    """A processor that joins its topics: it is given all partitions of one number together, or none of them."""

    copartitioned: Literal[True]


def keeper(processor: Processor) -> OffsetKeeper | None:
    """The processor as an OffsetKeeper, None when it is none. Raises ProcessorBroken for one that is only half of it.

    Half a keeper would be fed from Kafka's committed offsets, which say nothing about what it stored.
    """
    if isinstance(processor, OffsetKeeper):
        return processor
    halves = [name for name in ("assigned", "released", "revoked", "lost") if hasattr(processor, name)]
    if halves:
        raise ProcessorBroken(
            f"{processor.name} has {', '.join(halves)}, but an OffsetKeeper needs both assigned() and released()"
        )
    return None


def tick(processor: Processor, now_us: int) -> None:
    """Tell a Ticking processor the time. What fails because a dependency is away comes again with the next tick."""
    if isinstance(processor, Ticking):
        try:
            processor.tick(now_us)
        except Transient as error:
            logger.warning("tick: %s", error, extra={"action": "tick"})


def attempt(processor: Processor, batch: Sequence[Record], dead_letters: DeadLetters) -> None:
    """Process one batch, without those of its records that turn out bad. Every dead letter is acknowledged on return.

    Each BadRecord makes the rest one record smaller, so `process` is called at most once more than there are records.
    Raises what the processor raises but BadRecord, DeadLettersRefused, and ProcessorBroken for a BadRecord that is not
    of this batch.
    """
    remaining = list(batch)
    while remaining:
        try:
            processor.process(remaining)
            break
        except BadRecord as bad:
            rest = [record for record in remaining if record.place != bad.record.place]
            if len(rest) == len(remaining):
                raise ProcessorBroken(
                    f"{processor.name} refuses {bad.record.place}, which is not in its batch"
                ) from bad
            dead_letters.send(bad.record, bad.reason, bad, stage=STAGE)
            remaining = rest
    dead_letters.flush()
