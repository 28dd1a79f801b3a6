"""The lines that take an event's fields in do what the converters say, field after field, and no more."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradetape.schemas import CATALOGUE, Leg, TakeProfit, TrailingStop, event_classes, generated, intake, rules
from tradetape.schemas.event_classes import RECORDS
from tradetape.schemas.fields import Converter, FieldPlan, FieldRefused, accept_at
from tradetape.schemas.generated import variable


class Words(str):
    """A str that is not exactly one."""


class Odd(float):
    """A float that is not exactly one."""


AT = datetime(2025, 5, 4, 15, 34, tzinfo=UTC)
ENUMS: list[Any] = [one for one in event_classes.NAMED_CLASSES.values() if issubclass(one, str)]
RIGHT: st.SearchStrategy[Any] = (
    st.sampled_from([member for one in ENUMS for member in one.__members__.values()])
    | st.text(max_size=8)
    | st.sampled_from(
        ["binance", "BTCUSDT", "btc/usdt", "1m", "60m", "1.5", Words("binance"), Words("é"), "\ud800", "a\0b", "x\n"]
    )
    | st.integers(-(2**64), 2**64)
    | st.floats()
    | st.builds(Odd, st.floats())
    | st.decimals(allow_nan=True)
    | st.booleans()
    | st.none()
    | st.datetimes(timezones=st.sampled_from([UTC, timezone(timedelta(hours=2)), None]))
    | st.just(AT)
)
NESTED = st.sampled_from([
    Leg(leg_index=1), Leg(leg_index=2**40), TakeProfit(price="1.5", close_ratio=0.5), TrailingStop(activation_price=1, delta_ratio=0.1),
])  # fmt: skip
ANYTHING = (
    RIGHT
    | NESTED
    | st.lists(RIGHT | NESTED, max_size=3)
    | st.lists(st.text(max_size=3), max_size=3).map(tuple)
    | st.dictionaries(st.text(max_size=3) | st.sampled_from(["ema_50", "a\0", Words("w")]), RIGHT, max_size=3)
    | st.dictionaries(st.text(max_size=3), st.floats(), max_size=3)
)
SHORTENED: dict[str, Converter] = {
    f"{plan.converter.python_type}, {plan.converter.shortcut.condition}": plan.converter
    for record in RECORDS
    for plan in event_classes.PLANS[record]
    if plan.converter.shortcut
}
"""One converter of each kind."""


def same(one: object, other: object) -> bool:
    """Equal, of one type, and with a NaN as its equal."""
    return repr(one) == repr(other) and type(one) is type(other)


AWKWARD = [
    2**31 - 1, 2**31, -(2**31), -(2**31) - 1, 0.0, -0.0, math.inf, math.nan, True, 1, "", "\x7f", "\ud800", "a\0b", [], (), {}, ("a",),
    {"a": 1.0}, Words("binance"), Odd(1), AT, AT.replace(tzinfo=None), AT.replace(year=1970), AT.replace(year=2200), Decimal(1),
]  # fmt: skip


def hold_against_accept(converter: Converter, value: Any) -> None:
    shortcut = converter.shortcut
    assert shortcut
    space: dict[str, Any] = {**shortcut.names, "value": value}
    if eval(shortcut.condition.format(value="value"), space):
        typed, plain = converter.accept(value)
        assert same(plain, eval(shortcut.plain.format(value="value"), space))
        assert same(typed, eval(shortcut.typed.format(value="value"), space) if shortcut.typed else value)


@pytest.mark.parametrize("kind", SHORTENED)
@given(value=ANYTHING)
def test_a_shortcut_is_taken_only_where_the_converter_would_do_the_same(kind: str, value: Any) -> None:
    hold_against_accept(SHORTENED[kind], value)


@pytest.mark.parametrize("kind", SHORTENED)
def test_no_shortcut_lets_an_awkward_value_pass(kind: str) -> None:
    for value in AWKWARD:
        hold_against_accept(SHORTENED[kind], value)


INDICATORS = st.dictionaries(
    st.sampled_from(["ema_50", "rsi_14", "RSI14", "macd_hist", "MACD_diff", "a b", Words("qqe"), 7]),
    st.floats(-9, 9) | st.sampled_from([math.nan, math.inf, None, 1, True, "1", Odd(2), 1e308, 9e307]),
    max_size=3,
)


@pytest.mark.parametrize("record", rules.PREPARE)
@given(indicators=INDICATORS, invalid=st.just(()) | st.lists(st.sampled_from(["ADX14", "qqe"]), max_size=2))
def test_an_event_that_needs_no_preparation_would_come_out_of_it_as_it_is(
    record: str, indicators: Any, invalid: Any
) -> None:
    preparation, event_type = rules.PREPARE[record], CATALOGUE.by_record(record)
    fields: dict[str, Any] = {plan.name: None for plan in event_type.plans if plan.default is msgspec.NODEFAULT}
    given_fields = {
        "IndicatorUpdate": {"values": indicators, "invalid": invalid},
        "TradeSignal": {"indicators": indicators},
    }
    event: Any = event_type.event_class(**{**fields, **given_fields[record]})
    if not eval(preparation.unless, {**preparation.names, "event": event}):
        return
    before = msgspec.structs.asdict(event)
    preparation.prepare(event)
    assert same(msgspec.structs.asdict(event), before)
    if preparation.spares is not None:
        converter = next(plan.converter for plan in event_type.plans if plan.name == preparation.spares)
        typed, plain = converter.accept(before[preparation.spares])
        assert same(typed, before[preparation.spares])
        assert same(plain, typed)


def field_by_field(event: Any, plans: Sequence[FieldPlan]) -> dict[str, Any]:
    """What intake stands for."""
    plain = {}
    for plan in plans:
        typed, plain[plan.name] = accept_at(plan.name, plan.converter, getattr(event, plan.name))
        msgspec.structs.force_setattr(event, plan.name, typed)
    return plain


def taking(record: str) -> Any:
    """A function of a record's lines: the plain fields of an event."""
    plans = event_classes.PLANS[record]
    made = intake.intake_source(plans, settled=SETTLED[record])
    plain = ", ".join(f"{plan.name!r}: {variable(plan.name)}" for plan in plans)
    lines = ["def take(event):", *(f"    {line}" for line in made.lines), f"    return {{{plain}}}"]
    return generated.function("take", lines, made.names, about=record)


