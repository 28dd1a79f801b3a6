"""What trading code embeds: `emit` checks, names, encodes and hands over, and never touches the network (I5).

A decision is in the outbox on disk when `emit` returns (I4); a market update is in bounded memory, where newer ones
replace it while the broker is away.
"""

from __future__ import annotations

import atexit
import logging
import os
import sys
import threading
import time
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from pathlib import Path
from types import TracebackType
from typing import Literal, NamedTuple, Self, TypeVar

import msgspec

from tradetape.producers.causation import Caused
from tradetape.producers.codecs import codec_of
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.errors import ForkedProducer, OutboxError, ProducerClosed, QueueFull
from tradetape.producers.hooks import Hooks, OnDelivery, OnDrop
from tradetape.producers.market import SERVED_EVERY, Market
from tradetape.producers.newest_wins import Series, Update
from tradetape.producers.outbox.pump import Pump
from tradetape.producers.outbox.store import Durability, OutboxStore, Waiting, folder_name
from tradetape.producers.roster import ROSTER
from tradetape.producers.settings import Settings, load
from tradetape.schemas import CATALOGUE, Catalogue, Codec, Delivery, Event, EventType, RunMode
from tradetape.schemas.names import record_key
from tradetape.schemas.stamping import Stamper, wall_clock_us

logger = logging.getLogger("tradetape.producers")

Overflow = Literal["drop", "wait"]
EventT = TypeVar("EventT", bound=Event)

OUTBOX_BYTES = 1024**3
BUFFER_EVENTS = 20_000
BUFFER_BYTES = 16 * 1024**2
KNOWN_SERIES = 8_192
"""How many series are remembered before all are forgotten: a few megabytes."""
WAIT_LIMIT_S = 60.0
"""How long `emit` waits for room with overflow="wait" before it raises QueueFull."""
WAIT_STEP_S = 0.002
CLOSE_TIMEOUT_S = 5.0
LET_GO_S = 0.5
EXIT_TIMEOUT_S = 4.0
"""How long all open producers together may take when the interpreter exits."""


class OutboxHealth(msgspec.Struct, frozen=True):
    """How the outbox fares: decisions that wait, their bytes, the oldest one's age, those parked, why topics are held."""

    path: str
    events: int
    bytes: int
    oldest_age_s: float | None
    parked: int
    held: dict[str, str]


class Health(msgspec.Struct, frozen=True):
    """How the producer fares. `dropped` counts market updates that will not arrive, by reason, since the start."""

    connected: bool
    last_error: str | None
    emitted: int
    queued: int
    delivered: int
    dropped: dict[str, int]
    hooks_missed: int
    outbox: OutboxHealth


def default_outbox_dir() -> Path:
    """The platform's folder for state, in which each source has an outbox of its own."""
    # Here: who names a folder does not pay for its import.
    import platformdirs

    return platformdirs.user_state_path("tradetape") / "outbox"


class _Route(NamedTuple):
    """Where the events of one type go."""

    topic: str
    is_market: bool
    series_of: Callable[[Event], Series]


def _route(event_type: EventType, topic: str) -> _Route:
    # A series' records share a key, which is made of the first two.
    names = dict.fromkeys(("venue", "symbol", *(event_type.series_key or ("event_id",))))
    return _Route(topic, event_type.delivery is Delivery.MARKET, attrgetter(*names))


