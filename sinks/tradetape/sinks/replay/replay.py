"""Carries a replay out: reads chunk by chunk, writes each, and notes how far it came only once a chunk is safe.

So whatever ends it, also kill -9, it goes on from the last note, and a target is given at most one chunk again.
"""

from __future__ import annotations

import logging
from collections import Counter
from typing import NamedTuple

from tradetape.sinks.errors import DatabaseUnavailable, ReplayStopped
from tradetape.sinks.replay import runs
from tradetape.sinks.replay.plan import Plan, Progress
from tradetape.sinks.replay.reading import Reading
from tradetape.sinks.replay.refusals import Refusals
from tradetape.sinks.replay.runs import RunBook
from tradetape.sinks.replay.targets.target import Difference, Target

logger = logging.getLogger("tradetape.sinks")

READ = ("read", "outside", "kept")
UNDECODABLE, REFUSED = "undecodable", "refused"


class Entry(NamedTuple):
    """A run's place in the book, and what was counted of it before this process."""

    book: RunBook
    run_id: str
    counts_before: Counter[str]


class Summary(NamedTuple):
    """What a replay came to."""

    outcome: str
    counts: dict[str, int]
    refused: int
    differences: list[Difference]


def carry_out(
    *, reading: Reading, target: Target, refusals: Refusals, progress: Progress, entry: Entry | None = None
) -> Summary:
    """Replay what is left. Raises what reading and target raise; then the run can be resumed."""
    counted = _Counts(reading, target, refusals, entry.counts_before if entry else Counter())
    outcome = runs.FAILED
    try:
        target.open()
        for chunk in reading.chunks(progress):
            # Step 1: the target has the records safe.
            target.write(chunk.records, chunk.stream_time_us)
            counted.replayed += len(chunk.records)
            # Step 2: only then the run has come so far.
            if entry is not None and not target.begins_anew:
                entry.book.advance(entry.run_id, chunk.progress, counted.all())
        differences = target.finish()
        refused = counted.refused()
        outcome = runs.BAD_DATA if refused or not all(one.is_none for one in differences) else runs.DONE
        return Summary(outcome, counted.all(), refused, differences)
    except (ReplayStopped, KeyboardInterrupt, BrokenPipeError):
        outcome = runs.INTERRUPTED
        raise
    finally:
        if entry is not None:
            _end(entry, outcome, counted.all())


def _end(entry: Entry, outcome: str, counts: dict[str, int]) -> None:
    """Note the end. Without the note the run counts as interrupted, which hides nothing and can be resumed."""
    try:
        entry.book.end(entry.run_id, outcome, counts)
    except DatabaseUnavailable as error:
        logger.warning("the end of run %s is not recorded: %s", entry.run_id, error)


class _Counts:
    """What is counted by reading, target and refusals, on top of what earlier processes of the run counted."""

    def __init__(self, reading: Reading, target: Target, refusals: Refusals, before: Counter[str]) -> None:
        self.replayed = 0
        self._reading = reading
        self._target = target
        self._refusals = refusals
        self._before = before

    def all(self) -> dict[str, int]:
        """Everything, by name."""
        found = self._before + Counter({"replayed": self.replayed}) + self._reading.counts + self._target.counts
        for kind, refusals in ((UNDECODABLE, self._reading.undecodable), (REFUSED, self._refusals)):
            found.update({f"{kind}.{reason}": count for reason, count in refusals.refused.items()})
        return dict(found)

    def refused(self) -> int:
        """How many records could not be replayed."""
        return sum(count for name, count in self.all().items() if name.startswith((UNDECODABLE, REFUSED)))


def counts_to_keep(counts: Counter[str], plan: Plan, target: Target) -> Counter[str]:
    """Of an earlier process of the run, what the next one does not count again: what is read anew it counts anew."""
    if target.begins_anew:
        return Counter()
    if not plan.request.is_by_time:
        return counts
    return Counter({name: count for name, count in counts.items() if not name.startswith((*READ, UNDECODABLE))})
