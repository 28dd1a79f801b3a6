"""The ledger: what was promised to whoever emitted, held against the tape, the history and the dead letters.

It is written by the test, outside of the processes that are killed, and knows nothing of Kafka or PostgreSQL: `judge`
takes what was found there (evidence.py reads it) and counts every way in which a history can be wrong.
"""

from __future__ import annotations

import os
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import NamedTuple

import event_content
from tradetape.schemas import Event

EXAMPLES = 5
LOST_BEFORE, PHANTOM_RECORD, ALTERED_RECORD, DISORDER = (
    "lost on the way to Kafka", "phantom on the tape", "altered on the tape", "out of order",
)  # fmt: skip
LOST, DOUBLED, PHANTOM, ALTERED = (
    "lost in the history", "doubled in the history", "phantom in the history", "altered in the history",
)  # fmt: skip
STORED_AND_REFUSED, REFUSED_FROM_NOWHERE, UNSETTLED = "stored and refused", "refused out of nowhere", "not settled"
VIOLATIONS = (
    LOST_BEFORE, PHANTOM_RECORD, ALTERED_RECORD, DISORDER, LOST, DOUBLED, PHANTOM, ALTERED, STORED_AND_REFUSED,
    REFUSED_FROM_NOWHERE, UNSETTLED,
)  # fmt: skip


class Place(NamedTuple):
    """Where a record lies on the tape."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}[{self.partition}]@{self.offset}"


class Said(NamedTuple):
    """What `emit` returned of an event: its id and the digest of its content."""

    event_id: str
    digest: bytes


class Ledger:
    """What was emitted, and what else was put onto the tape. The test's choices at random come from its seed."""

    def __init__(self, seed: int | None = None) -> None:
        self.seed = seed or int(os.environ.get("SEED", "0")) or random.randrange(1, 10**6)
        self.rng = random.Random(self.seed)
        self.said: defaultdict[str, dict[tuple[str, int], Said]] = defaultdict(dict)
        """By the record's name, and the run and number that its producer gave the event."""
        self.rubbish: defaultdict[str, Counter[bytes | None]] = defaultdict(Counter)
        """By the record's name: values that nobody can read, and how often each was put onto the topic."""
        # pytest shows it where the test fails.
        print(f"seed {self.seed}")

    def emitted(self, event: Event) -> None:
        """An event as `emit` returned it."""
        assert event.event_id is not None
        assert event.producer_run_id is not None
        assert event.producer_seq is not None
        said = Said(event.event_id, event_content.of_event(event))
        self.said[type(event).__name__][event.producer_run_id, event.producer_seq] = said


class Appearance(NamedTuple):
    """An event at one place of the tape."""

    place: Place
    key: bytes | None
    run_id: str
    seq: int
    event_id: str
    digest: bytes


class Unreadable(NamedTuple):
    """A record that is no event."""

    place: Place
    value: bytes | None


class Stored(NamedTuple):
    """A row: where it says that its event lies, and what it says of it."""

    place: Place
    event_id: str
    digest: bytes


class Finding(NamedTuple):
    """What was found of one record's topic and table. `rows` is None where there is no history to ask."""

    record: str
    tape: Iterable[Appearance | Unreadable]
    rows: Iterable[Stored] | None = None
    letters: Mapping[Place, int] = {}
    """How often each record of this topic is a dead letter."""
    unsettled: Iterable[str] = ()
    """Partitions whose end the history has not reached, in words."""


@dataclass
class Verdict:
    """How many of each there were, and what is wrong."""

    seed: int | None = None
    counts: Counter[str] = field(default_factory=Counter)
    violations: Counter[str] = field(default_factory=Counter)
    examples: defaultdict[str, list[str]] = field(default_factory=lambda: defaultdict(list))

    @property
    def is_right(self) -> bool:
        """Whether nothing is wrong."""
        return not any(self.violations.values())

    def wrong(self, kind: str, what: object) -> None:
        """Count a violation; the first few are named."""
        self.violations[kind] += 1
        if len(self.examples[kind]) < EXAMPLES:
            self.examples[kind].append(str(what))

    def __str__(self) -> str:
        facts = ("emitted", "on the tape", "repeats", "unreadable", "stored", "refused", "refused again")
        lines = [f"{'RIGHT' if self.is_right else 'WRONG'} (seed {self.seed})"]
        lines.append(", ".join(f"{name} {self.counts[name]}" for name in facts))
        lines.append(", ".join(f"{kind} {self.violations[kind]}" for kind in VIOLATIONS))
        for kind, examples in self.examples.items():
            lines.append(f"{kind} {self.violations[kind]}: {'; '.join(examples)}")
        return "\n".join(lines)


