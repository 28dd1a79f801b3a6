"""What an event says, whoever tells it: its caller, its record on the tape, or its row in the history; as one digest.

Nothing of the code under test has a hand in it: records are read by fastavro, rows by SQL, and both are brought to one
form here. Inside of documents every number is a double, as JSON has it; an indicator is one wherever its row keeps it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import msgspec

from tradetape.schemas import Event

DIGEST_BYTES = 16
PLACE = ("topic", "partition", "offset")
OPEN_MAP, REST = "values", "extra"
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_AS_THEY_ARE = frozenset((str, int, float, bool, type(None)))
_encode = msgspec.msgpack.Encoder(order="deterministic").encode


def of_event(event: Event) -> bytes:
    """The digest of an event as `emit` returned it."""
    return of_fields(msgspec.structs.asdict(event))


def of_fields(fields: Mapping[str, Any]) -> bytes:
    """The digest of the fields of a record, read with their logical types."""
    content = {name: value if type(value) in _AS_THEY_ARE else _levelled(value) for name, value in fields.items()}
    return hashlib.blake2b(_encode(content), digest_size=DIGEST_BYTES).digest()


def of_row(row: Mapping[str, Any], fields: Collection[str]) -> bytes:
    """The digest of a row, of which the record has these fields."""
    found = {name: value for name, value in row.items() if name in fields}
    if OPEN_MAP in fields and OPEN_MAP not in row:
        others = {name: value for name, value in row.items() if name not in (*found, *PLACE, REST)}
        found[OPEN_MAP] = {name: value for name, value in others.items() if value is not None} | (row[REST] or {})
    return of_fields(found)


def _levelled(value: Any) -> Any:
    if isinstance(value, datetime):
        return (value - _EPOCH) // _MICROSECOND
    if isinstance(value, Decimal):
        text = f"{value:f}"
        return (text.rstrip("0").rstrip(".") if "." in text else text) if value else "0"
    return str(value) if isinstance(value, UUID) else _document(value)


def _document(value: Any) -> Any:
    if isinstance(value, (bool, type(None))):
        return value
    if isinstance(value, (int, float)):
        return float(value) + 0.0
    if isinstance(value, Enum):
        return value.value
    if isinstance(value, msgspec.Struct):
        return _document(msgspec.structs.asdict(value))
    if isinstance(value, Mapping):
        return {name: _document(one) for name, one in value.items()}
    if isinstance(value, (list, tuple)):
        return [_document(one) for one in value]
    return value if isinstance(value, str) else _levelled(value)
