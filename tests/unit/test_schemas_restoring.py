"""The function that is made for an event's class gives what its fields' converters give, one by one."""

from __future__ import annotations

from collections.abc import Callable
from importlib import resources

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradetape.schemas import CATALOGUE, Codec, decimals
from tradetape.schemas.catalogue import EventType

CODEC = Codec(CATALOGUE)


def golden(event_type: EventType) -> dict[str, object]:
    """The plain fields of the released golden event, in which no field is empty."""
    folder = resources.files("tradetape.schemas").joinpath("released/golden")
    payload = folder.joinpath(f"{event_type.record}.v1.bin").read_bytes()
    return CODEC.decode_fields(CATALOGUE.topic_name(event_type), payload)


def emptied(plain: dict[str, object], event_type: EventType) -> dict[str, object]:
    """The same with every field null or empty that may be."""
    empty = dict(plain)
    for field in event_type.schema["fields"]:
        if isinstance(field["type"], list):
            empty[field["name"]] = None
        elif isinstance(empty[field["name"]], (list, dict)) and field["name"] != "values":
            empty[field["name"]] = type(empty[field["name"]])()
    return empty


@pytest.mark.parametrize("event_type", list(CATALOGUE), ids=lambda one: one.record)
@pytest.mark.parametrize("form", [lambda plain, _: plain, emptied], ids=["full", "empty"])
def test_an_event_is_what_its_converters_say(
    event_type: EventType, form: Callable[[dict[str, object], EventType], dict[str, object]]
) -> None:
    plain = form(golden(event_type), event_type)
    event = CODEC.typed(CATALOGUE.topic_name(event_type), plain)
    assert type(event) is event_type.event_class
    for plan in event_type.plans:
        expected = plan.converter.restore(plain[plan.name])
        found = getattr(event, plan.name)
        assert (found, type(found)) == (expected, type(expected)), plan.name


@given(st.integers(-(10**38) + 1, 10**38 - 1) | st.integers(-10_000, 10_000).map(lambda n: n * 10**17))
def test_a_decimal_is_that_of_its_canonical_text(unscaled: int) -> None:
    raw = unscaled.to_bytes(17, "big", signed=True)
    found = decimals.to_decimal(raw)
    whole, fraction = divmod(abs(unscaled), 10**18)
    text = f"{whole}.{fraction:018d}".rstrip("0").rstrip(".") if fraction else str(whole)
    assert f"{found:f}" == (f"-{text}" if unscaled < 0 else text)
