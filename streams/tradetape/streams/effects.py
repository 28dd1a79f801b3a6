"""What a processor emits: events derived from its input, acknowledged by Kafka before `process` returns.

A worker has no outbox, since its input is one: the offset moves only behind what was acknowledged, so a crash in
between emits an event again, under the same id. The processor gives whatever makes an event the one that it is; event
time, run mode and chain come from the input, never from the clock or the settings of the worker (I9).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tradetape.producers.client import FIXED
from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.schemas import Codec, Event, RunMode
from tradetape.schemas.names import record_key
from tradetape.schemas.stamping import Stamper, wall_clock_us
from tradetape.streams.errors import EffectsRefused, ProcessorBroken

ACKNOWLEDGE_TIMEOUT_S = 30.0
DELIVERY_TIMEOUT_MS = 25_000
PURGE_TIMEOUT_S = 1.0
QUEUE_WAIT_S = 0.1
DEFAULTS = {
    "compression.type": "lz4",
    "linger.ms": 0,
    "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
    "queue.buffering.max.messages": 40_000,
    "queue.buffering.max.kbytes": 65_536,
    "socket.keepalive.enable": True,
}
GIVEN = ("run_mode", "correlation_id")
"""What the stamper would fill in for trading code, and a processor has to say."""


class Output(msgspec.Struct, frozen=True, gc=False):
    """An event as it goes onto the tape, ready to be sent, and to be sent again."""

    topic: str
    key: bytes
    value: bytes
    timestamp_ms: int


class Effects(Protocol):
    """Takes the events of one processor. Used by one thread."""

    def emit(self, events: Sequence[Event]) -> None:
        """Stamp events, send them, and wait until each is acknowledged; in their order for each key of a topic.

        Raises EffectsRefused, after which the batch has to be tried again, EventError for an invalid event, and
        ProcessorBroken for one that lacks what only its input can say.
        """

    def stamped(self, events: Sequence[Event], *, ahead: int = 0) -> list[Output]:
        """The same events, not sent yet: for a processor that first writes down what it is going to send.

        `ahead` is how many were stamped before them and are not `kept` yet.
        """

    def kept(self, outputs: Sequence[Output]) -> None:
        """These are written down, and will be sent: their numbers are taken, so that a gap still means loss."""

    def send(self, outputs: Sequence[Output]) -> None:
        """Send what was stamped, by this run or an earlier one, and wait until each is acknowledged. Raises EffectsRefused."""


class _Stamping:
    """The half that touches no broker."""

    def __init__(self, *, worker: str, codec: Codec, now_us: Callable[[], int] = wall_clock_us) -> None:
        self._codec = codec
        self._stamper = Stamper(codec=codec, source=worker, run_mode=RunMode.UNKNOWN, clock=now_us)

    def emit(self, events: Sequence[Event]) -> None:
        outputs = self.stamped(events)
        self.send(outputs)
        self.kept(outputs)

    def stamped(self, events: Sequence[Event], *, ahead: int = 0) -> list[Output]:
        return [self._output(event, number) for number, event in enumerate(events, ahead)]

    def _output(self, event: Event, ahead: int) -> Output:
        if missing := [name for name in GIVEN if not getattr(event, name)]:
            raise ProcessorBroken(f"{type(event).__name__} is to be emitted without {', '.join(missing)} of its input")
        event_type, stamped, payload, emitted_at_us = self._stamper.stamp(event, ahead=ahead)
        key = record_key(stamped.venue, stamped.symbol)
        return Output(self._codec.catalogue.topic_name(event_type), key, payload, emitted_at_us // 1_000)

    def kept(self, outputs: Sequence[Output]) -> None:
        for _ in outputs:
            self._stamper.keep()

    def send(self, outputs: Sequence[Output]) -> None:
        raise NotImplementedError


class MemoryEffects(_Stamping):
    """Keeps what is sent in a list, for tests and backtests."""

    def __init__(self, *, codec: Codec, worker: str = "memory", now_us: Callable[[], int] = wall_clock_us) -> None:
        super().__init__(worker=worker, codec=codec, now_us=now_us)
        self.outputs: list[Output] = []

    def send(self, outputs: Sequence[Output]) -> None:
        """Keep them."""
        self.outputs += outputs

    def events(self) -> list[Event]:
        """What was sent, decoded, in order."""
        return [self._codec.decode(one.topic, one.value) for one in self.outputs]


class KafkaEffects(_Stamping):
    """Writes to the topics of the catalogue."""

    def __init__(self, *, worker: str, codec: Codec, kafka: KafkaSettings) -> None:
        """`worker` is the producer that its events name. Raises SettingsError."""
        super().__init__(worker=worker, codec=codec)
        config = kafka.client_config(DEFAULTS, fixed=FIXED)
        self._config = config | {"error_cb": on_error(), "client.id": f"tradetape-{worker}-effects"}
        # Now, since making its connections takes longer than all that it sends: what is decided is on the tape soon.
        self._producer: Producer | None = Producer(self._config, logger=logger)
        self._failure: KafkaError | None = None

    def send(self, outputs: Sequence[Output]) -> None:
        """As Effects.send. What is not acknowledged may be on the tape all the same, and is sent again."""
        if not outputs:
            return
        self._failure = None
        producer = self._producer = self._producer or Producer(self._config, logger=logger)
        try:
            for one in outputs:
                self._produce(producer, one)
            waiting = producer.flush(ACKNOWLEDGE_TIMEOUT_S)
        except KafkaException as error:
            waiting, self._failure = 0, error.args[0]
        if waiting or self._failure is not None:
            cause = self._failure.str() if self._failure else f"not acknowledged within {ACKNOWLEDGE_TIMEOUT_S:.0f} s"
            self.close()
            raise EffectsRefused(f"Kafka does not take what was decided: {cause}")

    def _produce(self, producer: Producer, one: Output) -> None:
        while True:
            try:
                producer.produce(
                    one.topic, value=one.value, key=one.key, timestamp=one.timestamp_ms, on_delivery=self._report
                )
                return
            except BufferError:
                producer.poll(QUEUE_WAIT_S)

    def _report(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failure = error

    def close(self) -> None:
        """Give up what is still on its way, and the client with it: one that has failed may never send again."""
        if self._producer is not None:
            self._producer.purge()
            self._producer.flush(PURGE_TIMEOUT_S)
            self._producer = None
