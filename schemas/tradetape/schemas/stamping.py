"""From what trading code made to what goes onto the tape: checked, normalised, named and numbered.

Nothing here waits or touches a network. A number is taken only when the event is handed over (`keep`), so a gap in
producer_seq always means loss.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any

import msgspec

from tradetape.schemas import identity, times
from tradetape.schemas.catalogue import Catalogue, EventType
from tradetape.schemas.errors import EventError
from tradetape.schemas.events import Event, RunMode
from tradetape.schemas.fields import FieldPlan, FieldRefused, accept_at, nullable

_STAMPED = frozenset(("event_id", "emitted_at", "producer", "producer_run_id", "producer_seq"))
_COMPLETED = frozenset(("event_time", "correlation_id"))
"""Fields that a user may leave out and that every event has in the end."""
_FORWARD_US = times.DAY_US
"""How far ahead of the producer's clock an event_time may lie before it can only be a wrong unit."""


def wall_clock_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


class Stamper:
    """Stamps the events of one producer's run. Not locked: the producer orders its callers.

    `clock` gives microseconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        source: str,
        run_mode: RunMode,
        run_id: str | None = None,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        self.source = source
        self.run_mode = run_mode
        self.run_id = run_id or str(uuid.uuid4())
        self._catalogue = catalogue
        self._clock = clock
        self._number = 1
        self._plans: dict[EventType, tuple[FieldPlan, ...]] = {}

    def stamp(self, event: Event) -> tuple[EventType, Event, dict[str, Any]]:
        """The event's type, the event as stamped, and its plain fields for the codec. Raises EventError, CatalogueError."""
        event_type = self._catalogue.by_class(type(event))
        given = msgspec.structs.asdict(event)
        try:
            typed, plain = self._converted(event_type, given)
        except FieldRefused as refused:
            raise EventError(event_type.record, refused.path, refused.value, refused.rule) from None
        typed["producer_seq"] = plain["producer_seq"] = self._number
        return event_type, event_type.event_class(**typed), plain

    def keep(self) -> None:
        """The last stamped event was handed over: its number is taken."""
        self._number += 1

    def _converted(self, event_type: EventType, given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
        now_us = self._clock()
        given["run_mode"] = given["run_mode"] or self.run_mode
        typed: dict[str, Any] = {
            "emitted_at": times.to_datetime(now_us),
            "producer": self.source,
            "producer_run_id": self.run_id,
        }
        plain = {**typed, "emitted_at": now_us}
        if event_type.prepare is not None:
            event_type.prepare(given)
        for plan in self._given_plans(event_type):
            typed[plan.name], plain[plan.name] = accept_at(plan.name, plan.converter, given[plan.name])
        _derive_event_time(event_type, typed, plain)
        _check_not_ahead(plain["event_time"], typed["event_time"], now_us)
        if event_type.check is not None:
            event_type.check(typed)
        for name, value in _derived_ids(event_type, given, plain).items():
            typed[name] = plain[name] = value
        return typed, plain

    def _given_plans(self, event_type: EventType) -> tuple[FieldPlan, ...]:
        plans = self._plans.get(event_type)
        if plans is None:
            stamped = _STAMPED | {event_type.own_id}
            plans = tuple(_optional(plan) for plan in event_type.plans if plan.name not in stamped)
            self._plans[event_type] = plans
        return plans


def _derive_event_time(event_type: EventType, typed: dict[str, Any], plain: dict[str, Any]) -> None:
    """A bar's events are true at its close, whoever emits them and when: the id depends on it."""
    source = event_type.event_time_from
    if source is None or plain[source] is None or plain.get("is_final") is False:
        if plain["event_time"] is None:
            raise FieldRefused("event_time", None, "must be given: there is no finished bar to take it from")
    elif plain["event_time"] is None:
        typed["event_time"], plain["event_time"] = typed[source], plain[source]
    elif plain["event_time"] != plain[source]:
        raise FieldRefused("event_time", typed["event_time"], f"must equal {source} or be left out")


def _optional(plan: FieldPlan) -> FieldPlan:
    return plan._replace(converter=nullable(plan.converter)) if plan.name in _COMPLETED else plan


def _check_not_ahead(event_time_us: int, value: object, now_us: int) -> None:
    try:
        times.check_range(event_time_us, latest_us=now_us + _FORWARD_US)
    except ValueError as error:
        raise FieldRefused("event_time", value, f"{error} (a day ahead of this clock)") from None


def _derived_ids(event_type: EventType, given: dict[str, Any], plain: dict[str, Any]) -> dict[str, str]:
    event_id = event_type.derive_id(plain) if event_type.derive_id else _given_id(given["event_id"])
    own_id = event_type.own_id
    ids: dict[str, str] = {"event_id": event_id}
    if own_id is not None:
        if given[own_id] not in (None, event_id):
            raise FieldRefused(own_id, given[own_id], f"must be left out: it is the event_id, {event_id}")
        ids[own_id] = event_id
    ids["correlation_id"] = plain["correlation_id"] or plain.get("signal_id") or event_id
    return ids


def _given_id(value: object) -> str:
    """The id of an event without a natural key: the user's own, so that a repeat has it too, or a new one."""
    if value is None:
        return identity.uuid7_text()
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise FieldRefused("event_id", value, "must be a UUID, or be left out") from None
