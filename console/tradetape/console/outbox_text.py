"""How a decision in an outbox is shown: a line for people, a JSON document from which it can be emitted again."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import msgspec

from tradetape.console.record_text import RecordText
from tradetape.producers.outbox.store import Entry
from tradetape.schemas import Codec, DecodeError, Event
from tradetape.schemas.errors import CatalogueError, RegistryUnreachable
from tradetape.streams.record import Record


class OutboxText:
    """Shows the entries of outboxes. Topics of another prefix than the codec's are shown undecoded."""

    def __init__(self, codec: Codec) -> None:
        self._codec = codec
        self._records = RecordText(codec)

    def line(self, entry: Entry) -> str:
        """One line: its number, where it goes, what it says, and why it is parked."""
        parked = f"  PARKED: {entry.cause}" if entry.cause is not None else ""
        return f"{entry.number:>7}  {entry.topic}  {entry.event_id}  {self._said(entry)}{parked}"

    def document(self, entry: Entry) -> str:
        """One JSON document: its place, and its event, or why there is none and its bytes. Decimals are text."""
        found: dict[str, Any] = {
            "number": entry.number,
            "topic": entry.topic,
            "key": entry.key.decode(errors="replace"),
            "event_id": entry.event_id,
            "emitted_at": _emitted_at(entry),
            "parked": entry.cause is not None,
            "cause": entry.cause,
        }
        try:
            found["event"] = self._event(entry)
        except DecodeError as error:
            found |= {
                "error": {"reason": error.reason, "detail": error.detail},
                "payload_base64": base64.b64encode(entry.payload).decode(),
            }
        return msgspec.json.encode(found).decode()

    def _said(self, entry: Entry) -> str:
        try:
            self._event(entry)
        except DecodeError as error:
            return f"cannot be decoded: {error}"
        record = Record(entry.topic, 0, entry.number, entry.key, entry.payload, (), entry.timestamp_ms)
        return self._records.line(record)

    def _event(self, entry: Entry) -> Event:
        """Raises DecodeError, also where a damaged page makes the entry contradict itself."""
        try:
            event = self._codec.decode(entry.topic, entry.payload)
        except CatalogueError as error:
            raise DecodeError(
                "foreign_topic", f"{error}; TRADETAPE_TOPIC_PREFIX says what topics begin with"
            ) from error
        except RegistryUnreachable as error:
            raise DecodeError("registry_unreachable", str(error)) from error
        if event.event_id != entry.event_id:
            raise DecodeError("invalid_value", f"the payload is that of {event.event_id}")
        return event


def _emitted_at(entry: Entry) -> datetime | None:
    """None where it is no time at all."""
    try:
        return datetime.fromtimestamp(entry.timestamp_ms / 1_000, UTC)
    except (OverflowError, ValueError, OSError):
        return None
