"""From what trading code made to what goes onto the tape: checked, normalised, named and numbered.

Nothing here waits or touches a network. A number is taken only when the event is handed over (`keep`), so a gap in
producer_seq always means loss.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec
from msgspec.structs import force_setattr as put

from tradetape.schemas import identity, times
from tradetape.schemas.catalogue import Catalogue, EventType
from tradetape.schemas.errors import EventError
from tradetape.schemas.events import Event, RunMode
from tradetape.schemas.fields import FieldPlan, FieldRefused, nullable
from tradetape.schemas.intake import Take, compile_intake

_STAMPED = frozenset(("event_id", "emitted_at", "producer", "producer_run_id", "producer_seq"))
_COMPLETED = frozenset(("event_time", "correlation_id"))
"""Fields that a user may leave out and that every event has in the end."""
_FORWARD_US = times.DAY_US
"""How far ahead of the producer's clock an event_time may lie before it can only be a wrong unit."""


def wall_clock_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


_copy: Any = Event.__copy__  # type: ignore[attr-defined]  # msgspec's own, which copy.copy would look up each time


class _Form(NamedTuple):
    """What is known of an event type before there is an event: the rest runs for every event."""

    event_type: EventType
    plain: dict[str, Any]
    """The plain fields of an event that gives nothing: its defaults and what is the same for the whole run."""
    take: Take


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
        self.run_mode = RunMode(run_mode)
        self.run_id = run_id or str(uuid.uuid4())
        self._catalogue = catalogue
        self._clock = clock
        self._number = 1
        self._forms: dict[type, _Form] = {}

    def stamp(self, event: Event) -> tuple[EventType, Event, dict[str, Any]]:
        """The event's type, the event as stamped, and its plain fields for the codec. Raises EventError, CatalogueError."""
        form = self._forms.get(type(event)) or self._new_form(type(event))
        stamped, plain = _copy(event), form.plain.copy()
        now_us = self._clock()
        try:
            self._complete(form, stamped, plain, now_us)
        except FieldRefused as refused:
            raise EventError(form.event_type.record, refused.path, refused.value, refused.rule) from None
        put(stamped, "emitted_at", times.to_datetime(now_us))
        put(stamped, "producer", self.source)
        put(stamped, "producer_run_id", self.run_id)
        put(stamped, "producer_seq", self._number)
        plain["emitted_at"], plain["producer_seq"] = now_us, self._number
        return form.event_type, stamped, plain

    def keep(self) -> None:
        """The last stamped event was handed over: its number is taken."""
        self._number += 1

    def _complete(self, form: _Form, event: Any, plain: dict[str, Any], now_us: int) -> None:
        """From what was given, in `event`, to all that it says, in both forms. Raises FieldRefused."""
        event_type = form.event_type
        if not event.run_mode:
            put(event, "run_mode", self.run_mode)
        if event_type.prepare is not None:
            event_type.prepare(event)
        form.take(event, plain)
        _derive_event_time(event_type.event_time_from, event, plain)
        _check_not_ahead(plain["event_time"], event, now_us)
        if event_type.check is not None:
            event_type.check(event)
        _derive_ids(event_type, event, plain)

    def _new_form(self, event_class: type) -> _Form:
        event_type = self._catalogue.by_class(event_class)
        taken: list[FieldPlan] = []
        plain: dict[str, Any] = {}
        for plan in map(self._completed, event_type.plans):
            plain[plan.name] = None
            if plan.name not in _STAMPED and plan.name != event_type.own_id:
                taken.append(plan)
        settled = {plan.name: plan.converter.accept(plan.default)[1] for plan in taken if _is_settled(plan.default)}
        run = {"producer": self.source, "producer_run_id": self.run_id}
        take = compile_intake(taken, defaults=settled, about=event_type.record)
        form = self._forms[event_class] = _Form(event_type, plain | settled | run, take)
        return form

    def _completed(self, plan: FieldPlan) -> FieldPlan:
        if plan.name == "run_mode":
            return plan._replace(default=self.run_mode)
        if plan.name in _COMPLETED:
            return plan._replace(converter=nullable(plan.converter), default=None)
        return plan


def _is_settled(default: Any) -> bool:
    """Whether the plain form of a default can be shared by all events."""
    return default is not msgspec.NODEFAULT and not isinstance(default, (dict, tuple))


def _derive_event_time(source: str | None, event: Any, plain: dict[str, Any]) -> None:
    """A bar's events are true at its close, whoever emits them and when: the id depends on it."""
    event_time_us = plain["event_time"]
    if source is None or plain[source] is None or plain.get("is_final") is False:
        if event_time_us is None:
            raise FieldRefused("event_time", None, "must be given: there is no finished bar to take it from")
    elif event_time_us is None:
        plain["event_time"] = plain[source]
        put(event, "event_time", getattr(event, source))
    elif event_time_us != plain[source]:
        raise FieldRefused("event_time", event.event_time, f"must equal {source} or be left out")


def _check_not_ahead(event_time_us: int, event: Any, now_us: int) -> None:
    try:
        times.check_range(event_time_us, latest_us=now_us + _FORWARD_US)
    except ValueError as error:
        raise FieldRefused("event_time", event.event_time, f"{error} (a day ahead of this clock)") from None


def _derive_ids(event_type: EventType, event: Any, plain: dict[str, Any]) -> None:
    event_id = event_type.derive_id(plain) if event_type.derive_id else _given_id(event.event_id)
    plain["event_id"] = event_id
    put(event, "event_id", event_id)
    own_id = event_type.own_id
    if own_id is not None:
        if getattr(event, own_id) not in (None, event_id):
            raise FieldRefused(own_id, getattr(event, own_id), f"must be left out: it is the event_id, {event_id}")
        plain[own_id] = event_id
        put(event, own_id, event_id)
    if not plain["correlation_id"]:
        plain["correlation_id"] = chain = plain.get("signal_id") or event_id
        put(event, "correlation_id", chain)


def _given_id(value: object) -> str:
    """The id of an event without a natural key: the user's own, so that a repeat has it too, or a new one."""
    if value is None:
        return identity.uuid7_text()
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise FieldRefused("event_id", value, "must be a UUID, or be left out") from None
