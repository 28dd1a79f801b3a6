"""What trading code embeds: `emit` checks, names, encodes and hands over, and never touches the network (I5).

Until a decision is reported by the broker it lives in this process' memory; one that could not be delivered is an
error at `flush` and `close`, never silence.
"""

from __future__ import annotations

import atexit
import logging
import os
import threading
import time
import weakref
from collections import Counter
from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Literal, Self, TypeVar

import msgspec

from tradetape.producers.connection import KafkaSettings
from tradetape.producers.errors import DeliveryError, ForkedProducer, ProducerClosed, QueueFull
from tradetape.producers.lane import Lane
from tradetape.producers.settings import Settings, load
from tradetape.schemas import CATALOGUE, Catalogue, Codec, Delivery, Event, EventType, RunMode
from tradetape.schemas.stamping import Stamper, wall_clock_us

logger = logging.getLogger("tradetape.producers")

Overflow = Literal["drop", "wait"]
EventT = TypeVar("EventT", bound=Event)

POLL_INTERVAL_S = 0.05
WAIT_LIMIT_S = 60.0
"""How long `emit` waits for room with overflow="wait" before it raises QueueFull."""
WAIT_STEP_S = 0.002
MARKET_DELIVERY_TIMEOUT_S = 60.0
DECISION_DELIVERY_TIMEOUT_S = 300.0
EXIT_TIMEOUT_S = 5.0


class Health(msgspec.Struct, frozen=True):
    """How the producer fares. `dropped` and `failed` count events by reason since the start."""

    connected: bool
    last_error: str | None
    emitted: int
    queued: int
    delivered: int
    dropped: dict[str, int]
    failed: dict[str, int]


