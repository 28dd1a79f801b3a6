"""Values in PostgreSQL's binary form, read back as its manual and numeric_recv say, by a reader of the test's own."""

from __future__ import annotations

import json
import struct
import uuid
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradetape.schemas import decimals, times
from tradetape.sinks.history import copy_rows
from tradetape.sinks.history.copy_rows import ROWS_A_PIECE, CopyRows, RowEncoder

EPOCH_2000 = datetime(2000, 1, 1, tzinfo=UTC)
MONEY = st.decimals(
    min_value=Decimal("-99999999999999999999.999999999999999999"),
    max_value=Decimal("99999999999999999999.999999999999999999"),
    places=18,
    allow_nan=False,
)


def body(encoded: bytes) -> bytes:
    (length,) = struct.unpack_from(">i", encoded)
    assert length == len(encoded) - 4
    return encoded[4:]


def read_numeric(encoded: bytes) -> Fraction:
    """Digits of base 10000: `weight` is the power of the first, `scale` how many decimal places are shown."""
    found = body(encoded)
    count, weight, sign, scale = struct.unpack_from(">hhHH", found)
    groups = struct.unpack_from(f">{count}h", found, 8)
    assert len(found) == 8 + 2 * count
    assert sign in (0x0000, 0x4000)
    assert scale == 18
    assert all(0 <= group < 10_000 for group in groups)
    assert count == 0 or groups[0], "a leading zero group is not the canonical form"
    value = sum((group * Fraction(10_000) ** (weight - place) for place, group in enumerate(groups)), Fraction(0))
    return -value if sign else value


@given(MONEY)
def test_every_decimal_that_fits_is_encoded_exactly(value: Decimal) -> None:
    assert read_numeric(copy_rows.numeric(decimals.encode(value))) == Fraction(value)


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-0",
        "1",
        "-1",
        "10000",
        "9999.9999",
        "0.0001",
        "0.000000000000000001",
        "-0.000000000000000001",
        "0.01",
        "0.0000000001",
        "12345678901234567890.123456789012345678",
        "-99999999999999999999.999999999999999999",
    ],
)
def test_decimals_at_the_edges_of_a_group_are_encoded_exactly(text: str) -> None:
    assert read_numeric(copy_rows.numeric(decimals.encode(Decimal(text)))) == Fraction(text)


@pytest.mark.parametrize("unscaled", [10**38, -(10**38), 10**39, 10**4_000])
def test_a_decimal_of_more_than_38_digits_is_refused(unscaled: int) -> None:
    raw = unscaled.to_bytes(unscaled.bit_length() // 8 + 1, "big", signed=True)
    with pytest.raises(ValueError, match="20 digits before the point"):
        copy_rows.numeric(raw)


def test_a_decimal_with_leading_bytes_that_say_nothing_is_the_same_decimal() -> None:
    assert copy_rows.numeric(bytes(40) + b"\x07") == copy_rows.numeric(b"\x07")


@given(st.datetimes(timezones=st.just(UTC)))
def test_an_instant_counts_from_2000(at: datetime) -> None:
    (micros,) = struct.unpack(">q", body(copy_rows.timestamptz(times.from_datetime(at))))
    assert EPOCH_2000 + timedelta(microseconds=micros) == at


@pytest.mark.parametrize("micros", [2**63 - 1, -(2**63), -(2**63) + copy_rows.POSTGRES_EPOCH_US])
def test_an_instant_that_no_reader_could_read_back_is_refused(micros: int) -> None:
    with pytest.raises(ValueError, match="years 1 and 9999"):
        copy_rows.timestamptz(micros)


@given(st.uuids())
def test_a_uuid_is_its_sixteen_bytes(one: uuid.UUID) -> None:
    assert body(copy_rows.uuid(str(one))) == one.bytes


@pytest.mark.parametrize("text", ["", "z" * 36, "6f1d7a3e-1111-4222-8333-44445555666"])
def test_what_is_no_uuid_is_refused(text: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011  # bytes.fromhex words it differently by version
        copy_rows.uuid(text)


NUL = st.sampled_from(["\0", "\\", "u0000", "\\u0000", "a"])
TEXTS = st.lists(NUL, max_size=6).map("".join)


@given(TEXTS)
def test_a_text_with_a_nul_is_refused_and_no_other(text: str) -> None:
    if "\0" in text:
        with pytest.raises(ValueError, match="NUL"):
            copy_rows.text(text)
    else:
        assert body(copy_rows.text(text)) == text.encode()


@given(st.dictionaries(TEXTS, st.lists(TEXTS, max_size=2), max_size=2))
def test_a_document_with_a_nul_in_it_is_refused_and_no_other(document: dict[str, list[str]]) -> None:
    """Its escape is made of letters that a document may hold as well."""
    if any("\0" in text for name, texts in document.items() for text in (name, *texts)):
        with pytest.raises(ValueError, match="NUL"):
            copy_rows.jsonb(document)
    else:
        assert json.loads(body(copy_rows.jsonb(document))[1:]) == document


def test_a_row_is_its_count_of_fields_and_null_has_no_length() -> None:
    encoder = RowEncoder([("a", copy_rows.text), ("b", copy_rows.int4), ("c", copy_rows.boolean)])
    row = encoder.encode({"a": "é", "b": None, "c": True, "d": "not a column"})
    assert row == b"\x00\x03" + b"\x00\x00\x00\x02\xc3\xa9" + b"\xff\xff\xff\xff" + b"\x00\x00\x00\x01\x01"


@pytest.mark.parametrize(("name", "value"), [("b", 2**31), ("b", "7"), ("a", "\ud800")])
def test_a_value_that_its_column_cannot_hold_is_an_error_not_another_value(name: str, value: object) -> None:
    encoder = RowEncoder([("a", copy_rows.text), ("b", copy_rows.int4)])
    with pytest.raises((ValueError, struct.error)):
        encoder.encode({"a": "x", "b": 1, name: value})


@given(st.dictionaries(st.sampled_from("abcdef"), st.floats()), st.permutations("abcd"))
def test_each_column_of_a_map_holds_its_own_value_or_null(values: dict[str, float], columns: list[str]) -> None:
    expected = b"".join(
        struct.pack(">id", 8, values[name]) if name in values else struct.pack(">i", -1) for name in columns
    )
    encoder = copy_rows.DoubleColumns(columns)
    assert encoder.encode(values) == encoder.encode(values.copy()) == expected


def test_what_copy_reads_begins_and_ends_as_it_wants() -> None:
    pieces = CopyRows("t", ("a",), ("text",), iter([b"ONE", b"TWO"])).pieces()
    assert b"".join(pieces) == b"PGCOPY\n\xff\r\n\x00" + bytes(8) + b"ONETWO" + b"\xff\xff"


def test_the_first_rows_can_be_stored_before_the_last_is_encoded() -> None:
    encoded: list[int] = []

    def rows() -> Iterator[bytes]:
        for number in range(2 * ROWS_A_PIECE + 1):
            encoded.append(number)
            yield b"%d;" % number

    pieces = CopyRows("t", ("a",), ("text",), rows()).pieces()
    first = next(pieces) + next(pieces)
    assert first.endswith(b"%d;" % (ROWS_A_PIECE - 1))
    assert len(encoded) == ROWS_A_PIECE
    assert (first + b"".join(pieces)).count(b";") == 2 * ROWS_A_PIECE + 1
