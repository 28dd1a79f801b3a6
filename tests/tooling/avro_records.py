"""Records of every type that events have, as plain values for hypothesis, and what fastavro writes of them."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro
from hypothesis import strategies as st

from tradetape.schemas import avro_schema
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.event_classes import RECORDS

TEXTS = st.text(st.characters(codec="utf-8"), max_size=80) | st.sampled_from(
    ["", "binance", "BTCUSDT", "é€😀", "x" * 9_000]
)
LONGS = (
    st.integers(-(2**63), 2**63 - 1) | st.integers(1_230_940_800_000_000, 4_102_444_800_000_000) | st.integers(-70, 70)
)
SIMPLE: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "long": LONGS,
    "int": st.integers(-(2**31), 2**31 - 1),
    "double": st.floats(),
    "boolean": st.booleans(),
    "bytes": st.binary(max_size=100),
    "null": st.none(),
}
COMMON: list[dict[str, Any]] = avro_schema.load("Candle")["fields"][:12]
LEVEL = {"type": "record", "name": "Level", "fields": [
    {"name": "price", "type": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}},
    {"name": "notes", "type": {"type": "map", "values": ["null", "string"]}},
]}  # fmt: skip
OWN: Schema = {"type": "record", "name": "Rumour", "fields": [*COMMON, *(
    {"name": name, "type": kind} for name, kind in {
        "class": "string",
        "plain": ["null", "long"],
        "level": LEVEL,
        "again": "Level",
        "maybe": ["null", "Level"],
        "levels": {"type": "array", "items": "Level"},
        "phase": {"type": "enum", "name": "Phase", "symbols": ["UNKNOWN", "EARLY", "LATE"]},
        "phases": {"type": "map", "values": "Phase"},
        "grid": {"type": "array", "items": {"type": "array", "items": ["null", "double"]}},
        "by_name": {"type": "map", "values": {"type": "map", "values": "double"}},
        "counts": {"type": "array", "items": "int"},
        "flags": {"type": "map", "values": "boolean"},
    }.items()
)]}  # fmt: skip
"""A record of all that an event's own .avsc may hold, with names that Python and the writer use themselves."""
SCHEMAS: dict[str, Schema] = {**{record: avro_schema.load(record) for record in RECORDS}, "Rumour": OWN}


def values(schema: Any, named: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Plain values of any Avro type that events have."""
    if isinstance(schema, list):
        return st.one_of([values(one, named) for one in schema])
    if isinstance(schema, str):
        return SIMPLE[schema] if schema in SIMPLE else named[schema]
    kind = schema["type"]
    if kind == "map":
        return st.dictionaries(TEXTS, values(schema["values"], named), max_size=4)
    if kind == "array":
        return st.lists(values(schema["items"], named), max_size=4)
    if kind == "enum":
        named[schema["name"]] = st.sampled_from(schema["symbols"])
    elif kind == "record":
        fields = {field["name"]: values(field["type"], named) for field in schema["fields"]}
        named[schema["name"]] = st.fixed_dictionaries(fields)
    return named[schema["name"]] if kind in ("enum", "record") else values(kind, named)


PLAIN = {record: values(schema, {}) for record, schema in SCHEMAS.items()}
PARSED = {record: fastavro.parse_schema(avro_schema.without_logical_types(one)) for record, one in SCHEMAS.items()}


def by_fastavro(schema: Any, plain: dict[str, Any]) -> bytes:
    """The bytes of a record."""
    out = BytesIO()
    fastavro.schemaless_writer(out, schema, plain)
    return out.getvalue()
