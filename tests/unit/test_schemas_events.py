"""The event classes are what the .avsc files say: fields, order, defaults, enums, nested structs, types."""

from __future__ import annotations

import enum
import json
import typing
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest

import tradetape.schemas
from tradetape.schemas import Action, Candle, Event, EventError, Leg, RunMode, TakeProfit, TradeSignal, events, stubs
from tradetape.schemas.event_classes import OWN_ID, RECORDS

PACKAGE = Path(tradetape.schemas.__path__[0])
STAMPED = {
    "event_id",
    "event_time",
    "emitted_at",
    "producer",
    "producer_run_id",
    "producer_seq",
    "run_mode",
    "correlation_id",
}
PYTHON = {"string": str, "double": float, "boolean": bool, "int": int, "long": int}
LOGICAL = {"decimal": Decimal, "timestamp-micros": datetime}


def avsc(record: str) -> dict[str, Any]:
    schema: dict[str, Any] = json.loads((PACKAGE / "avro" / f"{record}.avsc").read_text())
    return schema


def python_type(schema: Any) -> Any:
    """What a field of this Avro type must be in Python."""
    if isinstance(schema, list):
        return python_type(schema[1]) | None
    if isinstance(schema, str):
        return PYTHON.get(schema) or getattr(events, schema)
    if "logicalType" in schema:
        return LOGICAL[schema["logicalType"]]
    if schema["type"] == "array":
        return tuple[python_type(schema["items"]), ...]  # type: ignore[misc]
    if schema["type"] == "map":
        return dict[str, python_type(schema["values"])]  # type: ignore[misc]
    return getattr(events, schema["name"])


def own_fields(record: str) -> list[dict[str, Any]]:
    return [field for field in avsc(record)["fields"] if field["name"] not in Event.__struct_fields__]


def named(schema: Any, kind: str) -> list[dict[str, Any]]:
    if isinstance(schema, list):
        return [one for item in schema for one in named(item, kind)]
    if not isinstance(schema, dict):
        return []
    inner = [one for value in schema.values() for one in named(value, kind)]
    return [schema, *inner] if schema.get("type") == kind else inner


ENUMS = [one for record in RECORDS for one in named(avsc(record), "enum")]
NESTED = [one for record in RECORDS for one in named(avsc(record), "record") if one["name"] not in RECORDS]


@pytest.mark.parametrize("record", RECORDS)
def test_a_class_has_the_fields_of_its_schema_in_its_order(record: str) -> None:
    assert list(getattr(events, record).__struct_fields__) == [field["name"] for field in avsc(record)["fields"]]


@pytest.mark.parametrize("record", RECORDS)
def test_a_class_has_the_types_of_its_schema(record: str) -> None:
    hints = typing.get_type_hints(getattr(events, record))
    for field in own_fields(record):
        assert hints[field["name"]] == python_type(field["type"]), field["name"]


@pytest.mark.parametrize("record", RECORDS)
def test_a_class_asks_for_what_has_no_default_and_is_not_stamped(record: str) -> None:
    asked = {
        field["name"]
        for field in avsc(record)["fields"]
        if "default" not in field and field["name"] not in STAMPED and field["name"] != OWN_ID.get(record)
    }
    made = msgspec.structs.fields(getattr(events, record))
    assert {one.name for one in made if one.required} == asked


@pytest.mark.parametrize("record", RECORDS)
def test_a_class_has_the_defaults_of_its_schema(record: str) -> None:
    made = {one.name: one for one in msgspec.structs.fields(getattr(events, record))}
    for field in avsc(record)["fields"]:
        if "default" in field:
            one = made[field["name"]]
            default = one.default if one.default is not msgspec.NODEFAULT else one.default_factory()
            assert default == (tuple(field["default"]) if isinstance(field["default"], list) else field["default"])


@pytest.mark.parametrize("schema", ENUMS, ids=lambda one: one["name"])
def test_an_enum_has_the_symbols_of_its_schema_with_unknown_first(schema: dict[str, Any]) -> None:
    made: type[enum.StrEnum] = getattr(events, schema["name"])
    assert [member.value for member in made] == schema["symbols"]
    assert [member.name for member in made] == schema["symbols"]
    assert schema["symbols"][0] == schema["default"] == "UNKNOWN"


@pytest.mark.parametrize("schema", NESTED, ids=lambda one: one["name"])
def test_a_nested_struct_has_the_fields_of_its_schema(schema: dict[str, Any]) -> None:
    made = getattr(events, schema["name"])
    hints = typing.get_type_hints(made)
    assert list(hints) == [field["name"] for field in schema["fields"]]
    for field in schema["fields"]:
        assert hints[field["name"]] == python_type(field["type"])


def test_the_package_hands_out_every_class_and_enum() -> None:
    made = {*RECORDS, "Event", *(one["name"] for one in (*ENUMS, *NESTED))}
    assert made <= set(tradetape.schemas.__all__)
    assert set(vars(events)["__all__"]) == made


def test_what_type_checkers_see_is_made_from_the_schemas() -> None:
    assert (PACKAGE / "events.pyi").read_text() == stubs.render()


@pytest.mark.parametrize("record", RECORDS)
def test_an_unknown_field_is_refused_with_record_field_value_and_the_nearest_name(record: str) -> None:
    with pytest.raises(EventError, match=rf"^{record}\.symbl = 'BTCUSDT': .*did you mean symbol\?") as refused:
        getattr(events, record)(symbl="BTCUSDT")
    assert (refused.value.record, refused.value.field, refused.value.value) == (record, "symbl", "BTCUSDT")


@pytest.mark.parametrize("record", RECORDS)
def test_a_missing_field_is_refused_by_name(record: str) -> None:
    with pytest.raises(EventError, match=rf"^{record}\.venue = None: must be given; required are venue, symbol"):
        getattr(events, record)()


def test_a_part_of_an_event_answers_for_its_fields_too() -> None:
    with pytest.raises(EventError, match=r"^TakeProfit\.prize = '1': .*did you mean price\?"):
        TakeProfit(prize="1", close_ratio=0.5)  # type: ignore[call-arg]


def test_fields_are_given_by_name_only() -> None:
    with pytest.raises(TypeError):
        TakeProfit("1", 0.5)  # type: ignore[call-arg]


def test_an_event_cannot_be_changed_once_it_is_made() -> None:
    profit = TakeProfit(price="1", close_ratio=0.5)
    with pytest.raises(AttributeError):
        profit.close_ratio = 1.0  # type: ignore[misc]


def test_events_do_not_share_their_default_maps() -> None:
    what: dict[str, Any] = {"strategy_id": "s", "timeframe": "1m", "action": "ENTER", "direction": "LONG"}
    one, other = (TradeSignal(venue="binance", symbol="BTCUSDT", **what) for _ in range(2))
    one.tags["a"] = "b"
    one.indicators["rsi_14"] = 1.0
    assert (other.tags, other.indicators) == ({}, {})


def test_an_enum_is_its_text() -> None:
    assert RunMode.LIVE == "LIVE"
    assert f"{Action.ENTER}" == "ENTER"


def test_docs_of_classes_come_from_the_schemas() -> None:
    assert Candle.__doc__ == avsc("Candle")["doc"]
    assert Leg.__doc__ == next(one["doc"] for one in NESTED if one["name"] == "Leg")
