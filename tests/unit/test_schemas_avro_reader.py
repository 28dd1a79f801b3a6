"""What a compiled reader reads is what fastavro reads of the same bytes, or it leaves them to fastavro."""

from __future__ import annotations

import struct
from collections.abc import Callable
from io import BytesIO
from typing import Any

import fastavro
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from avro_records import PARSED, PLAIN, SCHEMAS, by_fastavro
from tradetape.schemas import CATALOGUE, CatalogueError, Codec, DecodeError, generated
from tradetape.schemas import codec as codec_module
from tradetape.schemas.avro_reader import Reader, compile_reader
from tradetape.schemas.event_classes import RECORDS
from tradetape.schemas.resolution import Resolution

REPEATED = ("producer", "producer_run_id", "venue", "symbol", "timeframe", "event_time", "is_final", "bar_close_time")
READERS = {record: compile_reader(one, start=2, repeated=REPEATED) for record, one in SCHEMAS.items()}
RESOLUTIONS = {record: Resolution(CATALOGUE.by_record(record).schema, None) for record in RECORDS}
CODEC = Codec(CATALOGUE)
MIN_INSTANT, MAX_INSTANT = 2**48, 2**55 - 1
"""Instants of eight bytes, 1978 to 3111."""


def exactly(plain: object) -> str:
    """A value so that types, the order of names, -0.0 and NaN count."""
    return repr(plain)


def fastavro_reads(parsed: Any, body: bytes) -> Any:
    source = BytesIO(body)
    plain = fastavro.schemaless_reader(source, parsed, None)
    assert source.tell() == len(body)
    return plain


def fastavro_would(parsed: Any, body: bytes) -> str:
    """What it reads; an error of any kind as that."""
    try:
        return exactly(fastavro_reads(parsed, body))
    except (AssertionError, EOFError, ValueError, LookupError, TypeError, ArithmeticError) as error:
        return type(error).__name__


@pytest.mark.parametrize("record", SCHEMAS)
@given(data=st.data())
def test_any_record_with_usual_instants_is_read_as_fastavro_reads_it(record: str, data: st.DataObject) -> None:
    plain = data.draw(PLAIN[record])
    for field in SCHEMAS[record]["fields"]:
        if "timestamp-micros" in repr(field["type"]) and plain[field["name"]] is not None:
            plain[field["name"]] = data.draw(st.integers(MIN_INSTANT, MAX_INSTANT))
    body = by_fastavro(PARSED[record], plain)
    assert exactly(READERS[record](b"\0h" + body)) == exactly(fastavro_reads(PARSED[record], body))


def changed(body: bytes, data: st.DataObject) -> bytes:
    """The bytes with a few of them replaced, taken out, put in or cut off."""
    changed = bytearray(body)
    for _ in range(data.draw(st.integers(1, 3))):
        place, byte = data.draw(st.integers(0, len(changed))), data.draw(st.integers(0, 255))
        taken = data.draw(st.sampled_from([0, 1, 1, 1, 2, 9]))
        changed[place : place + taken] = bytes([byte]) * data.draw(st.sampled_from([0, 1, 1, 1, 2, 9]))
    return bytes(changed[: data.draw(st.sampled_from([len(changed), len(changed), max(0, len(changed) - 1)]))])


@given(data=st.data())
def test_of_changed_bytes_a_reader_gives_what_fastavro_gives_or_nothing(data: st.DataObject) -> None:
    body = changed(by_fastavro(PARSED["Rumour"], data.draw(PLAIN["Rumour"])), data)
    plain = READERS["Rumour"](b"\0h" + body)
    assert plain is None or exactly(plain) == fastavro_would(PARSED["Rumour"], body)


def outcome(read: Callable[[], Any]) -> str:
    try:
        return exactly(read())
    except DecodeError as error:
        return str(error)


@pytest.mark.parametrize("record", RECORDS)
@given(data=st.data())
def test_a_codec_reads_changed_bytes_or_refuses_them_as_with_fastavro_alone(record: str, data: st.DataObject) -> None:
    event_type = CATALOGUE.by_record(record)
    plain = data.draw(PLAIN[record]) | {
        "event_id": "0196a1b2-0000-7000-8000-000000000000",
        "event_time": 1_746_403_200_000_000,
    }
    head = b"\0" + event_type.schema_id.to_bytes(4, "big")
    payload = head + data.draw(st.sampled_from([changed, lambda body, _: body]))(
        by_fastavro(PARSED[record], plain), data
    )

    def by_fastavro_alone() -> Any:
        plain = RESOLUTIONS[record].read(payload, start=len(head))
        codec_module._check_plain(plain)
        return plain

    topic = CATALOGUE.topic_name(event_type)
    assert outcome(lambda: CODEC.decode_fields(topic, payload)) == outcome(by_fastavro_alone)