def judge(findings: Iterable[Finding], ledger: Ledger | None = None) -> Verdict:
    """Everything that is wrong with the tape and the history; without a ledger, with the history alone."""
    verdict = Verdict(ledger.seed if ledger else None)
    for finding in findings:
        tape = _Tape(verdict)
        for one in finding.tape:
            tape.take(one)
        if ledger is not None:
            _judge_emission(verdict, tape, ledger.said[finding.record], ledger.rubbish[finding.record])
        if finding.rows is not None:
            _judge_history(verdict, tape, finding.rows, finding.letters)
        for partition in finding.unsettled:
            verdict.wrong(UNSETTLED, partition)
    return verdict


class _Tape:
    """One topic, read in the order of each partition."""

    def __init__(self, verdict: Verdict) -> None:
        self.events: dict[Place, Said] = {}
        self.unreadable: dict[Place, bytes | None] = {}
        self.firsts: dict[tuple[str, int], Said] = {}
        """What a producer said of an event, as the tape has it."""
        self._verdict = verdict
        self._reached: dict[tuple[bytes | None, str], int] = {}
        self._partitions: dict[bytes | None, int] = {}

    def take(self, one: Appearance | Unreadable) -> None:
        """The next record."""
        if isinstance(one, Unreadable):
            self._verdict.counts["unreadable"] += 1
            self.unreadable[one.place] = one.value
            return
        self._verdict.counts["on the tape"] += 1
        said = self.events[one.place] = Said(one.event_id, one.digest)
        first = self.firsts.setdefault((one.run_id, one.seq), said)
        if first is not said:
            self._verdict.counts["repeats"] += 1
            if first != said:
                self._verdict.wrong(ALTERED_RECORD, f"{one.place} is a repeat that says something else")
            return
        self._judge_order(one)

    def _judge_order(self, one: Appearance) -> None:
        """First appearances of a key rise with the numbers of their run, and a key has one partition."""
        lane = one.key, one.run_id
        if one.seq < self._reached.get(lane, 0):
            self._verdict.wrong(DISORDER, f"{one.place}: {one.seq} of {one.key!r} behind {self._reached[lane]}")
        self._reached[lane] = max(one.seq, self._reached.get(lane, 0))
        if self._partitions.setdefault(one.key, one.place.partition) != one.place.partition:
            self._verdict.wrong(DISORDER, f"{one.place}: {one.key!r} is in partition {self._partitions[one.key]} too")


def _judge_emission(
    verdict: Verdict, tape: _Tape, said: Mapping[tuple[str, int], Said], rubbish: Counter[bytes | None]
) -> None:
    verdict.counts["emitted"] += len(said)
    promised, found = {one.event_id for one in said.values()}, {one.event_id for one in tape.events.values()}
    for event_id in promised - found:
        verdict.wrong(LOST_BEFORE, event_id)
    for event_id in found - promised:
        verdict.wrong(PHANTOM_RECORD, event_id)
    for (run_id, seq), one in said.items():
        # A run that was killed may have said of its last event that it has it, and the next run then delivers it.
        if tape.firsts.get((run_id, seq), one) != one:
            verdict.wrong(ALTERED_RECORD, one.event_id)
    lie = Counter(tape.unreadable.values())
    for value in (rubbish - lie).elements():
        verdict.wrong(LOST_BEFORE, value)
    for value in (lie - rubbish).elements():
        verdict.wrong(PHANTOM_RECORD, value)


def _judge_history(verdict: Verdict, tape: _Tape, rows: Iterable[Stored], letters: Mapping[Place, int]) -> None:
    verdict.counts["refused"] += len(letters)
    verdict.counts["refused again"] += sum(letters.values()) - len(letters)
    ids: set[str] = set()
    places: set[Place] = set()
    for row in rows:
        verdict.counts["stored"] += 1
        if row.event_id in ids or row.place in places:
            verdict.wrong(DOUBLED, f"{row.event_id} at {row.place}")
        ids.add(row.event_id)
        places.add(row.place)
        _judge_row(verdict, row, tape.events.get(row.place))
    for place in letters:
        if place in places:
            verdict.wrong(STORED_AND_REFUSED, place)
        if place not in tape.events and place not in tape.unreadable:
            verdict.wrong(REFUSED_FROM_NOWHERE, place)
    for place in tape.unreadable.keys() - letters.keys():
        verdict.wrong(LOST, f"{place}, unreadable")
    for event_id in {one.event_id for place, one in tape.events.items() if place not in letters} - ids:
        verdict.wrong(LOST, event_id)


def _judge_row(verdict: Verdict, row: Stored, record: Said | None) -> None:
    if record is None:
        verdict.wrong(PHANTOM, f"{row.event_id} at {row.place}")
    elif record != (row.event_id, row.digest):
        verdict.wrong(ALTERED, f"{row.event_id} at {row.place}")
