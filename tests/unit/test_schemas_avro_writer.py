"""What a compiled writer writes is, to the byte, what fastavro writes of the same fields."""

from __future__ import annotations

import math
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from tradetape.schemas import CatalogueError, avro_schema, generated
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.avro_writer import Writer, compile_writer
from tradetape.schemas.event_classes import RECORDS
from tradetape.schemas.remembered import Remembered

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
REPEATED = (
    "producer",
    "producer_run_id",
    "venue",
    "symbol",
    "timeframe",
    "event_time",
    "is_final",
    "bar_close_time",
    "level",
)
WRITERS = {record: compile_writer(one, head=b"\0head", repeated=REPEATED) for record, one in SCHEMAS.items()}


def by_fastavro(schema: Any, plain: dict[str, Any]) -> bytes:
    out = BytesIO()
    fastavro.schemaless_writer(out, schema, plain)
    return out.getvalue()


@pytest.mark.parametrize("record", SCHEMAS)
@given(data=st.data())
def test_any_record_is_written_as_fastavro_writes_it(record: str, data: st.DataObject) -> None:
    plain = data.draw(PLAIN[record])
    assert WRITERS[record](plain) == b"\0head" + by_fastavro(PARSED[record], plain)


def of_one(kind: Any) -> tuple[Writer, Any]:
    schema = {"type": "record", "name": "One", "fields": [{"name": "it", "type": kind}]}
    return compile_writer(schema), fastavro.parse_schema(schema)


LONG, LONG_PARSED = of_one("long")


@given(LONGS)
@example(0)
@example(2**63 - 1)
@example(-(2**63))
def test_any_integer_is_written_as_fastavro_writes_it(value: int) -> None:
    assert LONG({"it": value}) == by_fastavro(LONG_PARSED, {"it": value})


@pytest.mark.parametrize("bits", range(63))
def test_integers_around_each_power_of_two_are_written_as_fastavro_writes_them(bits: int) -> None:
    for value in (2**bits - 1, 2**bits, 1 - 2**bits, -(2**bits)):
        assert LONG({"it": value}) == by_fastavro(LONG_PARSED, {"it": value})


def test_a_map_of_the_same_names_is_written_with_its_own_values_and_order() -> None:
    write, parsed = of_one({"type": "map", "values": "double"})
    many = {f"name_{place}": float(place) for place in range(300)}
    for values in (
        {"a": 1.0, "b": 2.0},
        {"a": -0.0, "b": math.inf},
        {"b": 2.0, "a": 1.0},
        {"a": 1, "b": 2.0},
        {},
        many,
    ):
        assert write({"it": values}) == by_fastavro(parsed, {"it": values})


@pytest.mark.parametrize(
    "kind",
    ["float", ["string", "null"], ["null", "string", "long"], {"type": "fixed", "name": "F", "size": 2}, "Nobody"],
)
def test_a_type_that_no_event_has_is_refused_when_the_writer_is_made(kind: Any) -> None:
    with pytest.raises(CatalogueError, match="no event has"):
        compile_writer({"type": "record", "name": "One", "fields": [{"name": "it", "type": kind}]})


def test_a_writer_can_be_read() -> None:
    assert "long(emitted_at_)," in generated.source_of(WRITERS["Candle"])


def test_what_is_remembered_has_a_limit() -> None:
    asked: list[str] = []

    def length(text: str) -> int:
        asked.append(text)
        return len(text)

    lengths = Remembered(length, limit=2)
    assert [lengths[text] for text in ("a", "bb", "a", "ccc", "ccc", "a")] == [1, 2, 1, 3, 3, 1]
    assert asked == ["a", "bb", "ccc", "a"]
    long_one = "x" * 1_000
    assert (lengths[long_one], lengths[long_one]) == (1_000, 1_000)
    assert asked[4:] == [long_one, long_one]
    assert len(lengths) <= 2
