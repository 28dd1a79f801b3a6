"""Which records `tail` shows: the newest, those from a place on, or those that come."""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime, timedelta
from typing import NamedTuple, Self

from tradetape.console.errors import UsageError
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import Catalogue
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record
from tradetape.streams.time_order import Timed, in_time_order
from tradetape.streams.topic_reader import TopicReader

BEGINNING = "beginning"
_STRETCH = re.compile(r"([0-9]+)([smhd])")
_TIMES = "give one such as 2026-01-31T12:00Z, a stretch before now such as 2h"
_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


class Place(NamedTuple):
    """A place on a topic: an offset, the same in each partition, or a time of emission in milliseconds."""

    offset: int | None = None
    timestamp_ms: int | None = None


class Selection(NamedTuple):
    """What to show. `limit` is how many: the newest without `start`, else the first ones."""

    topic: str
    start: Place | None
    end: Place | None
    limit: int | None
    follow: bool


def place(text: str, *, now: Callable[[], datetime] = lambda: datetime.now(UTC)) -> Place:
    """A place as people write it. Raises UsageError."""
    if text == BEGINNING:
        return Place(offset=0)
    if text.isdecimal():
        return Place(offset=int(text))
    choices = f"place on a topic: {_TIMES}, an offset, or {BEGINNING}"
    return Place(timestamp_ms=int(instant(text, choices=choices, now=now).timestamp() * 1_000))


def instant(
    text: str, *, choices: str = f"time: {_TIMES}", now: Callable[[], datetime] = lambda: datetime.now(UTC)
) -> datetime:
    """A time as people write it; `choices` says what else they might have written. Raises UsageError."""
    if (stretch := _STRETCH.fullmatch(text)) is not None:
        return now() - timedelta(**{_UNITS[stretch[2]]: int(stretch[1])})
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise UsageError(f"{text!r} is no {choices}") from None
    if found.tzinfo is None:
        raise UsageError(f"{text!r} is a time without a zone: end it with Z for UTC")
    return found


def topic_named(catalogue: Catalogue, name: str) -> str:
    """The full name of a topic that is given with or without prefix, or by its record. Raises UsageError."""
    if name in (catalogue.dead_letters_topic, catalogue.dead_letters_topic.removeprefix(catalogue.prefix)):
        return catalogue.dead_letters_topic
    for one in catalogue:
        if name in (one.record, one.topic, catalogue.topic_name(one)):
            return catalogue.topic_name(one)
    known = ", ".join(topic.name.removeprefix(catalogue.prefix) for topic in catalogue.topics())
    raise UsageError(f"there is no topic {name!r}; there are {known}")


class TopicTail:
    """Reads what was selected."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._reader = TopicReader(kafka)

    def records(self, selection: Selection) -> Iterator[Record]:
        """The records in the order of their emission; then, with `follow`, what comes.

        Raises TopicMissing, BrokersUnreachable, HistoryLost.
        """
        partitions = self._reader.partitions_of(selection.topic)
        ends = self._reader.ends(partitions)
        yield from _limited(self._stored(selection, partitions, ends), selection)
        if selection.follow:
            yield from self._reader.follow(ends)

    def _stored(
        self, selection: Selection, partitions: list[Partition], ends: dict[Partition, int]
    ) -> Iterator[Record]:
        begins = self._reader.begins(partitions)
        if selection.end is not None:
            found = self._offsets(selection.end, partitions)
            ends = {one: min(ends[one], found[one]) for one in partitions}
        if selection.start is not None:
            found = self._offsets(selection.start, partitions)
        else:
            # The newest of all are among the newest of each partition.
            found = {one: ends[one] - (selection.limit or 0) for one in partitions}
        starts = {one: min(max(begins[one], found[one]), ends[one]) for one in partitions}
        timed = (Timed(record.timestamp_ms * 1_000, record) for record in self._reader.read(starts, ends))
        return (one.record for one in in_time_order(timed))

    def _offsets(self, where: Place, partitions: list[Partition]) -> dict[Partition, int]:
        if where.timestamp_ms is not None:
            return self._reader.offsets_at(partitions, where.timestamp_ms)
        assert where.offset is not None
        return dict.fromkeys(partitions, where.offset)

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _limited(records: Iterator[Record], selection: Selection) -> Iterable[Record]:
    if selection.limit is None:
        return records
    if selection.start is None:
        return deque(records, maxlen=selection.limit)
    return (record for record, _ in zip(records, range(selection.limit), strict=False))
