"""The proof: what was emitted, and what follows from it, is on the tape, and what is there is in the history or a dead letter, once.

Sets are compared, not counts: one event lost and another one doubled do not cancel out. Pure functions; what they
compare was read from Kafka and PostgreSQL without asking the workers.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import NamedTuple

import msgspec

from tradetape.console.demo.topic_content import Place, TopicContent

NAMED = 3
"""How many of the events at fault a sentence names."""


class Fault(NamedTuple):
    """Something that differs: how many times, and the sentence that says what."""

    times: int
    sentence: str


class RecordLine(msgspec.Struct, frozen=True, kw_only=True):
    """One record's line of the final table. Events are counted by distinct id, what cannot be decoded by its place.

    `expected` is what the bot emitted, or what has to follow from that.
    """

    record: str
    expected: int
    on_topic: int
    undecodable: int
    in_postgres: int
    dead_letters: int
    difference: int
    faults: tuple[str, ...]


def reconcile_record(
    content: TopicContent, *, expected: Collection[str], rows: Sequence[str], dead_letters: Collection[Place]
) -> RecordLine:
    """Compare what is expected, the topic, the table's rows and the history sink's dead letters of one record."""
    expected, dead = set(expected), set(dead_letters)
    faults = [
        *_on_the_way_to_the_topic(content, expected),
        *_on_the_way_to_the_table(content, rows, dead),
        *_dead_letters(content, dead),
    ]
    return RecordLine(
        record=content.event_type.record,
        expected=len(expected),
        on_topic=len(content.ids),
        undecodable=len(content.unreadable),
        in_postgres=len(rows),
        dead_letters=len(dead),
        difference=sum(fault.times for fault in faults),
        faults=tuple(fault.sentence for fault in faults),
    )


def _on_the_way_to_the_topic(content: TopicContent, expected: set[str]) -> list[Fault]:
    on_topic = content.ids
    return [
        *faults_of(expected - on_topic, f"expected, but not on {content.topic}"),
        *faults_of(on_topic - expected, f"on {content.topic}, but not expected"),
        *faults_of(content.altered, f"on {content.topic} more than once, and not the same"),
    ]


def _on_the_way_to_the_table(content: TopicContent, rows: Sequence[str], dead: set[Place]) -> list[Fault]:
    expected = {event_id for place, event_id in content.id_at.items() if place not in dead}
    times = Counter(rows)
    table = content.event_type.table
    return [
        *faults_of(expected - times.keys(), f"on {content.topic}, but neither in table {table} nor a dead letter"),
        *faults_of(times.keys() - expected, f"in table {table}, but not on {content.topic}"),
        *faults_of({event_id for event_id, count in times.items() if count > 1}, f"more than once in table {table}"),
    ]


def _dead_letters(content: TopicContent, dead: set[Place]) -> list[Fault]:
    unreadable = content.unreadable.keys()
    known = unreadable | content.id_at.keys()
    return [
        *faults_of(_named(content, unreadable - dead), "undecodable, but not among the dead letters"),
        *faults_of(_named(content, dead - known), "a dead letter, but not on its topic"),
    ]


def _named(content: TopicContent, places: Collection[Place]) -> set[str]:
    return {f"{content.topic}[{place.partition}]@{place.offset}" for place in places}


def faults_of(what: Collection[str], is_wrong: str) -> list[Fault]:
    """The fault that all of these have; none where there are none."""
    if not what:
        return []
    named = sorted(what)[:NAMED]
    more = f" and {len(what) - len(named)} more" if len(what) > len(named) else ""
    return [Fault(len(what), f"{len(what)} {is_wrong}: {', '.join(named)}{more}")]