def outcome(take: Callable[[Any], dict[str, Any]], event: Any) -> Any:
    try:
        plain = take(event)
    except FieldRefused as refused:
        return refused.path, repr(refused.value), refused.rule
    return {name: (type(value), repr(value)) for name, value in plain.items()}, repr(event)


SETTLED = {
    record: {
        plan.name: plan.converter.accept(plan.default)[1]
        for plan in event_classes.PLANS[record]
        if plan.default is not msgspec.NODEFAULT and not isinstance(plan.default, (dict, tuple))
    }
    for record in RECORDS
}
"""Plain defaults that all events may share."""
TAKES = {record: taking(record) for record in RECORDS}


@pytest.mark.parametrize("record", RECORDS)
@given(data=st.data())
def test_an_event_is_taken_in_or_refused_as_its_fields_are_one_by_one(record: str, data: st.DataObject) -> None:
    plans = event_classes.PLANS[record]
    made: Any = CATALOGUE.by_record(record).event_class
    given_fields = {plan.name: data.draw(likely(plan)) for plan in plans}
    for name in data.draw(st.lists(st.sampled_from(sorted(given_fields)), max_size=2)):
        given_fields[name] = data.draw(ANYTHING)
    expected = outcome(lambda event: field_by_field(event, plans), made(**given_fields))
    assert outcome(TAKES[record], made(**given_fields)) == expected


def likely(plan: FieldPlan) -> st.SearchStrategy[Any]:
    """Mostly values that the field takes, so that one wrong among them is seen."""
    hints = {str: st.text(max_size=5), float: st.floats(-9, 9), int: st.integers(-9, 9), bool: st.booleans()}
    wanted = repr(plan.converter.python_type)
    by_type = [strategy for kind, strategy in hints.items() if kind.__name__ in wanted]
    if plan.name in ("venue", "symbol", "timeframe"):
        return st.sampled_from(
            {"venue": ["binance", "Binance"], "symbol": ["BTCUSDT", "btc/usdt"], "timeframe": ["1m", "60m"]}[plan.name]
        )
    if "dict" in wanted:
        return st.dictionaries(
            st.text(max_size=3), by_type[-1] if "float" in wanted else st.text(max_size=3), max_size=3
        )
    if "tuple" in wanted:
        return st.just(()) | st.lists(st.text(max_size=3), max_size=2)
    if "datetime" in wanted:
        return st.just(AT) | st.just(AT.astimezone(timezone(timedelta(hours=2))))
    if "Decimal" in wanted:
        return st.sampled_from(["1.5", 2, Decimal("-0.25"), 0.1])
    for one in ENUMS:
        if one.__name__ in wanted:
            return st.sampled_from([*one.__members__.values(), *one.__members__])
    return by_type[0] if by_type else st.none()


def test_an_intake_can_be_read_and_names_the_converters_it_falls_back_on() -> None:
    text = generated.source_of(TAKES["Candle"])
    assert "accept_close(value)" in text
    assert "RunMode" in text
