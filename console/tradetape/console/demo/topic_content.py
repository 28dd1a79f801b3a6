"""What one run left on a topic, counted from the raw records: events by id, what cannot be decoded, the newest of each series.

It asks no worker. Two records of one event count once; an undecodable record counts by its place on the tape. Decisions
and money are kept whole, since they are few and have to agree with each other.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any, NamedTuple

from tradetape.console.demo.bot import SOURCE
from tradetape.schemas import Codec, DecodeError, EventType
from tradetape.schemas.catalogue import Delivery
from tradetape.streams.record import Record

WORKER_HEADER = "x-worker"
PLACE_HEADERS = tuple(f"__connect.errors.{name}" for name in ("topic", "partition", "offset"))
STAMPED_ANEW = ("emitted_at", "producer_run_id", "producer_seq")
"""What may differ where an event is told again after a crash."""


class Place(NamedTuple):
    """Where a record lies on its topic."""

    partition: int
    offset: int


class Newest(NamedTuple):
    """The newest event of a series: plain fields as Codec.decode_fields gives them."""

    event_time_us: int
    place: Place
    record: Record
    fields: dict[str, Any]


class TopicContent:
    """One venue's events on one topic."""

    def __init__(self, *, event_type: EventType, codec: Codec, venue: str) -> None:
        self.event_type = event_type
        self.topic = codec.catalogue.topic_name(event_type)
        self.id_at: dict[Place, str] = {}
        self.derived: set[str] = set()
        """Ids of events that somebody else emitted than the bot."""
        self.unreadable: dict[Place, str] = {}
        """Reasons by place."""
        self.newest: dict[tuple[Hashable, ...], Newest] = {}
        """By the values of the series key; empty for records that are nobody's successor."""
        self.events: dict[str, dict[str, Any]] = {}
        """Decisions and money by id, as plain fields; empty for market data."""
        self.altered: set[str] = set()
        """The ids of those that came again and said something else."""
        self._codec = codec
        self._venue = venue

    @property
    def ids(self) -> set[str]:
        """The distinct event ids."""
        return set(self.id_at.values())

    def add(self, record: Record) -> None:
        """Take a record in; one of another venue is passed over."""
        place = Place(record.partition, record.offset)
        try:
            fields = self._codec.decode_fields(record.topic, record.value)
        except DecodeError as error:
            # Nothing inside of it can be trusted, so its key says whose it is.
            if is_of(self._venue, record.key):
                self.unreadable[place] = error.reason
            return
        if fields["venue"] == self._venue:
            self.id_at[place] = fields["event_id"]
            if fields["producer"] != SOURCE:
                self.derived.add(fields["event_id"])
            self._fold(record, place, fields)
            if self.event_type.delivery is Delivery.DECISION:
                self._keep(fields)

    def _keep(self, fields: dict[str, Any]) -> None:
        known = self.events.setdefault(fields["event_id"], fields)
        if any(known[name] != value for name, value in fields.items() if name not in STAMPED_ANEW):
            self.altered.add(fields["event_id"])

    def _fold(self, record: Record, place: Place, fields: dict[str, Any]) -> None:
        if self.event_type.series_key:
            series = tuple(fields[name] for name in self.event_type.series_key)
            found = Newest(fields["event_time"], place, record, fields)
            known = self.newest.get(series)
            if known is None or (known.event_time_us, known.place.offset) < (found.event_time_us, place.offset):
                self.newest[series] = found


def contents_of(codec: Codec, venue: str) -> dict[str, TopicContent]:
    """An empty content for each topic of the codec's catalogue, by the topic's name."""
    return {
        codec.catalogue.topic_name(one): TopicContent(event_type=one, codec=codec, venue=venue)
        for one in codec.catalogue
    }


def dead_letter_places(records: Iterable[Record], *, worker: str, venue: str) -> dict[str, set[Place]]:
    """Where the records lie that a worker refused, by topic. One that was sent twice counts once."""
    found: dict[str, set[Place]] = {}
    for record in records:
        # A record may have been a dead letter before: the last header of a name is the newest.
        headers = {name: (value or b"").decode(errors="replace") for name, value in record.headers}
        if headers.get(WORKER_HEADER) == worker and is_of(venue, record.key):
            topic, partition, offset = (headers.get(name, "") for name in PLACE_HEADERS)
            found.setdefault(topic, set()).add(Place(int(partition), int(offset)))
    return found


def is_of(venue: str, key: bytes | None) -> bool:
    """Whether a record's key, venue:symbol, names the venue."""
    return key is not None and key.startswith(f"{venue}:".encode())
