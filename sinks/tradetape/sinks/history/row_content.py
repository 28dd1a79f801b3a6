"""What an event says and what its row says, in one form, so that they can be compared to the last digit.

A row is read by PostgreSQL's own types and not with the code that writes rows, so a defect of that cannot hide itself. An
indicator counts as the same whether it has a column of its own or lies in `extra`.
"""

from __future__ import annotations

import hashlib
import uuid
from collections.abc import Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any

import msgspec

from tradetape.schemas import decimals, times
from tradetape.schemas.catalogue import EventType
from tradetape.sinks.history.tables import OPEN_MAP, PLACE, REST, Documents
from tradetape.streams.record import Record

DIGEST_BYTES = 16
WHOLE = {"timestamp-micros", "int", "long"}
Content = dict[str, Any]
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


class RowContent:
    """The content of one event type's events and rows, by field."""

    def __init__(self, event_type: EventType, columns: Iterable[str]) -> None:
        documents = Documents(event_type.schema)
        schemas = {field["name"]: field["type"] for field in event_type.schema["fields"]}
        self._kinds = {name: documents.kind(schema)[0] for name, schema in schemas.items()}
        self._converters = {name: documents.converter(schema) for name, schema in schemas.items()}
        self._indicators: tuple[str, ...] = ()
        if OPEN_MAP in schemas and OPEN_MAP not in columns and REST in columns:
            self._indicators = tuple(name for name in columns if name not in {*schemas, *PLACE, REST})

    def of_event(self, record: Record, plain: Mapping[str, Any]) -> Content:
        """What the row of an event has to say. Raises ValueError for an event that no row can hold."""
        found = {name: self._from_tape(name, plain[name]) for name in self._kinds}
        found["event_id"] = str(uuid.UUID(plain["event_id"]))
        return found | {"topic": record.topic, "partition": record.partition, "offset": record.offset}

    def _from_tape(self, name: str, value: Any) -> Any:
        if value is None:
            return None
        if self._kinds[name] == "decimal":
            return decimals.to_text(value)
        if self._kinds[name] in WHOLE:
            return value
        convert = self._converters[name]
        return _levelled(convert(value) if convert else value)

    def of_row(self, row: Mapping[str, Any]) -> Content:
        """What a row says."""
        found = {name: _from_row(row[name]) for name in (*self._kinds, *PLACE) if name in row}
        if self._indicators:
            own = {name: _from_row(row[name]) for name in self._indicators if row[name] is not None}
            found[OPEN_MAP] = own | _levelled(row[REST] or {})
        return found


def digest(content: Content) -> bytes:
    """A hash of the whole content."""
    return hashlib.blake2b(_encode(content), digest_size=DIGEST_BYTES).digest()


def differing(ours: Content, theirs: Content) -> list[str]:
    """The fields that differ."""
    return [name for name in sorted({*ours, *theirs}) if ours.get(name) != theirs.get(name)]


def _from_row(value: Any) -> Any:
    if isinstance(value, datetime):
        return times.from_datetime(value)
    if isinstance(value, Decimal):
        text = f"{value:f}"
        text = text.rstrip("0").rstrip(".") if "." in text else text
        return "0" if text == "-0" else text
    if isinstance(value, uuid.UUID):
        return str(value)
    return value if isinstance(value, int) else _levelled(value)


def _levelled(value: Any) -> Any:
    """Numbers as doubles wherever they stand: JSON knows one kind of number, and no negative zero."""
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        return float(value) + 0.0
    if isinstance(value, Mapping):
        return {name: _levelled(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_levelled(one) for one in value]
    return value
