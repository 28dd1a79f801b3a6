"""Golden events: one for each released version, written by it, with what they say beside it as JSON.

An event that a version once wrote must say the same to every later reader; the JSON is what it is compared with. It
holds decimals and times as text, so a person can write and check it: "64123.10", "2025-05-04T15:34:00Z".
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal
from io import BytesIO
from typing import Any

import fastavro

from tradetape.schemas import avro_schema, decimals, times
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.errors import CatalogueError

_FRAME = struct.Struct(">bI")


def encode(schema: Schema, sample: Mapping[str, Any]) -> bytes:
    """The framed bytes of the event that a sample describes. Raises CatalogueError where it does not fit the schema."""
    out = BytesIO()
    out.write(_FRAME.pack(0, avro_schema.content_id(schema)))
    try:
        fastavro.schemaless_writer(out, _plain_schema(schema), plain(schema, sample), strict_allow_default=True)
    except (ValueError, TypeError, KeyError, AttributeError) as error:
        raise CatalogueError(f"the golden sample of {schema['name']} does not fit its schema: {error}") from error
    return out.getvalue()


def difference(golden: bytes, sample: Mapping[str, Any], *, writer: Schema, head: Schema) -> str | None:
    """What a reader with the head schema gets wrong of a golden event; None when it reads what the sample says."""
    if golden[: _FRAME.size] != _FRAME.pack(0, avro_schema.content_id(writer)):
        return "does not begin with the frame of its version"
    source = BytesIO(golden)
    source.seek(_FRAME.size)
    try:
        found = fastavro.schemaless_reader(source, _plain_schema(writer), _plain_schema(head))
    except (
        EOFError,
        ValueError,
        ArithmeticError,
        LookupError,
        TypeError,
        fastavro.read.SchemaResolutionError,
    ) as error:
        return f"cannot be decoded: {type(error).__name__}: {error}"
    if source.tell() != len(golden):
        return f"has {len(golden) - source.tell()} bytes after its end"
    assert isinstance(found, dict)
    expected = plain(writer, sample)
    wrong = [name for name, value in expected.items() if name in found and found[name] != value]
    return f"reads differently than its sample says: {', '.join(wrong)}" if wrong else None


def plain(schema: Schema, sample: Mapping[str, Any]) -> dict[str, Any]:
    """The plain fields that a sample gives: times as microseconds, decimals as Avro bytes."""
    named = {one["name"]: one for one in avro_schema.named_types(schema)}
    types = {field["name"]: field["type"] for field in schema["fields"]}
    unknown = set(sample) - set(types)
    if unknown:
        raise CatalogueError(
            f"the golden sample of {schema['name']} names unknown fields: {', '.join(sorted(unknown))}"
        )
    return {name: _plain(types[name], value, named) for name, value in sample.items()}


def _plain(schema: Any, value: Any, named: Mapping[str, Schema]) -> Any:
    if value is None:
        return None
    if isinstance(schema, list):
        return _plain(schema[1], value, named)
    if isinstance(schema, str):
        return _plain(named[schema], value, named) if schema in named else value
    if schema.get("logicalType") == "decimal":
        return decimals.encode(Decimal(value))
    if schema.get("logicalType") == "timestamp-micros":
        return times.from_datetime(datetime.fromisoformat(value))
    if schema["type"] == "array":
        return [_plain(schema["items"], item, named) for item in value]
    if schema["type"] == "map":
        return {name: _plain(schema["values"], item, named) for name, item in value.items()}
    if schema["type"] == "record":
        types = {field["name"]: field["type"] for field in schema["fields"]}
        return {name: _plain(types[name], item, named) for name, item in value.items()}
    return value


def _plain_schema(schema: Schema) -> Any:
    return fastavro.parse_schema(avro_schema.without_logical_types(schema))