class Producer:
    """Emits events onto the tape. Thread-safe; callable from asyncio code as it is.

    `source` names the emitting program, and its outbox: two processes need two. `run_mode` says whether real money
    stands behind the events. `overflow` says what `emit` does with a market update that finds the buffer full: "drop"
    older ones, the newest of each series last, or "wait" for room (for backfills; at most 60 s). `durability` is what a
    decision survives once `emit` returned: the "process" being killed, or the "power" failing, which costs an fsync.
    `is_development` lets `kafka_options` weaken a guarantee. `codec` is one of the catalogue, where ids come from a
    schema registry.
    `on_delivery` is called with each decision that arrived, `on_drop` with each market update that will not, both in a
    thread of their own.

    Raises SettingsError, OutboxInUse where another producer has the source's outbox, OutboxUnavailable.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        source: str,
        run_mode: RunMode = RunMode.LIVE,
        catalogue: Catalogue = CATALOGUE,
        codec: Codec | None = None,
        overflow: Overflow = "drop",
        kafka_options: Mapping[str, str] | None = None,
        is_development: bool = False,
        outbox_dir: Path | None = None,
        outbox_max_bytes: int = OUTBOX_BYTES,
        durability: Durability = "process",
        buffer_events: int = BUFFER_EVENTS,
        buffer_bytes: int = BUFFER_BYTES,
        on_delivery: OnDelivery | None = None,
        on_drop: OnDrop | None = None,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        kafka = KafkaSettings(
            bootstrap_servers=bootstrap_servers, options=dict(kafka_options or {}), is_development=is_development
        )
        self.catalogue = catalogue
        self.source = source
        self._stamper = Stamper(codec=codec or Codec(catalogue), source=source, run_mode=run_mode, clock=clock)
        self._clock = clock
        self._routes = {one: _route(one, catalogue.topic_name(one)) for one in catalogue}
        self._known: dict[Series, tuple[Series, bytes]] = {}
        """A series' one tuple, for all of its updates, and their key: of a tuple for each update that waits, the host's
        garbage collector would have thousands to visit."""
        self._emitted = 0
        self._lock = threading.Lock()
        self._forked = False
        self._closing = False
        self._last_health: Health | None = None
        self._outbox = OutboxStore(
            (outbox_dir or default_outbox_dir()) / folder_name(source),
            name=source, durability=durability, max_bytes=outbox_max_bytes,
        )  # fmt: skip
        try:
            self._hooks = Hooks(on_delivery=on_delivery, on_drop=on_drop)
            self._market = Market(kafka, max_events=buffer_events, max_bytes=buffer_bytes, on_drop=self._dropped)
            self._offer: Callable[[Update], object] = self._market.offer if overflow == "drop" else self._offer_or_wait
            self._pump = Pump(self._outbox, kafka, fate_of=self._market.fate_of, on_arrival=self._hooks.delivered)
        except BaseException:
            self._outbox.close()
            raise
        ROSTER.opened(self)
        if "prometheus_client" in sys.modules:
            _show_metrics()

    @classmethod
    def from_env(
        cls,
        *,
        source: str,
        overflow: Overflow = "drop",
        on_delivery: OnDelivery | None = None,
        on_drop: OnDrop | None = None,
        settings: Settings | None = None,
    ) -> Self:
        """A producer as the environment says. Raises what the constructor and, for a registry, codec_of raise."""
        settings = settings or load()
        return cls(
            bootstrap_servers=settings.required("KAFKA_BOOTSTRAP_SERVERS"),
            source=source,
            run_mode=settings.mode(),
            catalogue=settings.catalogue(),
            codec=codec_of(settings),
            overflow=overflow,
            kafka_options=settings.kafka_options,
            is_development=settings.development,
            outbox_dir=Path(settings.outbox_dir) if settings.outbox_dir else None,
            outbox_max_bytes=settings.outbox_max_bytes,
            durability=settings.durability,
            on_delivery=on_delivery,
            on_drop=on_drop,
        )

    def emit(self, event: EventT) -> EventT:
        """Put an event on the way to its topic; the event as stamped (event_id, emitted_at, producer_seq, …).

        Raises EventError for an event that breaks a rule, OutboxFull and OutboxUnavailable where a decision cannot be
        kept, QueueFull where a market update was to wait for room in vain, ProducerClosed, ForkedProducer. Nothing of
        a refused event is queued.
        """
        if self._forked:
            raise ForkedProducer(str(ForkedProducer.__doc__))
        with self._lock:
            if self._closing:
                raise ProducerClosed(str(ProducerClosed.__doc__))
            event_type, stamped, payload, emitted_at_us = self._stamper.stamp(event)
            topic, is_market, series_of = self._routes[event_type]
            event_id, timestamp_ms = stamped.event_id, emitted_at_us // 1_000
            assert event_id is not None
            if is_market:
                found = series_of(stamped)
                series, key = self._known.get(found) or self._get_to_know(found)
                self._offer(Update(topic, series, event_id, key, payload, timestamp_ms))
            else:
                decision = Waiting(topic, event_id, record_key(stamped.venue, stamped.symbol), payload, timestamp_ms)
                self._keep(decision, getattr(stamped, "input_event_ids", ()))
                self._pump.wake()
            self._stamper.keep()
            self._emitted += 1
        if is_market and self._market.offered % SERVED_EVERY == 0:
            self._market.serve()
        return stamped  # type: ignore[return-value]  # the stamper keeps the event's class

    def caused_by(self, cause: Event) -> Caused:
        """Emits events that `cause` led to: causation, correlation and run mode follow from it where not given."""
        return Caused(self, cause)

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until what was emitted is on the tape; False when some of it still waits after `timeout_s`.

        A decision that still waits is safe in the outbox. Raises ForkedProducer, OutboxUnavailable.
        """
        if self._forked:
            raise ForkedProducer(str(ForkedProducer.__doc__))
        deadline = time.monotonic() + timeout_s
        decided = self._pump.wait_for(self._outbox.last_number(), timeout_s)
        return self._market.wait_empty(max(deadline - time.monotonic(), 0.0)) and decided

    async def aflush(self, timeout_s: float = 10.0) -> bool:
        """The same, without holding up the event loop."""
        import asyncio

        return await asyncio.to_thread(self.flush, timeout_s)

    def close(self, timeout_s: float = CLOSE_TIMEOUT_S) -> bool:
        """Deliver what can be delivered within `timeout_s`, then let go; whether all of it was.

        Decisions that were not stay in the outbox, for the source's next producer; market updates that were not are
        dropped and counted. Both are logged. Harmless when called again, and in a forked child.
        """
        if self._forked or self._closing:
            return True
        self._closing = True
        with self._lock:
            # Whoever was inside of `emit` is out: what was emitted is what is flushed now.
            pass
        try:
            is_all = self._flush_quietly(timeout_s)
        finally:
            self._pump.stop()
            self._market.stop()
            self._hooks.stop(LET_GO_S)
            try:
                self._last_health = self._measure()
                ROSTER.closed(self, self._last_health)
            finally:
                self._outbox.close()
        _report(self._last_health)
        return is_all

    def _flush_quietly(self, timeout_s: float) -> bool:
        try:
            return self.flush(timeout_s)
        except OutboxError as error:
            logger.error("%s", error)
            return False

    def health(self) -> Health:
        """How the producer fares now, or fared when it was closed; never waits. Raises ForkedProducer."""
        if self._forked:
            raise ForkedProducer(str(ForkedProducer.__doc__))
        return self._last_health or self._measure()

    def _measure(self) -> Health:
        clients = (self._pump.client, self._market.client)
        totals = self._outbox.totals()
        age_s = None if totals.oldest_ms is None else max(self._clock() / 1e6 - totals.oldest_ms / 1e3, 0.0)
        return Health(
            connected=any(one.is_connected for one in clients),
            last_error=next((one.last_error for one in clients if one.last_error), None),
            emitted=self._emitted,
            queued=self._market.queued(),
            delivered=self._market.delivered + self._pump.delivered,
            dropped=dict(self._market.dropped),
            hooks_missed=self._hooks.missed,
            outbox=OutboxHealth(
                path=str(self._outbox.path),
                events=totals.events,
                bytes=totals.bytes,
                oldest_age_s=age_s,
                parked=totals.parked,
                held=self._pump.held(),
            ),
        )

    def _get_to_know(self, series: Series) -> tuple[Series, bytes]:
        if len(self._known) >= KNOWN_SERIES:
            self._known.clear()
        known = self._known[series] = series, record_key(*series[:2])
        return known

    def _offer_or_wait(self, update: Update) -> None:
        deadline = time.monotonic() + WAIT_LIMIT_S
        while not self._market.offer(update, may_drop=False):
            if time.monotonic() > deadline or self._closing:
                cause = self._market.client.last_error
                raise QueueFull(f"{self._market.queued()} updates wait for the broker, which is as many as may; last error: {cause}")  # fmt: skip
            time.sleep(WAIT_STEP_S)

    def _keep(self, decision: Waiting, input_event_ids: Iterable[str]) -> None:
        """Put a decision into the outbox, behind the recent updates that it names and that have not arrived (I8)."""
        inputs = self._market.take_along(input_event_ids)
        ahead = [
            Waiting(one.topic, one.event_id, one.key, one.payload, one.timestamp_ms, is_input=True) for one in inputs
        ]
        try:
            self._outbox.add([*ahead, decision])
        except OutboxError:
            self._market.give_back(inputs)
            raise

    def _dropped(self, update: Update, reason: str) -> None:
        self._hooks.dropped(update.topic, update.event_id, reason)

    def _leave_to_the_parent(self) -> None:
        self._forked = True
        self._outbox.leave_to_the_parent()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        import asyncio

        await asyncio.to_thread(self.close)


