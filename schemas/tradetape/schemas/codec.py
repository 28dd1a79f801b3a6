"""Events to bytes and back: Confluent's frame (a zero byte, the schema's id as 4 bytes big-endian) around Avro.

Every Kafka tool reads this frame. A reader decodes only with schemas that belong to the record's topic, never with
one that a payload merely names, and checks size, frame and that the whole payload was consumed: fastavro checks none.
What writes a record or reads it is made at its first one, since most processes do one of both with a few records.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from tradetape.schemas import avro_schema, times
from tradetape.schemas.avro_reader import Reader, compile_reader
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.avro_writer import RecordSource, Writer, compile_writer, record_source
from tradetape.schemas.catalogue import MAX_EVENT_BYTES, Catalogue, EventType
from tradetape.schemas.errors import DecodeError, EventError, NotRegistered
from tradetape.schemas.events import Event
from tradetape.schemas.released import released_schemas
from tradetape.schemas.restoring import Restore, compile_restore

if TYPE_CHECKING:
    from tradetape.schemas.resolution import Resolution

_FRAME = struct.Struct(">bI")
_UUID_LENGTH = 36
_ECHOES = {"event_id": "correlation_id"}
"""An event that begins a chain is its correlation."""
_OF_ONE_RUN = ("producer", "producer_run_id", "venue", "symbol")
"""Fields that one process writes again and again with the same values, besides those of a series."""


class LookUp(Protocol):
    """Where schemas are looked for that were not there at the start; LateSchemas is one."""

    def find(self, event_type: EventType, subject: str, schema_id: int) -> Schema | None:
        """The schema under an id of a subject, safe to read with; None for none. Raises RegistryUnreachable."""


class _Written:
    """What one schema has written, read as its event type has it now."""

    __slots__ = ("_event_type", "_resolution", "_schema", "is_head")

    def __init__(self, event_type: EventType, schema: Schema) -> None:
        self.is_head = _is_head(event_type, schema)
        self._event_type = event_type
        self._schema = schema
        self._resolution: Resolution | None = None

    def read(self, payload: bytes) -> dict[str, Any]:
        """The plain fields of a framed payload. Raises DecodeError."""
        if self._resolution is None:
            # Here: fastavro is an eighth of what a bot would import, and a bot only writes.
            from tradetape.schemas.resolution import Resolution

            self._resolution = Resolution(self._schema, None if self.is_head else self._event_type.schema)
        return self._resolution.read(payload, start=_FRAME.size)


class _Reader(NamedTuple):
    event_type: EventType
    written: dict[bytes, _Written]
    """By the frames of those schemas that may have written records of this topic."""


class Codec:
    """Encodes and decodes the events of one catalogue. No schema is parsed on the hot path.

    `registered` holds what a schema registry has of each subject, as registry.read gives it. Events are then written
    under the registry's ids; those of the content are still read. Raises NotRegistered where it lacks a head. With a
    `look_up` every method that decodes may raise RegistryUnreachable, for a record whose schema cannot be had now.
    """

    def __init__(
        self,
        catalogue: Catalogue,
        *,
        registered: Mapping[str, Mapping[int, Schema]] | None = None,
        look_up: LookUp | None = None,
    ) -> None:
        self.catalogue = catalogue
        self._look_up = look_up
        self._readers: dict[str, _Reader] = {}
        self._frames: dict[str, bytes] = {}
        """What a record's bytes begin with, by its name."""
        self._writers: dict[str, Writer] = {}
        self._restorers: dict[str, Restore] = {}
        """What makes a topic's events, by its name."""
        self._readers_of_head: dict[str, Reader] = {}
        for one in catalogue:
            topic, subject = catalogue.topic_name(one), catalogue.subject(one)
            versions = registered.get(subject, {}) if registered is not None else {}
            self._readers[topic] = _reader(one, versions)
            self._frames[one.record] = _frame(
                one.schema_id if registered is None else _registered_id(one, subject, versions)
            )
        self._known_frames = {frame for reader in self._readers.values() for frame in reader.written}

    def encode(self, event_type: EventType, plain: Mapping[str, Any]) -> bytes:
        """The framed bytes of an event's plain fields. Raises EventError when they are more than a topic takes."""
        write = self._writers.get(event_type.record) or self._new_writer(event_type)
        payload = write(plain)
        if len(payload) > MAX_EVENT_BYTES:
            raise EventError(event_type.record, "event_id", plain["event_id"], too_large(payload))
        return payload

    def writing(self, event_type: EventType) -> RecordSource:
        """What `encode` does, but for its check, as text: for a function that makes the plain fields itself."""
        head, repeated = self._frames[event_type.record], _repeated(event_type)
        return record_source(event_type.schema, head=head, repeated=repeated, echoes=_ECHOES)

    def _new_writer(self, event_type: EventType) -> Writer:
        head, repeated = self._frames[event_type.record], _repeated(event_type)
        writer = compile_writer(event_type.schema, head=head, repeated=repeated)
        self._writers[event_type.record] = writer
        return writer

    def decode(self, topic: str, payload: bytes | None) -> Event:
        """The event of a record's value, with aware datetimes, Decimals, enums and structs. Raises DecodeError."""
        return self.typed(topic, self.decode_fields(topic, payload))

    def typed(self, topic: str, plain: Mapping[str, Any]) -> Event:
        """The event of plain fields as decode_fields gives them. Raises DecodeError."""
        restore = self._restorers.get(topic) or self._new_restore(topic)
        try:
            event: Event = restore(plain)
        except (ValueError, ArithmeticError, LookupError) as error:
            raise DecodeError("invalid_value", f"{self._readers[topic].event_type.record}: {error}") from error
        return event

    def _new_restore(self, topic: str) -> Restore:
        event_type = self._readers[topic].event_type
        restore = compile_restore(event_type.event_class, event_type.schema, event_type.plans)
        self._restorers[topic] = restore
        return restore

    def decode_fields(self, topic: str, payload: bytes | None) -> dict[str, Any]:
        """The plain fields of a record's value: integers of microseconds, decimals as Avro bytes, enums as text.

        Raises DecodeError, and CatalogueError for a topic that the catalogue does not hold.
        """
        reader = self._readers.get(topic)
        if reader is None:
            self.catalogue.by_topic(topic)
            raise AssertionError("unreachable: by_topic refuses unknown topics")
        if payload is None or not payload:
            raise DecodeError("empty", "the record has no value")
        if len(payload) > MAX_EVENT_BYTES:
            raise DecodeError("oversized", f"{len(payload)} bytes; at most {MAX_EVENT_BYTES} are decoded")
        written = reader.written.get(payload[: _FRAME.size]) or self._new_schema(reader, payload)
        plain = None
        if written.is_head:
            record = reader.event_type.record
            plain = (self._readers_of_head.get(record) or self._new_reader(reader.event_type))(payload)
        if plain is None:
            plain = written.read(payload)
        _check_plain(plain)
        return plain

    def _new_reader(self, event_type: EventType) -> Reader:
        made = compile_reader(event_type.schema, start=_FRAME.size, repeated=_repeated(event_type))
        self._readers_of_head[event_type.record] = made
        return made

    def _new_schema(self, reader: _Reader, payload: bytes) -> _Written:
        """What wrote a payload that begins with none of its topic's frames, where the registry knows it by now.

        Raises DecodeError, RegistryUnreachable.
        """
        refusal, one = self._foreign(payload), reader.event_type
        if self._look_up is None or refusal.reason != "unknown_schema_id":
            raise refusal
        schema = self._look_up.find(one, self.catalogue.subject(one), _FRAME.unpack_from(payload)[1])
        if schema is None:
            raise refusal
        frame = payload[: _FRAME.size]
        found = reader.written[frame] = _Written(one, schema)
        self._known_frames.add(frame)
        return found

    def _foreign(self, payload: bytes) -> DecodeError:
        """Why a payload begins with none of its topic's frames."""
        if len(payload) < _FRAME.size:
            return DecodeError("truncated" if payload[0] == 0 else "bad_magic", f"only {len(payload)} bytes")
        magic, schema_id = _FRAME.unpack_from(payload)
        if magic != 0:
            return DecodeError("bad_magic", f"starts with byte {payload[0]}, not 0")
        if payload[: _FRAME.size] in self._known_frames:
            return DecodeError("foreign_schema_id", f"schema {schema_id} belongs to another topic")
        return DecodeError("unknown_schema_id", f"schema {schema_id} is not known here")


