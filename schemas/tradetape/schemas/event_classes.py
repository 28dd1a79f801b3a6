"""Builds the event classes from the Avro schemas: a field is declared once, in its .avsc.

`events` hands the finished classes out, and events.pyi says what type checkers see of them.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec

from tradetape.schemas import avro_schema, names
from tradetape.schemas.errors import NameRefused
from tradetape.schemas.fields import Converter, FieldPlan, NamedTypes, Shortcut
from tradetape.schemas.structs import CheckedStruct, define_struct

RECORDS = (
    "Candle", "IndicatorUpdate", "MarketCondition", "TradeSignal", "SignalDecision",
    "Trade", "TradeDispatch", "Fill", "TradeClosed",
)  # fmt: skip
"""The records that ship with tradetape; each has a file avro/<record>.avsc."""


class Event(CheckedStruct, frozen=True, kw_only=True):
    """What every event has. What the producer stamps is None until the event is emitted."""

    event_id: str | None = None
    event_time: datetime | None = None
    emitted_at: datetime | None = None
    producer: str | None = None
    producer_run_id: str | None = None
    producer_seq: int | None = None
    run_mode: Any = None
    correlation_id: str | None = None
    causation_id: str | None = None
    venue: str
    symbol: str
    tags: dict[str, str] = msgspec.field(default_factory=dict)


COMMON_FIELDS: tuple[str, ...] = Event.__struct_fields__
_types = NamedTypes()


_REMEMBERED_NAMES = 4_096


def _by_name(kind: str, normalise: Any) -> Converter:
    spelled: set[str] = set()

    def accept(value: Any) -> tuple[str, str]:
        if not isinstance(value, str):
            raise ValueError(f"must be text, not {type(value).__name__}")
        try:
            name = normalise(value)
        except NameRefused as error:
            raise ValueError(error.rule) from None
        if type(value) is str and name == value and len(spelled) < _REMEMBERED_NAMES:
            spelled.add(value)
        return name, name

    seen = Shortcut(f"type({{value}}) is str and {{value}} in spelled_{kind}", names={f"spelled_{kind}": spelled})
    return Converter(str, accept, lambda plain: plain, seen)


_NAMES = {
    "venue": _by_name("venue", names.normalise_venue),
    "symbol": _by_name("symbol", names.normalise_symbol),
    "timeframe": _by_name("timeframe", names.normalise_timeframe),
}


def plan_fields(schema: Mapping[str, Any]) -> tuple[FieldPlan, ...]:
    """The fields of an event record, with the names of markets and timeframes brought to one spelling."""
    return tuple(
        plan._replace(converter=_NAMES[plan.name]) if plan.name in _NAMES else plan for plan in _types.plans(schema)
    )


def event_class(schema: Mapping[str, Any], plans: Sequence[FieldPlan], own_id: str | None) -> type[Any]:
    """The class of an event record; `own_id` names the field that repeats the event_id, such as signal_id."""
    optional = [plan._replace(default=None) if plan.name == own_id else plan for plan in plans]
    return define_struct(schema, optional, base=Event)


HEADS = {record: avro_schema.load(record) for record in RECORDS}
"""Their schemas."""
PLANS = {record: plan_fields(head) for record, head in HEADS.items()}
OWN_ID = {"TradeSignal": "signal_id", "Trade": "trade_id", "Fill": "fill_id"}
"""Fields that repeat the event_id under the name by which later records refer to it."""
CLASSES = {record: event_class(head, PLANS[record], OWN_ID.get(record)) for record, head in HEADS.items()}
NAMED_CLASSES: dict[str, type] = dict(_types.classes)
"""The enums and nested structs of the shipped schemas, by name."""
