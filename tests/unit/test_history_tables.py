"""A table that does not fit its record is refused before the first row, with everything that is wrong with it."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from tradetape.schemas import Delivery, EventType, avro_schema, decimals
from tradetape.sinks.errors import SchemaBehind
from tradetape.sinks.history.tables import Column, Facts, HistoryTable
from tradetape.streams.record import Record

COMMON = avro_schema.load("Candle")["fields"][:12]
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
QUOTE = {"type": "record", "name": "TapeQuote", "doc": "-", "fields": [{"name": "price", "type": DECIMAL, "doc": "-"}]}
RECORD = Record("t", 3, 42, None, b"", (), 0)


def event_type(*fields: dict[str, Any]) -> EventType:
    schema = {
        "type": "record",
        "name": "Note",
        "namespace": "tradetape.events",
        "doc": "-",
        "fields": [*COMMON, *fields],
    }
    return EventType(record="Note", topic="notes", table="notes", delivery=Delivery.MARKET, schema=schema)


TYPES = {
    "event_id": "uuid", "event_time": "timestamp with time zone", "emitted_at": "timestamp with time zone",
    "producer_seq": "bigint", "tags": "jsonb", "partition": "integer", "offset": "bigint",
}  # fmt: skip


def facts(is_by_month: bool = True, is_unique: bool = True, /, **changed: Column | None) -> Facts:
    """A table that fits the common fields, with some columns put in or (None) left out."""
    names = [*(field["name"] for field in COMMON), "topic", "partition", "offset"]
    columns: dict[str, Column | None] = {
        name: Column(TYPES.get(name, "text"), name == "causation_id", False) for name in names
    }
    columns |= changed
    return Facts({name: one for name, one in columns.items() if one}, is_by_month, is_unique)


def test_a_table_that_fits_is_taken() -> None:
    table = HistoryTable(event_type(), facts())
    assert table.columns == tuple(facts().columns)


@pytest.mark.parametrize(
    ("found", "problem"),
    [
        (facts(venue=None, symbol=None), "has no column for venue, symbol"),
        (facts(offset=None), "has no column for offset"),
        (facts(producer_seq=Column("text", False, False)), "has producer_seq as text, which must be bigint"),
        (facts(producer=Column("character varying(20)", False, False)), "must be text or uuid"),
        (facts(partition=Column("smallint", False, False)), "has partition as smallint"),
        (facts(event_time=Column("timestamp without time zone", False, False)), "must be timestamp with time zone"),
        (facts(causation_id=Column("text", False, False)), "refuses NULL in causation_id, which may be null"),
        (facts(mood=Column("text", False, False)), "wants mood, which Note does not have"),
        (facts(False), "is not partitioned by range of event_time"),
        (facts(True, False), "has no unique key (event_time, event_id)"),
    ],
)
def test_a_table_that_does_not_fit_is_refused_and_says_why(found: Facts, problem: str) -> None:
    with pytest.raises(SchemaBehind) as refused:
        HistoryTable(event_type(), found)
    assert problem in str(refused.value)
    assert "tradetape.notes" in str(refused.value)
    assert "tradetape history migrate" in str(refused.value)


def test_everything_that_is_wrong_is_said_at_once() -> None:
    with pytest.raises(SchemaBehind, match=r"not partitioned.*no column for venue.*wants mood"):
        HistoryTable(event_type(), facts(False, venue=None, mood=Column("text", False, False)))


def test_columns_that_fill_themselves_are_left_alone() -> None:
    """A table may be one version ahead of the worker, or have columns of its operator's."""
    ahead = facts(stored_at=Column("timestamp with time zone", False, True), note=Column("text", True, False))
    assert set(ahead.columns) - set(HistoryTable(event_type(), ahead).columns) == {"stored_at", "note"}


def fields_of(row: bytes) -> list[bytes | None]:
    """The values of a row in COPY's binary form."""
    (count,) = struct.unpack_from(">h", row)
    found: list[bytes | None] = []
    at = 2
    for _ in range(count):
        (length,) = struct.unpack_from(">i", row, at)
        found.append(row[at + 4 : at + 4 + length] if length >= 0 else None)
        at += 4 + max(length, 0)
    assert at == len(row)
    return found


def document(table: HistoryTable, name: str, plain: dict[str, Any]) -> Any:
    value = dict(zip(table.columns, fields_of(table.row(RECORD, plain)), strict=True))[name]
    assert value is None or value[:1] == b"\x01"
    return value and json.loads(value[1:])


PLAIN = {
    "event_id": "6f1d7a3e-1111-4222-8333-444455556666", "event_time": 1, "emitted_at": 1, "producer": "p",
    "producer_run_id": "r", "producer_seq": 1, "run_mode": "LIVE", "correlation_id": "c", "causation_id": None,
    "venue": "v", "symbol": "s", "tags": {},
}  # fmt: skip


def test_a_named_type_that_is_used_twice_is_a_document_with_exact_decimals_both_times() -> None:
    fields: list[dict[str, Any]] = [
        {"name": "bid", "type": QUOTE, "doc": "-"},
        {"name": "asks", "type": {"type": "array", "items": "TapeQuote"}, "doc": "-"},
        {"name": "last", "type": ["null", "TapeQuote"], "default": None, "doc": "-"},
    ]
    jsonb = Column("jsonb", True, False)
    table = HistoryTable(event_type(*fields), facts(bid=jsonb, asks=jsonb, last=jsonb))
    price = {"price": decimals.encode(decimals.from_user("0.10"))}
    plain = {**PLAIN, "bid": price, "asks": [price, price], "last": price}
    assert document(table, "bid", dict(plain)) == {"price": "0.1"}
    assert document(table, "asks", dict(plain)) == [{"price": "0.1"}] * 2
    assert document(table, "last", dict(plain)) == {"price": "0.1"}
    assert document(table, "last", plain | {"last": None}) is None


def test_the_place_on_the_tape_is_in_the_row() -> None:
    table = HistoryTable(event_type(), facts())
    row = dict(zip(table.columns, fields_of(table.row(RECORD, dict(PLAIN))), strict=True))
    assert (row["topic"], row["partition"], row["offset"]) == (b"t", struct.pack(">i", 3), struct.pack(">q", 42))


def test_known_values_have_columns_and_the_others_stay_together() -> None:
    values = {"name": "values", "type": {"type": "map", "values": "double"}, "doc": "-"}
    wide = facts(
        rsi_14=Column("double precision", True, False), ema_50=Column("double precision", True, False),
        extra=Column("jsonb", True, False), stored_at=Column("timestamp with time zone", True, True),
    )  # fmt: skip
    table = HistoryTable(event_type(values), wide)
    assert "stored_at" not in table.columns
    row = dict(zip(table.columns, fields_of(table.row(RECORD, {**PLAIN, "values": {"rsi_14": 1.5}})), strict=True))
    assert (row["rsi_14"], row["ema_50"], row["extra"]) == (struct.pack(">d", 1.5), None, None)
    assert document(table, "extra", {**PLAIN, "values": {"rsi_14": 1.5, "mine": 2.5}}) == {"mine": 2.5}


def test_a_map_that_has_a_column_of_its_own_is_one_document() -> None:
    values = {"name": "values", "type": {"type": "map", "values": "double"}, "doc": "-"}
    table = HistoryTable(event_type(values), facts(values=Column("jsonb", False, False)))
    assert document(table, "values", {**PLAIN, "values": {"rsi_14": 1.5}}) == {"rsi_14": 1.5}
