"""What lies on the topic of dead letters, as an operator counts it: each letter once, with what became of it.

A letter is known by (worker, topic, partition, offset) of its record; a crash may have sent it twice. What became of it
stands in a *mark*, a record of its own behind the letter on the same partition: it needs no other service, is as durable
as the letter, and retention, which deletes from a partition's beginning, never takes it before its letter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple, Self

import msgspec

from tradetape.console.errors import UsageError
from tradetape.streams.dead_letters import CONNECT, WireHeaders
from tradetape.streams.record import Record

OPEN, REDRIVEN, DISCARDED = "open", "redriven", "discarded"
STATES = (OPEN, REDRIVEN, DISCARDED)
MARK = "x-letter-mark"
WHY = "x-letter-why"


class Identity(NamedTuple):
    """What a dead letter is known by: who refused the record, and where that lies."""

    worker: str
    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.worker}:{self.topic}:{self.partition}:{self.offset}"

    @classmethod
    def read(cls, text: str) -> Self:
        """From worker:topic:partition:offset. Raises UsageError."""
        match text.rsplit(":", 3):
            case [worker, topic, partition, offset] if worker and topic and (partition + offset).isdecimal():
                return cls(worker, topic, int(partition), int(offset))
        raise UsageError(f"{text!r} is no dead letter's place: give worker:topic:partition:offset, as `dlq list` does")


class Mark(NamedTuple):
    """What became of a letter, since when, and why."""

    state: str
    at_ms: int
    why: str


class Letter(msgspec.Struct, kw_only=True):
    """One dead letter. Times in milliseconds since 1970: of its first and newest sending, and of its record."""

    worker: str
    topic: str
    partition: int
    offset: int
    reason: str
    state: str = OPEN
    marked_at_ms: int | None = None
    marked_why: str | None = None
    first_at_ms: int
    last_at_ms: int
    times_sent: int = 1
    attempt: int
    event_id: str | None
    schema_id: int | None
    key: str | None
    stage: str
    exception: str
    message: str
    record_at_ms: int | None
    cut_from_bytes: int | None
    """How long the value was that was too long for the topic of dead letters."""
    letter_partition: int
    letter_offset: int
    """Where the newest sending lies on the topic of dead letters."""

    @property
    def identity(self) -> Identity:
        """What it is known by."""
        return Identity(self.worker, self.topic, self.partition, self.offset)

    @property
    def place(self) -> tuple[str, int, int]:
        """Where its record lies, which several workers may have refused."""
        return self.topic, self.partition, self.offset


class Group(NamedTuple):
    """Letters that are alike."""

    worker: str
    topic: str
    reason: str
    state: str
    letters: int
    first_at_ms: int
    last_at_ms: int


class Filter(msgspec.Struct, frozen=True, kw_only=True):
    """Which letters are meant; None is all. Times in milliseconds since 1970, of the newest sending."""

    worker: str | None = None
    topic: str | None = None
    reason: str | None = None
    since_ms: int | None = None
    until_ms: int | None = None
    event_id: str | None = None
    state: str | None = None

    def takes(self, letter: Letter) -> bool:
        """Whether a letter is meant."""
        exact = ("worker", "topic", "reason", "event_id", "state")
        return (
            all(getattr(self, name) in (None, getattr(letter, name)) for name in exact)
            and (self.since_ms is None or letter.last_at_ms >= self.since_ms)
            and (self.until_ms is None or letter.last_at_ms < self.until_ms)
        )


class Letters(dict[Identity, Letter]):
    """The letters of a topic, in the order of their first sending; `strangers` are records that are none."""

    def __init__(self, records: Iterable[Record] = ()) -> None:
        super().__init__()
        self.strangers = 0
        marks: dict[Identity, Mark] = {}
        for record in records:
            self._add(record, marks)
        for identity, mark in marks.items():
            if (letter := self.get(identity)) is not None:
                letter.state, letter.marked_at_ms, letter.marked_why = mark.state, mark.at_ms, mark.why or None

    def _add(self, record: Record, marks: dict[Identity, Mark]) -> None:
        try:
            headers = texts(record)
            if (state := headers.get(MARK)) in STATES:
                marks[Identity.read(_text(record.key))] = Mark(state, record.timestamp_ms, headers.get(WHY, ""))
            else:
                self._add_letter(_letter(record, headers))
        except (UsageError, ValueError):
            self.strangers += 1

    def _add_letter(self, letter: Letter) -> None:
        known = self.setdefault(letter.identity, letter)
        if known is not letter:
            first = min(known.first_at_ms, letter.first_at_ms)
            newest = max(known, letter, key=lambda one: (one.last_at_ms, one.letter_offset))
            self[letter.identity] = msgspec.structs.replace(
                newest, first_at_ms=first, times_sent=known.times_sent + letter.times_sent
            )

    def selected(self, wanted: Filter) -> Iterator[Letter]:
        """Those that are meant."""
        return (letter for letter in self.values() if wanted.takes(letter))


def groups(letters: Iterable[Letter]) -> list[Group]:
    """Letters that are alike, together; those with the newest last."""
    found: dict[tuple[str, str, str, str], Group] = {}
    for one in letters:
        alike = (one.worker, one.topic, one.reason, one.state)
        known = found.get(alike, Group(*alike, 0, one.first_at_ms, one.last_at_ms))
        first, last = min(known.first_at_ms, one.first_at_ms), max(known.last_at_ms, one.last_at_ms)
        found[alike] = Group(*alike, known.letters + 1, first, last)
    return sorted(found.values(), key=lambda group: group.last_at_ms)


def mark_headers(state: str, why: str) -> WireHeaders:
    """The headers of a mark; its key is the letter's identity, and it has no value."""
    return [(MARK, state.encode()), (WHY, why.encode())]


def texts(record: Record) -> Mapping[str, str]:
    """A record's headers as text. One may have been a dead letter before: the last of a name is the newest."""
    return {name: _text(value) for name, value in record.headers}


def _letter(record: Record, headers: Mapping[str, str]) -> Letter:
    """Raises ValueError for a record that is none."""
    worker = headers.get("x-worker") or headers.get(f"{CONNECT}connector.name", "")
    topic, stage = headers.get(f"{CONNECT}topic", ""), headers.get(f"{CONNECT}stage", "")
    if not (worker and topic):
        raise ValueError("names no worker or no topic")
    return Letter(
        worker=worker, topic=topic, partition=int(headers.get(f"{CONNECT}partition", "")),
        offset=int(headers.get(f"{CONNECT}offset", "")), reason=headers.get("x-reason") or stage.lower(), stage=stage,
        first_at_ms=record.timestamp_ms, last_at_ms=record.timestamp_ms, attempt=_number(headers, "x-attempt") or 1,
        event_id=headers.get("x-event-id"), schema_id=_number(headers, "x-schema-id"),
        key=None if record.key is None else _text(record.key), exception=headers.get(f"{CONNECT}exception.class.name", ""),
        message=headers.get(f"{CONNECT}exception.message", ""), record_at_ms=_number(headers, "x-timestamp"),
        cut_from_bytes=_number(headers, "x-value-bytes"), letter_partition=record.partition, letter_offset=record.offset,
    )  # fmt: skip


def _number(headers: Mapping[str, str], name: str) -> int | None:
    return int(headers[name]) if name in headers else None


def _text(value: bytes | None) -> str:
    return (value or b"").decode(errors="replace")
