"""From what trading code made to what goes onto the tape: checked, normalised, named and numbered.

Nothing here waits or touches a network. A number is taken only when the event is handed over (`keep`), so a gap in
producer_seq always means loss.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable
from itertools import compress
from operator import is_not
from typing import Any, NamedTuple

import msgspec

from tradetape.schemas import identity, times
from tradetape.schemas.catalogue import Catalogue, EventType
from tradetape.schemas.errors import EventError
from tradetape.schemas.events import Event, RunMode
from tradetape.schemas.fields import FieldPlan, FieldRefused, nullable, refused_at

_STAMPED = frozenset(("event_id", "emitted_at", "producer", "producer_run_id", "producer_seq"))
_COMPLETED = frozenset(("event_time", "correlation_id"))
"""Fields that a user may leave out and that every event has in the end."""
_FORWARD_US = times.DAY_US
"""How far ahead of the producer's clock an event_time may lie before it can only be a wrong unit."""


def wall_clock_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


_NOTHING = object()
Accept = Callable[[Any], tuple[Any, Any]]


class _Form(NamedTuple):
    """What is known of an event type before there is an event: the rest runs for every event.

    All three are in the order of the fields. A default that needs no conversion stands in `plain` already.
    """

    accepts: list[tuple[str, Accept]]
    defaults: list[Any]
    plain: dict[str, Any]


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
        self._forms: dict[EventType, _Form] = {}

    def stamp(self, event: Event) -> tuple[EventType, Event, dict[str, Any]]:
        """The event's type, the event as stamped, and its plain fields for the codec. Raises EventError, CatalogueError."""
        event_type = self._catalogue.by_class(type(event))
        form = self._forms.get(event_type) or self._new_form(event_type)
        typed, plain = msgspec.structs.asdict(event), form.plain.copy()
        now_us = self._clock()
        try:
            self._complete(event_type, form, typed, plain, now_us)
        except FieldRefused as refused:
            raise EventError(event_type.record, refused.path, refused.value, refused.rule) from None
        typed["emitted_at"], plain["emitted_at"] = times.to_datetime(now_us), now_us
        typed["producer"], typed["producer_run_id"] = self.source, self.run_id
        typed["producer_seq"] = plain["producer_seq"] = self._number
        return event_type, event_type.event_class(**typed), plain

    def keep(self) -> None:
        """The last stamped event was handed over: its number is taken."""
        self._number += 1

    def _complete(
        self, event_type: EventType, form: _Form, typed: dict[str, Any], plain: dict[str, Any], now_us: int
    ) -> None:
        """From what was given, in `typed`, to all that the event says, in both forms. Raises FieldRefused."""
        typed["run_mode"] = typed["run_mode"] or self.run_mode
        if event_type.prepare is not None:
            event_type.prepare(typed)
        _convert(form, typed, plain)
        _derive_event_time(event_type, typed, plain)
        _check_not_ahead(plain["event_time"], typed["event_time"], now_us)
        if event_type.check is not None:
            event_type.check(typed)
        _derive_ids(event_type, typed, plain)

    def _new_form(self, event_type: EventType) -> _Form:
        stamped = _STAMPED | {event_type.own_id}
        accepts: list[tuple[str, Accept]] = []
        defaults: list[Any] = []
        plain: dict[str, Any] = {}
        for plan in map(self._completed, event_type.plans):
            accept = _as_given if plan.name in stamped else plan.converter.accept
            default = None if plan.name in stamped else plan.default
            settled = default is not msgspec.NODEFAULT and not isinstance(default, (dict, tuple))
            accepts.append((plan.name, accept))
            defaults.append(default if settled else _NOTHING)
            plain[plan.name] = accept(default)[1] if settled else None
        form = _Form(accepts, defaults, {**plain, "producer": self.source, "producer_run_id": self.run_id})
        self._forms[event_type] = form
        return form

    def _completed(self, plan: FieldPlan) -> FieldPlan:
        if plan.name == "run_mode":
            return plan._replace(default=self.run_mode)
        if plan.name in _COMPLETED:
            return plan._replace(converter=nullable(plan.converter), default=None)
        return plan


def _as_given(value: Any) -> tuple[Any, Any]:
    return value, value


def _convert(form: _Form, typed: dict[str, Any], plain: dict[str, Any]) -> None:
    """Bring each field that is not as its default to its typed and its plain form."""
    for name, accept in compress(form.accepts, map(is_not, typed.values(), form.defaults)):
        value = typed[name]
        try:
            typed[name], plain[name] = accept(value)
        except ValueError as error:
            raise refused_at(name, value, error) from None


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


def _check_not_ahead(event_time_us: int, value: object, now_us: int) -> None:
    try:
        times.check_range(event_time_us, latest_us=now_us + _FORWARD_US)
    except ValueError as error:
        raise FieldRefused("event_time", value, f"{error} (a day ahead of this clock)") from None


def _derive_ids(event_type: EventType, typed: dict[str, Any], plain: dict[str, Any]) -> None:
    event_id = event_type.derive_id(plain) if event_type.derive_id else _given_id(typed["event_id"])
    typed["event_id"] = plain["event_id"] = event_id
    own_id = event_type.own_id
    if own_id is not None:
        if typed[own_id] not in (None, event_id):
            raise FieldRefused(own_id, typed[own_id], f"must be left out: it is the event_id, {event_id}")
        typed[own_id] = plain[own_id] = event_id
    if not plain["correlation_id"]:
        typed["correlation_id"] = plain["correlation_id"] = plain.get("signal_id") or event_id


def _given_id(value: object) -> str:
    """The id of an event without a natural key: the user's own, so that a repeat has it too, or a new one."""
    if value is None:
        return identity.uuid7_text()
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise FieldRefused("event_id", value, "must be a UUID, or be left out") from None
