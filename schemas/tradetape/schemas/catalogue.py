"""The catalogue: which events there are, on which topic each travels, and what makes two of them the same.

One entry here, one .avsc and one migration are all that a new event type takes; codec, topics, history, tail and
replay read this table.
"""

from __future__ import annotations

import enum
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from tradetape.schemas import avro_schema, event_classes, identity, rules
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.errors import CatalogueError
from tradetape.schemas.events import Event
from tradetape.schemas.fields import FieldPlan

DEFAULT_PREFIX = "tradetape."
DEAD_LETTERS = "dead-letters"
DAY_MS = 86_400_000
FOREVER = -1
MAX_EVENT_BYTES = 256 * 1024
"""The largest event, framed. Checked by the producer before it is queued and by every reader before it is decoded."""
MAX_BATCH_BYTES = 1024 * 1024
"""The largest batch of records that a topic takes; also leaves room for a dead letter's headers."""


class Delivery(enum.Enum):
    """What the producer owes an event: market updates may be replaced by newer ones, decisions may never be lost."""

    MARKET = "market"
    DECISION = "decision"


@dataclass(frozen=True, kw_only=True)
class Topic:
    """A topic as it is to be on the broker. Retention in milliseconds and in bytes for each partition, -1 for no limit."""

    name: str
    retention_ms: int
    retention_bytes: int = -1

    def config(self) -> dict[str, str]:
        """The broker's settings of the topic, by their Kafka names."""
        return {
            "cleanup.policy": "delete",
            "retention.ms": str(self.retention_ms),
            "retention.bytes": str(self.retention_bytes),
            "max.message.bytes": str(MAX_BATCH_BYTES),
            "message.timestamp.type": "CreateTime",
        }


@dataclass(frozen=True, kw_only=True, eq=False)
class EventType:
    """One kind of event.

    `topic` and `table` are without prefix and schema. `natural_key` as in identity.natural_key, empty for none.
    `series_key` names the fields that say whose successor an event is. `event_time_from` names the field that
    event_time is derived from where that field is set (and the bar is final). `own_id` repeats the event_id.
    """

    record: str
    topic: str
    table: str
    delivery: Delivery
    schema: Schema
    natural_key: tuple[str, ...] = ()
    series_key: tuple[str, ...] = ()
    event_time_from: str | None = None
    own_id: str | None = None
    retention_ms: int = FOREVER
    retention_bytes: int = -1
    event_class: type[Event] = field(init=False)
    plans: tuple[FieldPlan, ...] = field(init=False)
    schema_id: int = field(init=False)
    preparation: rules.Preparation | None = field(init=False)
    check: rules.Rule | None = field(init=False)

    def __post_init__(self) -> None:
        plans = event_classes.PLANS.get(self.record) or event_classes.plan_fields(self.schema)
        names = [plan.name for plan in plans]
        if tuple(names[: len(event_classes.COMMON_FIELDS)]) != event_classes.COMMON_FIELDS:
            raise CatalogueError(f"{self.record}: its first fields must be {', '.join(event_classes.COMMON_FIELDS)}")
        made = event_classes.CLASSES.get(self.record) or event_classes.event_class(self.schema, plans, self.own_id)
        derived = {
            "plans": plans,
            "event_class": made,
            "schema_id": avro_schema.content_id(self.schema),
            "preparation": rules.PREPARE.get(self.record),
            "check": rules.CHECK.get(self.record),
        }
        for name, value in derived.items():
            object.__setattr__(self, name, value)

    @cached_property
    def derive_id(self) -> Callable[[Mapping[str, Any]], str] | None:
        """The event_id of an event's plain fields as a function; None where there is no natural key."""
        if not self.natural_key:
            return None
        return identity.natural_key(self.record, self.natural_key, booleans=self._booleans())

    def id_expression(self, value_of: Callable[[str], str]) -> str | None:
        """The same as text; see identity.key_expression."""
        if not self.natural_key:
            return None
        return identity.key_expression(self.record, self.natural_key, booleans=self._booleans(), value_of=value_of)

    def _booleans(self) -> list[str]:
        return [plan.name for plan in self.plans if plan.converter.python_type is bool]


def _shipped(record: str, topic: str, table: str, delivery: Delivery, **rest: Any) -> EventType:
    schema = event_classes.HEADS[record]
    own_id = event_classes.OWN_ID.get(record)
    return EventType(record=record, topic=topic, table=table, delivery=delivery, schema=schema, own_id=own_id, **rest)


_BAR = ("venue", "symbol", "timeframe")
_BYTE_GUARD = 4 * 1024**3
_MARKET: dict[str, Any] = {"delivery": Delivery.MARKET, "retention_ms": 30 * DAY_MS, "retention_bytes": _BYTE_GUARD}
_DECISION: dict[str, Any] = {"delivery": Delivery.DECISION}

