"""What a record demands beyond the types of its fields.

`prepare` brings what a user may reasonably give to the form that the record wants; `check` refuses what cannot
be true. Both see one record at a time and know no clock.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, MutableMapping
from functools import lru_cache
from typing import Any

from tradetape.schemas import names
from tradetape.schemas.errors import NameRefused
from tradetape.schemas.fields import FieldRefused


def prepare_indicators(given: MutableMapping[str, Any]) -> None:
    """Bring indicator names to one spelling; move values that are no number yet from `values` to `invalid`."""
    values = given["values"]
    if type(values) is dict and not given["invalid"] and _are_finite(values) and _is_canonical(tuple(values)):
        return
    values = _renamed(values, "values")
    missing = [name for name, value in values.items() if value is None or _is_not_finite(value)]
    if missing:
        values = {name: value for name, value in values.items() if name not in missing}
    given["values"] = values
    if missing or given["invalid"]:
        listed = [_indicator(name, "invalid") for name in given["invalid"]]
        given["invalid"] = sorted({*missing, *listed})


def prepare_signal(given: MutableMapping[str, Any]) -> None:
    """Bring the names of the indicator snapshot to one spelling."""
    if given["indicators"]:
        given["indicators"] = _renamed(given["indicators"], "indicators")


def _are_finite(values: Mapping[str, Any]) -> bool:
    """A quick look; False may also mean that their sum is not finite, or that they have none."""
    try:
        return math.isfinite(sum(values.values()))
    except (TypeError, ArithmeticError):
        return False


@lru_cache(maxsize=256)
def _is_canonical(indicators: tuple[Any, ...]) -> bool:
    """Whether the names need no other spelling: a bot gives the same ones with every update."""
    try:
        return all(isinstance(name, str) and names.normalise_indicator(name) == name for name in indicators)
    except NameRefused:
        return False


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


def check_candle(typed: Mapping[str, Any]) -> None:
    """A bar has its length, its high on top and its low below, and no negative volume."""
    low, high = typed["low"], typed["high"]
    for field in ("open", "close"):
        if not low <= typed[field] <= high:
            raise FieldRefused(field, typed[field], f"must lie between low {low} and high {high}")
    if typed["volume"] < 0:
        raise FieldRefused("volume", typed["volume"], "must not be negative")
    length_us = round((typed["close_time"] - typed["open_time"]).total_seconds() * 1_000_000)
    timeframe = typed["timeframe"]
    if length_us <= 0 or (names.has_fixed_length(timeframe) and length_us != names.timeframe_us(timeframe)):
        rule = f"must be open_time + {timeframe}: the end of a bar is exclusive (venues that report …59.999 mean the next full second)"
        raise FieldRefused("close_time", typed["close_time"], rule)


def check_signal(typed: Mapping[str, Any]) -> None:
    """Confidence is a probability, and an unknown price is no price."""
    confidence = typed["confidence"]
    if confidence is not None and not 0 <= confidence <= 1:
        raise FieldRefused("confidence", confidence, "must be a probability between 0 and 1")
    if typed["reference_price"] == 0:
        raise FieldRefused("reference_price", 0, "must be None when unknown, never 0")


Prepare = Callable[[MutableMapping[str, Any]], None]
Check = Callable[[Mapping[str, Any]], None]
PREPARE: dict[str, Prepare] = {"IndicatorUpdate": prepare_indicators, "TradeSignal": prepare_signal}
CHECK: dict[str, Check] = {"Candle": check_candle, "TradeSignal": check_signal}
