"""The tape as something to read: events of a stretch of time for a backtest, or as they come.

Reading joins no group and moves no offset, so it disturbs no worker (I10).
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterator
from datetime import datetime
from typing import Any, Literal, NamedTuple, Self, TypeVar, cast

from tradetape.producers.codecs import codec_of
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import Settings, load
from tradetape.schemas import CATALOGUE, Catalogue, Codec, DecodeError, Event, EventType, times
from tradetape.schemas.errors import RegistryUnreachable
from tradetape.streams.backoff import Backoff
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record
from tradetape.streams.time_order import RUN_BYTES, Timed, in_time_order
from tradetape.streams.topic_reader import TopicReader

logger = logging.getLogger("tradetape.streams")

EventT = TypeVar("EventT", bound=Event)
Order = Literal["time", "tape"]

MARGIN_US = times.DAY_US
"""No event is emitted more than this before its event time, so what was emitted earlier cannot be of the stretch."""


class Tape:
    """Reads the events of one catalogue's topics.

    `undecodable` counts the records that reads have passed over, by reason; workers put the same records among the
    dead letters.
    """

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        catalogue: Catalogue = CATALOGUE,
        codec: Codec | None = None,
        run_bytes: int = RUN_BYTES,
    ) -> None:
        self.catalogue = catalogue
        self.undecodable: Counter[str] = Counter()
        self._codec = codec or Codec(catalogue)
        self._reader = TopicReader(kafka)
        self._run_bytes = run_bytes

    @classmethod
    def from_env(cls, settings: Settings | None = None) -> Self:
        """The tape that the environment names. Raises SettingsError, and RegistryError as codec_of does."""
        settings = settings or load()
        return cls(kafka=KafkaSettings.of(settings), catalogue=settings.catalogue(), codec=codec_of(settings))

    def read(
        self,
        event_class: type[EventT],
        start: datetime | None = None,
        end: datetime | None = None,
        *,
        order: Order = "time",
        in_progress: bool = False,
        follow: bool = False,
        stop: threading.Event | None = None,
    ) -> Iterator[EventT]:
        """The events with start <= event_time < end, from what is on the tape now.

        order="time" gives each event once, by event time, sorted with bounded memory; order="tape" gives them as they
        are stored, repeats included, at full speed. Candles and indicator updates of bars in progress are left out
        unless `in_progress`. follow=True goes on with what comes, until `stop` is set, and cannot order by time.

        Raises ValueError for naive times, CatalogueError, TopicMissing, BrokersUnreachable, HistoryLost, and
        RegistryUnreachable for a record whose schema cannot be had now; with follow=True that is waited for.
        """
        if follow and (order == "time" or end is not None):
            raise ValueError('follow=True gives events as they come: use order="tape" and no end')
        event_type = self.catalogue.by_class(event_class)
        within = Stretch.of(start, end)
        stop = stop or threading.Event()
        records = self._records(event_type, within.start_us, follow=follow, stop=stop)
        kept = self._kept(records, within, in_progress=in_progress, waiting=stop if follow else None)
        events = _once(self._sorted(kept)) if order == "time" else self._as_stored(kept)
        return cast("Iterator[EventT]", events)

    def _records(
        self, event_type: EventType, start_us: int | None, *, follow: bool, stop: threading.Event
    ) -> Iterator[Record]:
        partitions = self.partitions(event_type)
        starts = self._reader.begins(partitions)
        if start_us is not None:
            starts = self._reader.offsets_at(partitions, (start_us - MARGIN_US) // 1_000)
        if follow:
            return self._reader.follow(starts, stop=stop)
        return self._reader.read(starts, self._reader.ends(partitions))

    def partitions(self, event_type: EventType) -> list[Partition]:
        """The partitions of an event type's topic. Raises TopicMissing."""
        return self._reader.partitions_of(self.catalogue.topic_name(event_type))

    def _kept(
        self, records: Iterator[Record], within: Stretch, *, in_progress: bool, waiting: threading.Event | None
    ) -> Iterator[tuple[Record, dict[str, Any]]]:
        for record in records:
            plain = self._decoded(record) if waiting is None else self._decoded_at_last(record, waiting)
            if plain is None or not within.holds(plain["event_time"]):
                continue
            if in_progress or plain.get("is_final") is not False:
                yield record, plain

    def _as_stored(self, kept: Iterator[tuple[Record, dict[str, Any]]]) -> Iterator[Event]:
        return (self._codec.typed(record.topic, plain) for record, plain in kept)

    def _sorted(self, kept: Iterator[tuple[Record, dict[str, Any]]]) -> Iterator[Event]:
        timed = (Timed(plain["event_time"], record) for record, plain in kept)
        for one in in_time_order(timed, run_bytes=self._run_bytes):
            yield self._codec.decode(one.record.topic, one.record.value)

    def _decoded(self, record: Record) -> dict[str, Any] | None:
        try:
            return self._codec.decode_fields(record.topic, record.value)
        except DecodeError as error:
            self.undecodable[error.reason] += 1
            logger.warning("passed over %s: %s", record.place, error)
            return None

    def _decoded_at_last(self, record: Record, stop: threading.Event) -> dict[str, Any] | None:
        backoff = Backoff()
        while not stop.is_set():
            try:
                return self._decoded(record)
            except RegistryUnreachable as error:
                logger.warning("waiting: %s", error)
                stop.wait(backoff.next_s())
        return None

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Stretch(NamedTuple):
    """A stretch of event time in microseconds; None is open."""

    start_us: int | None
    end_us: int | None

    @classmethod
    def of(cls, start: datetime | None, end: datetime | None) -> Self:
        """Raises ValueError for naive times."""
        return cls(*(None if one is None else times.from_datetime(one) for one in (start, end)))

    def holds(self, event_time_us: int) -> bool:
        """Whether a time lies in it."""
        return (self.start_us is None or event_time_us >= self.start_us) and (
            self.end_us is None or event_time_us < self.end_us
        )


def _once(events: Iterator[Event]) -> Iterator[Event]:
    """Leave out repeats: two records of one event have one id and one event time."""
    now: datetime | None = None
    seen: set[str | None] = set()
    for event in events:
        if event.event_time != now:
            now, seen = event.event_time, set()
        if event.event_id not in seen:
            seen.add(event.event_id)
            yield event
