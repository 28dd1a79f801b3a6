"""From what trading code made to what goes onto the tape: checked, normalised, named, numbered and encoded.

One function does it all for the events of a class, made of text at the first of them: the plain fields live in its
variables, and it takes two thirds of the time of a step for each with a dict between them. `emit` owes its caller at most
1.25 times fastavro and produce. Nothing here waits or touches a network. A number is taken only when the event is handed
over (`keep`), so a gap in producer_seq always means loss.
"""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from typing import Any

import msgspec
from msgspec.structs import force_setattr

from tradetape.schemas import generated, identity, times
from tradetape.schemas.catalogue import MAX_EVENT_BYTES, EventType
from tradetape.schemas.codec import Codec, too_large
from tradetape.schemas.errors import EventError
from tradetape.schemas.events import Event, RunMode
from tradetape.schemas.fields import FieldPlan, FieldRefused, nullable
from tradetape.schemas.generated import variable
from tradetape.schemas.intake import intake_source

_STAMPED = frozenset(("event_id", "emitted_at", "producer", "producer_run_id", "producer_seq"))
_COMPLETED = frozenset(("event_time", "correlation_id"))
"""Fields that a user may leave out and that every event has in the end."""
_FORWARD_US = times.DAY_US
"""How far ahead of the producer's clock an event_time may lie before it can only be a wrong unit."""

Stamped = tuple[EventType, Event, bytes, int]
"""The event's type, the event as stamped, its framed bytes, and its emitted_at in microseconds since 1970-01-01 UTC."""
_Stamp = Callable[[Event, int, int], Stamped]


def wall_clock_us() -> int:
    """Microseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000


class Stamper:
    """Stamps and encodes the events of one producer's run. Not locked: the producer orders its callers.

    `clock` gives microseconds since 1970-01-01 UTC.
    """

    def __init__(
        self,
        *,
        codec: Codec,
        source: str,
        run_mode: RunMode,
        run_id: str | None = None,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        self.source = source
        self.run_mode = RunMode(run_mode)
        self.run_id = run_id or str(uuid.uuid4())
        self._codec = codec
        self._clock = clock
        self._number = 1
        self._stamps: dict[type, _Stamp] = {}

    def stamp(self, event: Event, *, ahead: int = 0) -> Stamped:
        """The event as it goes onto the tape; `ahead` is how many were stamped before it and are not kept yet.

        Raises EventError, CatalogueError.
        """
        stamp = self._stamps.get(type(event)) or self._new_stamp(type(event))
        try:
            return stamp(event, self._clock(), self._number + ahead)
        except FieldRefused as refused:
            record = self._codec.catalogue.by_class(type(event)).record
            raise EventError(record, refused.path, refused.value, refused.rule) from None

    def keep(self) -> None:
        """The last stamped event was handed over: its number is taken."""
        self._number += 1

    def _new_stamp(self, event_class: type) -> _Stamp:
        event_type = self._codec.catalogue.by_class(event_class)
        stamp = self._stamps[event_class] = self._compiled(event_type)
        return stamp

    def _compiled(self, event_type: EventType) -> _Stamp:
        taken = [
            self._completed(plan)
            for plan in event_type.plans
            if plan.name not in _STAMPED and plan.name != event_type.own_id
        ]
        settled = {plan.name: plan.converter.accept(plan.default)[1] for plan in taken if _is_settled(plan.default)}
        preparation = event_type.preparation
        intake = intake_source(taken, settled=settled, spared=preparation.spares if preparation else None)
        writing = self._codec.writing(event_type)
        names = {
            **_NAMES, **intake.names, **writing.names, "EVENT_TYPE": event_type, "check": event_type.check,
            "RUN_MODE": self.run_mode, "SOURCE": self.source, "RUN_ID": self.run_id,
        }  # fmt: skip
        if preparation is not None:
            names |= {"prepare": preparation.prepare, **preparation.names}
        lines = [
            "event = copy(given)",
            "if not event.run_mode:",
            "    put(event, 'run_mode', RUN_MODE)",
            *([f"is_right = {preparation.unless}", "if not is_right:", "    prepare(event)"] if preparation else []),
            *intake.lines,
            *_event_time(event_type),
            *(["check(event)"] if event_type.check else []),
            # These two are part of what an id may be made of.
            "producer_ = SOURCE",
            "producer_run_id_ = RUN_ID",
            *_ids(event_type),
            "emitted_at_, producer_seq_ = now_us, number",
            # To the microsecond until 2242, and in half of the time that a timedelta takes.
            "put(event, 'emitted_at', instant(now_us / 1_000_000, UTC))",
            *_put(("producer", "producer_run_id", "producer_seq")),
            f"payload = {writing.expression}",
            "if len(payload) > MAX_EVENT_BYTES:",
            "    raise FieldRefused('event_id', event_id_, too_large(payload))",
            "return EVENT_TYPE, event, payload, now_us",
        ]
        text = [*writing.lines, "def stamp(given, now_us, number):", *(f"    {line}" for line in lines)]
        stamp: _Stamp = generated.function("stamp", text, names, about=event_type.record)
        return stamp

    def _completed(self, plan: FieldPlan) -> FieldPlan:
        if plan.name == "run_mode":
            return plan._replace(default=self.run_mode)
        if plan.name in _COMPLETED:
            return plan._replace(converter=nullable(plan.converter), default=None)
        return plan


def _is_settled(default: Any) -> bool:
    """Whether the plain form of a default can be shared by all events."""
    return default is not msgspec.NODEFAULT and not isinstance(default, (dict, tuple))


def _put(fields: Iterable[str]) -> list[str]:
    """Lines that give the event fields whose typed form is the plain one."""
    return [f"put(event, {one!r}, {variable(one)})" for one in fields]


def _event_time(event_type: EventType) -> list[str]:
    """A bar's events are true at its close, whoever emits them and when: the id depends on it."""
    if (source := event_type.event_time_from) is None:
        lines = ["if event_time_ is None:", "    raise no_time()"]
    else:
        at, is_open = (
            variable(source),
            "".join(" or not is_final_" for one in event_type.plans if one.name == "is_final"),
        )
        lines = [
            f"if {at} is None{is_open}:",
            "    if event_time_ is None:",
            "        raise no_time()",
            "elif event_time_ is None:",
            f"    event_time_ = {at}",
            f"    put(event, 'event_time', event.{source})",
            f"elif event_time_ != {at}:",
            f"    raise FieldRefused('event_time', event.event_time, 'must equal {source} or be left out')",
        ]
    return [
        *lines,
        "if not EARLIEST_US <= event_time_ <= now_us + FORWARD_US:",
        "    check_not_ahead(event_time_, event, now_us)",
    ]


