"""What a compiled writer writes is, to the byte, what fastavro writes of the same fields."""

from __future__ import annotations

import math
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from avro_records import LONGS, PARSED, PLAIN, SCHEMAS, by_fastavro
from tradetape.schemas import CatalogueError, generated
from tradetape.schemas.avro_writer import Writer, compile_writer, record_source
from tradetape.schemas.remembered import Remembered

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


@pytest.mark.parametrize("record", SCHEMAS)
@given(data=st.data())
def test_any_record_is_written_as_fastavro_writes_it(record: str, data: st.DataObject) -> None:
    plain = data.draw(PLAIN[record])
    assert WRITERS[record](plain) == b"\0head" + by_fastavro(PARSED[record], plain)


@pytest.mark.parametrize("echo", ["the same", "other", "the"])
def test_a_field_that_echoes_another_is_written_as_what_it_holds(echo: str) -> None:
    schema = {"type": "record", "name": "Two", "fields": [{"name": name, "type": "string"} for name in ("id", "again")]}
    source = record_source(schema, echoes={"id": "again"})
    write = generated.function(
        "write",
        [*source.lines, "def write(id_, again_):", f"    return {source.expression}"],
        source.names,
        about="Two",
    )
    same = "the same"
    plain = {"id": same, "again": same if echo == same else echo}
    assert write(plain["id"], plain["again"]) == by_fastavro(fastavro.parse_schema(schema), plain)


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