SHIPPED = (
    _shipped(
        "Candle", "candles", "candles", **_MARKET, event_time_from="close_time",
        natural_key=(*_BAR, "open_time", "is_final|event_time"), series_key=(*_BAR, "is_final"),
    ),
    _shipped(
        "IndicatorUpdate", "indicator-updates", "indicator_updates", **_MARKET, event_time_from="bar_close_time",
        natural_key=(*_BAR, "indicator_set", "bar_close_time", "producer", "is_final|event_time"),
        series_key=(*_BAR, "is_final", "indicator_set"),
    ),
    _shipped(
        "MarketCondition", "market-conditions", "market_conditions", Delivery.MARKET, retention_ms=90 * DAY_MS,
        natural_key=("scope", "venue", "symbol", "condition", "event_time"), series_key=("scope", "venue", "symbol"),
    ),
    _shipped(
        "TradeSignal", "trade-signals", "trade_signals", **_DECISION, event_time_from="bar_close_time",
        natural_key=("strategy_id", *_BAR, "bar_close_time|event_time", "action", "direction"),
        series_key=("venue", "symbol", "strategy_id"),
    ),
    _shipped("SignalDecision", "signal-decisions", "signal_decisions", **_DECISION, natural_key=("signal_id", "stage")),
    _shipped("Trade", "trades", "trades", **_DECISION, natural_key=("signal_id", "account_id")),
    _shipped(
        "TradeDispatch", "trade-dispatches", "trade_dispatches", **_DECISION,
        natural_key=("trade_id", "leg_index", "attempt", "outcome"),
    ),
    _shipped(
        "Fill", "fills", "fills", **_DECISION,
        natural_key=("venue", "account_id", "venue_order_id", "venue_trade_id"),
    ),
    _shipped(
        "TradeClosed", "trades-closed", "closed_trades", **_DECISION, event_time_from="closed_at",
        natural_key=("trade_id",),
    ),
)  # fmt: skip


class Catalogue:
    """Event types by record, class and topic, under one topic prefix. Immutable: the `with_…` methods give a new one."""

    def __init__(self, event_types: tuple[EventType, ...] = SHIPPED, *, prefix: str = DEFAULT_PREFIX) -> None:
        self.event_types = event_types
        self.prefix = prefix
        self._by_record = {event_type.record: event_type for event_type in event_types}
        self._by_class = {event_type.event_class: event_type for event_type in event_types}
        self._by_topic = {prefix + event_type.topic: event_type for event_type in event_types}
        if not len(self._by_record) == len(self._by_class) == len(self._by_topic) == len(event_types):
            raise CatalogueError("two event types share a record, a class or a topic")
        if prefix + DEAD_LETTERS in self._by_topic:
            raise CatalogueError(f"{prefix}{DEAD_LETTERS} is the topic of dead letters, not of an event type")

    def __iter__(self) -> Iterator[EventType]:
        return iter(self.event_types)

    def with_prefix(self, prefix: str) -> Catalogue:
        """The same event types on topics of another prefix."""
        return Catalogue(self.event_types, prefix=prefix)

    def with_event(self, event_type: EventType) -> Catalogue:
        """One event type more."""
        return Catalogue((*self.event_types, event_type), prefix=self.prefix)

    def by_record(self, record: str) -> EventType:
        """The event type of a record's name. Raises CatalogueError."""
        return _found(self._by_record, record, "event type")

    def by_class(self, event_class: type) -> EventType:
        """The event type of a class. Raises CatalogueError."""
        found = self._by_class.get(event_class)
        if found is None:
            known = ", ".join(sorted(self._by_record))
            raise CatalogueError(f"{event_class.__name__} is not an event of this catalogue; it has {known}")
        return found

    def by_topic(self, topic: str) -> EventType:
        """The event type that travels on a topic, named with its prefix. Raises CatalogueError."""
        return _found(self._by_topic, topic, "topic")

    def topic_name(self, event_type: EventType) -> str:
        """The full name of an event type's topic."""
        return self.prefix + event_type.topic

    def subject(self, event_type: EventType) -> str:
        """The name under which a schema registry keeps the schemas of an event type's topic."""
        return f"{self.topic_name(event_type)}-value"

    @property
    def dead_letters_topic(self) -> str:
        """The full name of the topic of records that could not be processed."""
        return self.prefix + DEAD_LETTERS

    def topics(self) -> tuple[Topic, ...]:
        """Every topic as it is to be on the broker, dead letters last."""
        declared = [
            Topic(name=self.topic_name(one), retention_ms=one.retention_ms, retention_bytes=one.retention_bytes)
            for one in self.event_types
        ]
        return (*declared, Topic(name=self.dead_letters_topic, retention_ms=90 * DAY_MS))


def _found(table: Mapping[str, EventType], name: str, kind: str) -> EventType:
    found = table.get(name)
    if found is None:
        raise CatalogueError(f"no {kind} {name!r} in this catalogue; it has {', '.join(sorted(table))}")
    return found


CATALOGUE = Catalogue()
