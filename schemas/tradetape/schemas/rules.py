"""What a record demands beyond the types of its fields.

`prepare` brings what a user may reasonably give to the form that the record wants; `check` refuses what cannot
be true. Both see one event at a time, its fields as attributes, and know no clock. `prepare` is given an event that is
still being made, and changes it in place; most events need it not, which an expression tells without a call.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

from msgspec.structs import force_setattr

from tradetape.schemas import names, times
from tradetape.schemas.errors import NameRefused
from tradetape.schemas.fields import FieldRefused, holds_finite_floats
from tradetape.schemas.remembered import Remembered


def prepare_indicators(event: Any) -> None:
    """Bring indicator names to one spelling; move values that are no number yet from `values` to `invalid`."""
    values, invalid = _renamed(event.values, "values"), event.invalid
    missing = [name for name, value in values.items() if value is None or _is_not_finite(value)]
    if missing:
        values = {name: value for name, value in values.items() if name not in missing}
    force_setattr(event, "values", values)
    if missing or invalid:
        listed = [_indicator(name, "invalid") for name in invalid]
        force_setattr(event, "invalid", sorted({*missing, *listed}))


def prepare_signal(event: Any) -> None:
    """Bring the names of the indicator snapshot to one spelling."""
    force_setattr(event, "indicators", _renamed(event.indicators, "indicators"))


def _are_canonical(indicators: tuple[Any, ...]) -> bool:
    """Whether the names need no other spelling."""
    try:
        return all(isinstance(name, str) and names.normalise_indicator(name) == name for name in indicators)
    except NameRefused:
        return False


_CANONICAL = Remembered(_are_canonical, limit=256)
"""A bot gives the same names with every update."""


def _renamed(values: Any, field: str) -> dict[str, Any]:
    if not isinstance(values, Mapping):
        raise FieldRefused(field, values, f"must be a dict of indicator values, not {type(values).__name__}")
    renamed: dict[str, Any] = {}
    for given, value in values.items():
        name = _indicator(given, field)
        if name in renamed and renamed[name] != value:
            raise FieldRefused(f"{field}.{given}", value, f"is {name}, which is already given as {renamed[name]!r}")
        renamed[name] = value
    return renamed


def _indicator(given: Any, field: str) -> str:
    if not isinstance(given, str):
        raise FieldRefused(field, given, "must name indicators by text")
    try:
        return names.normalise_indicator(given)
    except NameRefused as error:
        raise FieldRefused(f"{field}.{given}", given, error.rule) from None


def _is_not_finite(value: Any) -> bool:
    return isinstance(value, float) and not math.isfinite(value)


def check_candle(event: Any) -> None:
    """A bar has its length, its high on top and its low below, and no negative volume."""
    low, high = event.low, event.high
    for field in ("open", "close"):
        if not low <= getattr(event, field) <= high:
            raise FieldRefused(field, getattr(event, field), f"must lie between low {low} and high {high}")
    if event.volume < 0:
        raise FieldRefused("volume", event.volume, "must not be negative")
    length_us = (event.close_time - event.open_time) // times.MICROSECOND
    timeframe = event.timeframe
    if length_us <= 0 or (names.has_fixed_length(timeframe) and length_us != names.timeframe_us(timeframe)):
        rule = f"must be open_time + {timeframe}: the end of a bar is exclusive (venues that report …59.999 mean the next full second)"
        raise FieldRefused("close_time", event.close_time, rule)


def check_signal(event: Any) -> None:
    """Confidence is a probability, and an unknown price is no price."""
    confidence = event.confidence
    if confidence is not None and not 0 <= confidence <= 1:
        raise FieldRefused("confidence", confidence, "must be a probability between 0 and 1")
    if event.reference_price == 0:
        raise FieldRefused("reference_price", 0, "must be None when unknown, never 0")


Rule = Callable[[Any], None]


class Preparation(NamedTuple):
    """How a record's events are prepared, and which of them need it not."""

    prepare: Rule
    unless: str
    """An expression about `event`, which sees `names`: whether it is as the record wants it already."""
    spares: str | None = None
    """A field of it that is right then as well, and of which a copy is taken without looking at it again."""
    names: Mapping[str, object] = MappingProxyType({})


PREPARE: dict[str, Preparation] = {
    "IndicatorUpdate": Preparation(
        prepare_indicators,
        unless="type(value := event.values) is dict and not event.invalid"
        " and canonical[tuple(value)] and holds_finite_floats(value)",
        spares="values",
        names={"canonical": _CANONICAL, "holds_finite_floats": holds_finite_floats},
    ),
    "TradeSignal": Preparation(prepare_signal, unless="not event.indicators"),
}
CHECK: dict[str, Rule] = {"Candle": check_candle, "TradeSignal": check_signal}
