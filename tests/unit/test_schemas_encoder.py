"""Our encoder writes the bytes that fastavro writes, for every record, and what fastavro reads back is what was given."""

from __future__ import annotations

from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tradetape.schemas import CATALOGUE, avro_schema
from tradetape.schemas.encoder import encoder, number

INT, LONG = 1 << 31, 1 << 63
TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=300)
DOUBLES = st.floats(allow_nan=False, allow_infinity=False)
PRIMITIVES: dict[str, st.SearchStrategy[Any]] = {
    "string": TEXTS,
    "double": DOUBLES,
    "boolean": st.booleans(),
    "int": st.integers(-INT, INT - 1),
    "long": st.integers(-LONG, LONG - 1) | st.integers(1_230_940_800_000_000, 4_102_444_800_000_000),
    "bytes": st.binary(max_size=300),
}


def values(schema: Any, named: dict[str, st.SearchStrategy[Any]]) -> st.SearchStrategy[Any]:
    """Values of a schema without logical types, as fastavro takes them."""
    if isinstance(schema, str):
        return PRIMITIVES[schema] if schema in PRIMITIVES else named[schema]
    if isinstance(schema, list):
        return st.none() | values(schema[1], named)
    kind = schema["type"]
    if kind == "map":
        return st.dictionaries(TEXTS, values(schema["values"], named), max_size=14)
    if kind == "array":
        return st.lists(values(schema["items"], named), max_size=4)
    if kind == "enum":
        named[schema["name"]] = st.sampled_from(schema["symbols"])
        return named[schema["name"]]
    if kind == "record":
        named[schema["name"]] = st.fixed_dictionaries(
            {field["name"]: values(field["type"], named) for field in schema["fields"]}
        )
        return named[schema["name"]]
    return values(kind, named)


def by_fastavro(schema: Any, plain: Any) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, fastavro.parse_schema(avro_schema.without_logical_types(schema)), plain)
    return out.getvalue()


@pytest.mark.parametrize("event_type", CATALOGUE.event_types, ids=lambda one: one.record)
def test_every_record_is_written_as_fastavro_writes_it(event_type: Any) -> None:
    encoded = encoder(event_type.schema)

    @settings(max_examples=40, deadline=None)
    @given(values(avro_schema.without_logical_types(event_type.schema), {}))
    def same(plain: dict[str, Any]) -> None:
        assert encoded(plain) == by_fastavro(event_type.schema, plain)

    same()


@pytest.mark.parametrize("bits", range(64))
def test_numbers_of_every_length_are_written_as_fastavro_writes_them(bits: int) -> None:
    for value in (1 << bits, (1 << bits) - 1, -(1 << bits), -(1 << bits) - 1):
        if -LONG <= value < LONG:
            assert number(value) == by_fastavro("long", value)


@pytest.mark.parametrize("length", [0, 1, 63, 64, 127, 128, 255, 256, 8_191, 8_192, 100_000])
def test_texts_names_and_bytes_of_every_length_are_written_as_fastavro_writes_them(length: int) -> None:
    schema = {
        "type": "record",
        "name": "Sized",
        "fields": [
            {"name": "text", "type": "string"},
            {"name": "raw", "type": "bytes"},
            {"name": "values", "type": {"type": "map", "values": "double"}},
        ],
    }
    for plain in (
        {"text": "x" * length, "raw": b"x" * length, "values": {"x" * length: 1.5}},
        {"text": "ü" * length, "raw": b"", "values": {str(place): float(place) for place in range(length)}},
    ):
        assert encoder(schema)(plain) == by_fastavro(schema, plain)


def test_the_same_names_with_other_values_give_the_other_values() -> None:
    schema = {
        "type": "record",
        "name": "Held",
        "fields": [{"name": "values", "type": {"type": "map", "values": "double"}}],
    }
    encoded = encoder(schema)
    for held in ({"a": 1.0, "b": 2.0}, {"a": -7.5, "b": 0.0}, {"b": 1.0, "a": 2.0}, {"a": 1.0}, {}):
        assert encoded({"values": held}) == by_fastavro(schema, {"values": held})


def test_nothing_is_left_out_silently() -> None:
    encoded = encoder(CATALOGUE.by_record("Candle").schema)
    with pytest.raises(KeyError, match="event_id"):
        encoded({"venue": "binance"})
    with pytest.raises(AttributeError):
        encoded({**dict.fromkeys(plan.name for plan in CATALOGUE.by_record("Candle").plans)})
