"""A producer for users' unit tests: checks and stamps exactly as the real one, and keeps instead of sending."""

from __future__ import annotations

from collections.abc import Callable
from types import TracebackType
from typing import Self

from tradetape.producers.causation import Caused
from tradetape.producers.errors import ProducerClosed
from tradetape.producers.producer import EventT, Health, OutboxHealth
from tradetape.schemas import CATALOGUE, Catalogue, Codec, Event, RunMode
from tradetape.schemas.stamping import Stamper, wall_clock_us


class RecordingProducer:
    """Has the surface of Producer; `events` holds what was emitted, as stamped, in order."""

    def __init__(
        self,
        *,
        source: str = "test",
        run_mode: RunMode = RunMode.LIVE,
        catalogue: Catalogue = CATALOGUE,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        self.catalogue = catalogue
        self.source = source
        self.events: list[Event] = []
        self._stamper = Stamper(codec=Codec(catalogue), source=source, run_mode=run_mode, clock=clock)
        self._closed = False

    def emit(self, event: EventT) -> EventT:
        """Check, stamp and keep an event. Raises what Producer.emit raises for an invalid one."""
        if self._closed:
            raise ProducerClosed(str(ProducerClosed.__doc__))
        _, stamped, _, _ = self._stamper.stamp(event)
        self._stamper.keep()
        self.events.append(stamped)
        return stamped  # type: ignore[return-value]  # the stamper keeps the event's class

    def of(self, event_class: type[EventT]) -> list[EventT]:
        """What was emitted of one class, in order."""
        return [event for event in self.events if isinstance(event, event_class)]

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Everything is where it belongs."""
        return True

    async def aflush(self, timeout_s: float = 10.0) -> bool:
        """Everything is where it belongs."""
        return True

    def caused_by(self, cause: Event) -> Caused:
        """As Producer.caused_by."""
        return Caused(self, cause)

    def close(self, timeout_s: float = 5.0) -> bool:
        """No more emits."""
        self._closed = True
        return True

    def health(self) -> Health:
        """Always well."""
        count = len(self.events)
        return Health(
            connected=True, last_error=None, emitted=count, queued=0, delivered=count, dropped={}, hooks_missed=0,
            outbox=OutboxHealth(path="", events=0, bytes=0, oldest_age_s=None, parked=0, held={}),
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