class Producer:
    """Emits events onto the tape. Thread-safe; callable from asyncio code as it is.

    `source` names the emitting program. `run_mode` says whether real money stands behind the events. `overflow` says
    what `emit` does with a market update that finds the queue to the broker full: "drop" it and count it, or "wait"
    for room (for backfills; at most 60 s). A decision that finds no room raises QueueFull.
    """

    def __init__(
        self,
        *,
        bootstrap_servers: str,
        source: str,
        run_mode: RunMode = RunMode.LIVE,
        catalogue: Catalogue = CATALOGUE,
        overflow: Overflow = "drop",
        kafka_options: Mapping[str, str] | None = None,
        clock: Callable[[], int] = wall_clock_us,
    ) -> None:
        kafka = KafkaSettings(bootstrap_servers=bootstrap_servers, options=dict(kafka_options or {}))
        self.catalogue = catalogue
        self._codec = Codec(catalogue)
        self._stamper = Stamper(catalogue=catalogue, source=source, run_mode=run_mode, clock=clock)
        self._overflow = overflow
        # In the order in which they are flushed: what may not be lost has the time first.
        self._lanes = {
            Delivery.DECISION: Lane(
                "decision", kafka, delivery_timeout_s=DECISION_DELIVERY_TIMEOUT_S, report_each=True
            ),
            Delivery.MARKET: Lane("market", kafka, delivery_timeout_s=MARKET_DELIVERY_TIMEOUT_S, report_each=False),
        }
        self._ways = {one: (self._lanes[one.delivery], catalogue.topic_name(one)) for one in catalogue}
        self._dropped: Counter[str] = Counter()
        self._emitted = 0
        self._lock = threading.Lock()
        self._forked = False
        self._closing = False
        self._closed = threading.Event()
        self._poller = threading.Thread(target=self._poll, name="tradetape-producer", daemon=True)
        self._poller.start()
        _open.add(self)

    @classmethod
    def from_env(cls, *, source: str, overflow: Overflow = "drop", settings: Settings | None = None) -> Self:
        """A producer as the environment says. Raises SettingsError."""
        settings = settings or load()
        return cls(
            bootstrap_servers=settings.required("KAFKA_BOOTSTRAP_SERVERS"),
            source=source,
            run_mode=settings.mode(),
            catalogue=settings.catalogue(),
            overflow=overflow,
            kafka_options=settings.kafka_options,
        )

    def emit(self, event: EventT) -> EventT:
        """Put an event on the way to its topic; the event as stamped (event_id, emitted_at, producer_seq, …).

        Raises EventError for an event that breaks a rule, QueueFull for one that finds no room and may not be dropped,
        ProducerClosed, ForkedProducer and DeliveryError for a producer that cannot be used any more. Nothing of a refused event is queued.
        """
        if self._forked:
            raise ForkedProducer(str(ForkedProducer.__doc__))
        with self._lock:
            if self._closing:
                raise ProducerClosed(str(ProducerClosed.__doc__))
            event_type, stamped, plain = self._stamper.stamp(event)
            payload = self._codec.encode(event_type, plain)
            key = f"{plain['venue']}:{plain['symbol']}".encode()
            self._hand_over(event_type, key, payload, plain["emitted_at"] // 1_000)
            self._stamper.keep()
            self._emitted += 1
        return stamped  # type: ignore[return-value]  # the stamper keeps the event's class

    def _hand_over(self, event_type: EventType, key: bytes, payload: bytes, timestamp_ms: int) -> None:
        lane, topic = self._ways[event_type]
        if lane.offer(topic, key, payload, timestamp_ms):
            return
        if self._overflow == "wait":
            deadline = time.monotonic() + WAIT_LIMIT_S
            while time.monotonic() < deadline and not self._closing:
                time.sleep(WAIT_STEP_S)
                if lane.offer(topic, key, payload, timestamp_ms):
                    return
        elif event_type.delivery is Delivery.MARKET:
            self._dropped["queue_full"] += 1
            return
        raise QueueFull(
            f"{lane.queued()} events wait for the broker, which is as many as may; last error: {lane.last_error}"
        )

    def flush(self, timeout_s: float = 10.0) -> bool:
        """Wait until what was emitted is on the tape; False when market updates still wait after `timeout_s`.

        Raises DeliveryError when a decision failed, or is not acknowledged in time.
        """
        if self._forked:
            raise ForkedProducer(str(ForkedProducer.__doc__))
        deadline = time.monotonic() + timeout_s
        waiting = {delivery: lane.flush(deadline - time.monotonic()) for delivery, lane in self._lanes.items()}
        self._raise_undelivered(waiting[Delivery.DECISION], timeout_s)
        return not any(waiting.values())

    def _raise_undelivered(self, waiting: int, timeout_s: float) -> None:
        count, listed = self._lanes[Delivery.DECISION].take_failures()
        if count:
            first = listed[0]
            raise DeliveryError(
                f"{count} decisions are not on the tape; the first: {first.key} on {first.topic}: {first.cause}"
            )
        if waiting:
            cause = self._lanes[Delivery.DECISION].last_error
            raise DeliveryError(
                f"{waiting} decisions were not acknowledged within {timeout_s:g} s; last error: {cause}"
            )

    def close(self, timeout_s: float = 5.0) -> None:
        """Deliver what can be delivered within `timeout_s`, then let go. Harmless when called again.

        Raises DeliveryError when decisions did not reach the tape.
        """
        if self._forked or self._closing:
            return
        self._closing = True
        with self._lock:
            # Whoever was inside of `emit` is out: what was emitted is what is flushed now.
            pass
        try:
            if not self.flush(timeout_s):
                logger.warning("closed with %d market updates undelivered", self._lanes[Delivery.MARKET].queued())
        finally:
            self._closed.set()
            for lane in self._lanes.values():
                lane.purge()
            self._poller.join(timeout=1.0)
            _open.discard(self)

    def health(self) -> Health:
        """How the producer fares now; never waits. Raises ForkedProducer."""
        if self._forked:
            raise ForkedProducer(str(ForkedProducer.__doc__))
        lanes = self._lanes.values()
        failed: Counter[str] = Counter()
        for lane in lanes:
            failed.update(lane.failed())
        return Health(
            connected=any(lane.connected for lane in lanes),
            last_error=next((lane.last_error for lane in lanes if lane.last_error), None),
            emitted=self._emitted,
            queued=sum(lane.queued() for lane in lanes),
            delivered=sum(lane.delivered() for lane in lanes),
            dropped=dict(self._dropped),
            failed=dict(failed),
        )

    def _poll(self) -> None:
        while not self._closed.is_set():
            self._lanes[Delivery.DECISION].serve(POLL_INTERVAL_S)
            self._lanes[Delivery.MARKET].serve(0)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        try:
            self.close()
        except DeliveryError as undelivered:
            if error is None:
                raise
            # The host's own exception is on its way out; ours must not hide it.
            logger.error("%s", undelivered)


_open: weakref.WeakSet[Producer] = weakref.WeakSet()
_parents: list[Producer] = []


@atexit.register
def _close_at_exit() -> None:
    for producer in list(_open):
        try:
            producer.close(EXIT_TIMEOUT_S)
        except DeliveryError as undelivered:
            logger.error("%s", undelivered)


def _leave_to_the_parent() -> None:
    """librdkafka's threads do not survive a fork: its destructor would wait for them in the child without end."""
    _parents.extend(_open)
    _open.clear()
    for producer in _parents:
        producer._forked = True


os.register_at_fork(after_in_child=_leave_to_the_parent)