def _report(rest: Health) -> None:
    """Say at the end what did not arrive."""
    if rest.outbox.events or rest.outbox.parked:
        logger.warning(
            "closed; %d decisions wait in %s for the next producer of this source, %d are parked there: "
            "`tradetape outbox list` shows them, `tradetape outbox flush` sends them",
            rest.outbox.events, rest.outbox.path, rest.outbox.parked,
        )  # fmt: skip
    if lost := rest.dropped.get("closed"):
        logger.warning("closed; %d market updates were not delivered and are dropped", lost)


def _show_metrics() -> None:
    """The host uses Prometheus: its page shows our numbers as well."""
    from tradetape.producers import metrics

    try:
        metrics.expose()
    except ValueError as error:
        logger.warning("the metrics of producers are not shown: %s", error)


_parents: list[Producer] = []


@atexit.register
def _close_at_exit() -> None:
    deadline = time.monotonic() + EXIT_TIMEOUT_S
    for producer in ROSTER.read()[0]:
        producer.close(max(deadline - time.monotonic(), 0.0))


def _leave_to_the_parent() -> None:
    """librdkafka's threads do not survive a fork: its destructor would wait for them in the child without end."""
    _parents.extend(ROSTER.leave_to_the_parent())
    for producer in _parents:
        producer._leave_to_the_parent()


os.register_at_fork(after_in_child=_leave_to_the_parent)