def too_large(payload: bytes) -> str:
    """The rule that framed bytes of more than MAX_EVENT_BYTES break."""
    return f"the event has {len(payload)} bytes, more than the {MAX_EVENT_BYTES} that a topic takes"


def _reader(event_type: EventType, versions: Mapping[int, Schema]) -> _Reader:
    schemas = {avro_schema.content_id(schema): schema for schema in released_schemas(event_type.record)}
    schemas |= {event_type.schema_id: event_type.schema, **versions}
    return _Reader(event_type, {_frame(number): _Written(event_type, schema) for number, schema in schemas.items()})


def _repeated(event_type: EventType) -> set[str]:
    """Fields of a record that are worth remembering."""
    repeated = {*_OF_ONE_RUN, *event_type.series_key}
    # Many markets' bars close at one time.
    return repeated if event_type.event_time_from is None else {*repeated, "event_time", event_type.event_time_from}


def _is_head(event_type: EventType, schema: Schema) -> bool:
    return avro_schema.content_id(schema) == event_type.schema_id


def _registered_id(event_type: EventType, subject: str, versions: Mapping[int, Schema]) -> int:
    found = next((number for number, schema in versions.items() if _is_head(event_type, schema)), None)
    if found is None:
        raise NotRegistered(subject)
    return found


def _frame(schema_id: int) -> bytes:
    return _FRAME.pack(0, schema_id)


def _check_plain(plain: Mapping[str, Any]) -> None:
    if len(plain["event_id"]) != _UUID_LENGTH:
        raise DecodeError("invalid_value", "event_id is not a UUID")
    try:
        times.check_range(plain["event_time"])
    except (ValueError, OverflowError) as error:
        raise DecodeError("invalid_value", f"event_time {error}") from error
