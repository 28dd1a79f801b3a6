"""What led to what, filled in: a derived event names its cause, and carries its chain and its run mode on (I8)."""

from __future__ import annotations

from typing import Any, Protocol, TypeVar

import msgspec

from tradetape.schemas import Event, TradeSignal

EventT = TypeVar("EventT", bound=Event)


class Emitter(Protocol):
    """Whatever emits events."""

    def emit(self, event: EventT) -> EventT:
        """Put an event on the tape; the event as stamped."""


class Caused:
    """Emits what one event led to."""

    def __init__(self, tape: Emitter, cause: Event) -> None:
        """Raises ValueError for a cause that was not emitted: it has no id yet."""
        if cause.event_id is None:
            raise ValueError(f"the {type(cause).__name__} has no event_id: emit it first, and pass what emit returned")
        self._tape = tape
        self._cause = cause

    def emit(self, event: EventT) -> EventT:
        """Emit an event with causation_id, correlation_id and run_mode of its cause, where it gives none itself.

        A chain begins with a signal: a signal's correlation_id is its own id, and market updates have none to hand on.
        Raises what the producer's emit raises.
        """
        cause = self._cause
        given: dict[str, Any] = {
            "causation_id": event.causation_id or cause.event_id,
            "run_mode": event.run_mode or cause.run_mode,
        }
        is_in_a_chain = isinstance(cause, TradeSignal) or cause.correlation_id != cause.event_id
        if is_in_a_chain and not isinstance(event, TradeSignal):
            given["correlation_id"] = event.correlation_id or cause.correlation_id
        return self._tape.emit(msgspec.structs.replace(event, **given))