def _no_time() -> FieldRefused:
    return FieldRefused("event_time", None, "must be given: there is no finished bar to take it from")


def _check_not_ahead(event_time_us: int, event: Any, now_us: int) -> None:
    try:
        times.check_range(event_time_us, latest_us=now_us + _FORWARD_US)
    except ValueError as error:
        raise FieldRefused("event_time", event.event_time, f"{error} (a day ahead of this clock)") from None


def _ids(event_type: EventType) -> list[str]:
    own_id = event_type.own_id
    chain = "event_id_"
    if any(plan.name == "signal_id" for plan in event_type.plans):
        chain = "signal_id_ or event_id_"
    lines = [f"event_id_ = {event_type.id_expression(variable) or 'given_id(event.event_id)'}", *_put(["event_id"])]
    if own_id is not None:
        lines += [
            f"if event.{own_id} not in (None, event_id_):",
            f"    raise not_its_own({own_id!r}, event.{own_id}, event_id_)",
            f"{variable(own_id)} = event_id_",
            *_put([own_id]),
        ]
    return [*lines, "if not correlation_id_:", f"    correlation_id_ = {chain}", "    " + _put(["correlation_id"])[0]]


def _not_its_own(own_id: str, given: object, event_id: str) -> FieldRefused:
    return FieldRefused(own_id, given, f"must be left out: it is the event_id, {event_id}")


def _given_id(value: object) -> str:
    """The id of an event without a natural key: the user's own, so that a repeat has it too, or a new one."""
    if value is None:
        return identity.uuid7_text()
    try:
        return str(uuid.UUID(str(value)))
    except ValueError:
        raise FieldRefused("event_id", value, "must be a UUID, or be left out") from None


_NAMES = {
    **identity.KEY_NAMES,
    "copy": Event.__copy__,  # type: ignore[attr-defined]  # msgspec's own, which copy.copy would look up each time
    "put": force_setattr,
    "instant": datetime.fromtimestamp,
    "UTC": UTC,
    "EARLIEST_US": times.EARLIEST_US,
    "FORWARD_US": _FORWARD_US,
    "MAX_EVENT_BYTES": MAX_EVENT_BYTES,
    "no_time": _no_time,
    "FieldRefused": FieldRefused,
    "check_not_ahead": _check_not_ahead,
    "given_id": _given_id,
    "not_its_own": _not_its_own,
    "too_large": too_large,
}
