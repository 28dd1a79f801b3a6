"""Ways in which a record can be bad: bytes that cannot be decoded, and values that no column can hold."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro

from bench.bare import FRAME_BYTES, Plain, Schema
from tradetape.schemas.avro_schema import without_logical_types

Damage = Callable[[bytes], bytes]


def damages(schema: Schema) -> dict[str, Damage]:
    """What makes a bad value of a good one, by its name; the values are IndicatorUpdates."""
    parsed = fastavro.parse_schema(without_logical_types(schema))

    def with_fields(**fields: Any) -> Damage:
        def damage(value: bytes) -> bytes:
            plain: Plain = fastavro.schemaless_reader(BytesIO(value[FRAME_BYTES:]), parsed, None)  # type: ignore[assignment]
            out = BytesIO()
            out.write(value[:FRAME_BYTES])
            fastavro.schemaless_writer(out, parsed, plain | fields)
            return out.getvalue()

        return damage

    return {
        "no frame": lambda value: b"\xff" + value[1:],
        "a schema that nobody knows": lambda value: value[:1] + b"\x00\x00\x00\x07" + value[FRAME_BYTES:],
        "cut short": lambda value: value[: len(value) // 2],
        "bytes behind it": lambda value: value + b"\x00",
        "empty": lambda value: b"",
        "a NUL in a text": with_fields(producer="a\x00b"),
        "a NUL in a document": with_fields(tags={"note": "a\x00b"}),
        "21 digits before the point": with_fields(close=(10**38).to_bytes(17, "big")),
    }
