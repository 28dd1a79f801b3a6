"""The proof: what was emitted is on the tape, and what is on the tape is in the history or among the dead letters, once.

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

    What workers made of the bot's events counts as emitted with its appearance on the topic.
    """

    record: str
    emitted: int
    on_topic: int
    undecodable: int
    in_postgres: int
    dead_letters: int
    difference: int
    faults: tuple[str, ...]


def reconcile_record(
    content: TopicContent, *, emitted: Collection[str], rows: Sequence[str], dead_letters: Collection[Place]
) -> RecordLine:
    """Compare what the bot emitted, the topic, the table's rows and the history sink's dead letters of one record."""
    emitted, dead = set(emitted), set(dead_letters)
    faults = [
        *_on_the_way_to_the_topic(content, emitted),
        *_on_the_way_to_the_table(content, rows, dead),
        *_dead_letters(content, dead),
    ]
    return RecordLine(
        record=content.event_type.record,
        emitted=len(emitted | content.derived),
        on_topic=len(content.ids),
        undecodable=len(content.unreadable),
        in_postgres=len(rows),
        dead_letters=len(dead),
        difference=sum(fault.times for fault in faults),
        faults=tuple(fault.sentence for fault in faults),
    )


def _on_the_way_to_the_topic(content: TopicContent, emitted: set[str]) -> list[Fault]:
    on_topic = content.ids
    return [
        *_fault(emitted - on_topic, f"emitted, but not on {content.topic}"),
        *_fault(on_topic - emitted - content.derived, f"on {content.topic}, but never emitted"),
    ]


def _on_the_way_to_the_table(content: TopicContent, rows: Sequence[str], dead: set[Place]) -> list[Fault]:
    expected = {event_id for place, event_id in content.id_at.items() if place not in dead}
    times = Counter(rows)
    table = content.event_type.table
    return [
        *_fault(expected - times.keys(), f"on {content.topic}, but neither in table {table} nor a dead letter"),
        *_fault(times.keys() - expected, f"in table {table}, but not on {content.topic}"),
        *_fault({event_id for event_id, count in times.items() if count > 1}, f"more than once in table {table}"),
    ]


def _dead_letters(content: TopicContent, dead: set[Place]) -> list[Fault]:
    unreadable = content.unreadable.keys()
    known = unreadable | content.id_at.keys()
    return [
        *_fault(_named(content, unreadable - dead), "undecodable, but not among the dead letters"),
        *_fault(_named(content, dead - known), "a dead letter, but not on its topic"),
    ]


def _named(content: TopicContent, places: Collection[Place]) -> set[str]:
    return {f"{content.topic}[{place.partition}]@{place.offset}" for place in places}


def _fault(what: Collection[str], is_wrong: str) -> list[Fault]:
    if not what:
        return []
    named = sorted(what)[:NAMED]
    more = f" and {len(what) - len(named)} more" if len(what) > len(named) else ""
    return [Fault(len(what), f"{len(what)} {is_wrong}: {', '.join(named)}{more}")]