def of_one(kind: Any) -> tuple[Reader, Any]:
    schema = {"type": "record", "name": "One", "fields": [{"name": "it", "type": kind}]}
    return compile_reader(schema), fastavro.parse_schema(schema)


INSTANT, _ = of_one({"type": "long", "logicalType": "timestamp-micros"})
LONG, LONG_PARSED = of_one("long")


@given(st.integers(-(2**63), 2**63 - 1))
@example(0)
@example(2**63 - 1)
@example(-(2**63))
def test_any_integer_is_read_as_it_was_written(value: int) -> None:
    assert LONG(by_fastavro(LONG_PARSED, {"it": value})) == {"it": value}


@pytest.mark.parametrize("last", [0x02, 0x7F])
def test_a_number_of_more_than_64_bits_is_left_to_fastavro(last: int) -> None:
    assert LONG(b"\xff" * 9 + bytes([last])) is None


@given(st.integers(MIN_INSTANT, MAX_INSTANT))
@example(MIN_INSTANT)
@example(MAX_INSTANT)
@example(2**54)
def test_any_usual_instant_is_read_as_it_was_written(value: int) -> None:
    assert INSTANT(by_fastavro(LONG_PARSED, {"it": value})) == {"it": value}


@pytest.mark.parametrize("value", [MIN_INSTANT - 1, MAX_INSTANT + 1, 0, -1, -MIN_INSTANT, -MAX_INSTANT, 2**63 - 1])
def test_another_instant_is_left_to_fastavro(value: int) -> None:
    assert INSTANT(by_fastavro(LONG_PARSED, {"it": value})) is None


DOUBLES, DOUBLES_PARSED = of_one({"type": "map", "values": "double"})
TEXTS, TEXTS_PARSED = of_one({"type": "map", "values": "string"})


def pair(name: bytes, value: float) -> bytes:
    return bytes([2 * len(name)]) + name + struct.pack("<d", value)


def test_maps_that_begin_alike_and_go_on_otherwise_keep_their_own_names_and_values() -> None:
    for values in ({"a": 1.0, "b": 2.0}, {"a": 3.0, "c": 4.0}, {"a": 5.0, "b": 6.0}, {"a": -0.0, "bbb": 1e300}):
        for _ in range(2):
            assert exactly(DOUBLES(by_fastavro(DOUBLES_PARSED, {"it": values}))) == exactly({"it": values})


@pytest.mark.parametrize(
    "body",
    [
        b"\2" + pair(b"a", 1) + b"\2" + pair(b"b", 2) + b"\0",
        b"\3" + b"\x26" + pair(b"a", 1) + pair(b"b", 2) + b"\0",
        b"\x82\x00" + pair(b"a", 1) + b"\0",
        b"\2" + b"\x82\x00a" + bytes(8) + b"\0",
        b"\4" + pair(b"a", 1) + pair(b"a", 2) + b"\0",
    ],
    ids=["two blocks", "a block with its size", "a long count", "a long length", "a name twice"],
)
def test_a_map_that_is_written_in_another_of_avros_ways_is_read_as_well(body: bytes) -> None:
    expected = fastavro_reads(DOUBLES_PARSED, body)
    for _ in range(2):
        assert DOUBLES(body) in (None, expected)


@pytest.mark.parametrize(
    "body",
    [
        b"", b"\2", b"\1\0", b"\xff\xff\xff\xff\xff\xff\xff\xff\xff\1", b"\xfe\xff\xff\xff\xff\xff\xff\xff\xff\1", b"\xff" * 30,
        b"\2\2a\1", b"\2\3a\0\0", b"\2\xfe\xff\xff\xff\x0fa\0\0", b"\2\2a\xfe\xff\xff\xff\x0fa\0", b"\2\4\xff\xfe\0\0",
    ],
)  # fmt: skip
def test_a_map_that_is_none_is_left_to_fastavro(body: bytes) -> None:
    assert (TEXTS(body), DOUBLES(body)) == (None, None)


def test_a_map_of_doubles_that_ends_too_early_is_left_to_fastavro_wherever_it_ends() -> None:
    body = by_fastavro(DOUBLES_PARSED, {"it": {"ema_50": 1.0, "rsi_14": 2.0}})
    assert DOUBLES(body) is not None
    assert {DOUBLES(body[:length]) is None for length in range(len(body))} == {True}
    assert DOUBLES(body + b"\0") is None


@pytest.mark.parametrize(
    "kind",
    ["float", ["string", "null"], ["null", "string", "long"], {"type": "fixed", "name": "F", "size": 2}, "Nobody"],
)
def test_a_type_that_no_event_has_is_refused_when_the_reader_is_made(kind: Any) -> None:
    with pytest.raises(CatalogueError, match="no event has"):
        compile_reader({"type": "record", "name": "One", "fields": [{"name": "it", "type": kind}]})


def test_a_reader_can_be_read() -> None:
    assert "emitted_at_ = a + (b << 7)" in generated.source_of(READERS["Candle"])
