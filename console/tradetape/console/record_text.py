"""How a record is shown: as a line for people, as a JSON document for programs. What cannot be decoded is shown too."""

from __future__ import annotations

import base64
from collections.abc import Iterator
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import msgspec

from tradetape.console.letters import MARK, WHY, texts
from tradetape.schemas import Codec, DecodeError, Event
from tradetape.schemas.errors import RegistryUnreachable
from tradetape.streams.dead_letters import CONNECT
from tradetape.streams.record import Record

_COMMON = frozenset(Event.__struct_fields__)
_LETTER_HEADERS = {
    "worker": "x-worker",
    "reason": "x-reason",
    "topic": f"{CONNECT}topic",
    "partition": f"{CONNECT}partition",
    "offset": f"{CONNECT}offset",
    "message": f"{CONNECT}exception.message",
}


class RecordText:
    """Shows the records of a codec's topics."""

    def __init__(self, codec: Codec) -> None:
        self._catalogue = codec.catalogue
        self._codec = codec

    def line(self, record: Record) -> str:
        """One line: when it is true, whose it is, and what it says."""
        if record.topic == self._catalogue.dead_letters_topic:
            if (mark := texts(record).get(MARK)) is not None:
                return f"{_moment(_emitted_at(record))}  {mark}  {(record.key or b'').decode(errors='replace')}"
            letter = _letter(record)
            place = f"{letter['topic']}[{letter['partition']}]@{letter['offset']}"
            return (
                f"{_moment(_emitted_at(record))}  {letter['worker']}  {place}  {letter['reason']}: {letter['message']}"
            )
        try:
            event = self._event(record)
        except DecodeError as error:
            return f"{_moment(_emitted_at(record))}  {record.place}  cannot be decoded: {error}"
        assert event.event_time
        return f"{_moment(event.event_time)}  {event.venue}:{event.symbol}  {' '.join(_said(event))}"

    def document(self, record: Record) -> str:
        """One JSON document: the record's place, and its event, or why there is none. Decimals are text."""
        found: dict[str, Any] = {
            "topic": record.topic,
            "partition": record.partition,
            "offset": record.offset,
            "key": None if record.key is None else record.key.decode(errors="replace"),
            "emitted_at": _emitted_at(record),
        }
        if record.topic == self._catalogue.dead_letters_topic:
            if (mark := texts(record).get(MARK)) is not None:
                found |= {"mark": mark, "why": texts(record).get(WHY, "")}
            else:
                found |= {"dead_letter": _letter(record), "value_base64": _base64(record.value)}
        else:
            try:
                found["event"] = self._event(record)
            except DecodeError as error:
                found |= {
                    "error": {"reason": error.reason, "detail": error.detail},
                    "value_base64": _base64(record.value),
                }
        return msgspec.json.encode(found).decode()

    def _event(self, record: Record) -> Event:
        """Raises DecodeError, also while the schema cannot be had: whoever looks on does not wait."""
        try:
            return self._codec.decode(record.topic, record.value)
        except RegistryUnreachable as error:
            raise DecodeError("registry_unreachable", str(error)) from error


def _said(event: Event) -> Iterator[str]:
    """The event's own fields that say something."""
    for name in event.__struct_fields__:
        value = getattr(event, name)
        if name not in _COMMON and value not in (None, "", (), {}):
            yield f"{name}={_shown(value)}"


def _shown(value: object) -> str:
    if isinstance(value, Decimal):
        return f"{value.normalize():f}"
    if isinstance(value, datetime):
        return _moment(value).replace(" ", "T")
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{name}: {_shown(one)}" for name, one in value.items()) + "}"
    if isinstance(value, tuple):
        return "[" + ", ".join(_shown(one) for one in value) + "]"
    if isinstance(value, msgspec.Struct):
        return _shown(msgspec.structs.asdict(value))
    return str(value)


def _moment(instant: datetime) -> str:
    return f"{instant.astimezone(UTC):%Y-%m-%d %H:%M:%S}Z"


def _emitted_at(record: Record) -> datetime:
    return datetime.fromtimestamp(record.timestamp_ms / 1_000, UTC)


def _letter(record: Record) -> dict[str, str]:
    headers = texts(record)
    return {name: headers.get(header, "") for name, header in _LETTER_HEADERS.items()}


def _base64(value: bytes | None) -> str | None:
    return None if value is None else base64.b64encode(value).decode()
