"""A lane to the broker: one librdkafka client with bounded queues that never makes its caller wait for the network.

Market updates and decisions have a lane each, so that a flood of one cannot fill the queue of the other. Failures are
reported one by one; market updates that arrived are counted by subtraction, since a callback for each slows the caller.
"""

from __future__ import annotations

import threading
from collections import Counter
from collections.abc import Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.producers.errors import DeliveryError, SettingsError
from tradetape.producers.settings import kafka_variable
from tradetape.schemas.catalogue import MAX_BATCH_BYTES

QUEUE_EVENTS = 100_000
QUEUE_KBYTES = 65_536
FAILURES_REMEMBERED = 100

FIXED = {
    "acks": "all",
    "enable.idempotence": True,
    "partitioner": "murmur2_random",
    "message.max.bytes": MAX_BATCH_BYTES - 4096,
}
"""What order, durability and co-partitioning with Java and Faust rest on."""
DEFAULTS: Mapping[str, Any] = {
    "compression.type": "lz4",
    # A bot's events are few, and 5 ms would be most of their way to Redis; under load batches fill up by themselves.
    "linger.ms": 1,
    "queue.buffering.max.messages": QUEUE_EVENTS,
    "queue.buffering.max.kbytes": QUEUE_KBYTES,
    "socket.keepalive.enable": True,
    "reconnect.backoff.max.ms": 2_000,
}


class Failure(msgspec.Struct, frozen=True):
    """An event that did not reach the tape."""

    topic: str
    key: str
    cause: str


class Lane:
    """One client, its counters and its failures. `offer` is called by one thread at a time.

    With `report_each` every record is accounted for exactly. Without, the counts lag by what librdkafka has to tell
    besides, and are right once that was served.
    """

    def __init__(self, name: str, settings: KafkaSettings, *, delivery_timeout_s: float, report_each: bool) -> None:
        self.last_error: str | None = None
        self.connected = False
        self._failed: Counter[str] = Counter()
        self._failures: list[Failure] = []
        self._unreported = 0
        self._offered = 0
        self._delivered = 0
        self._report_each = report_each
        self._lock = threading.Lock()
        defaults = {
            **DEFAULTS,
            "delivery.timeout.ms": int(delivery_timeout_s * 1_000),
            "client.id": f"tradetape-{name}",
        }
        config = settings.client_config(defaults, fixed=FIXED)
        if str(config["queue.buffering.max.messages"]) == "0":
            raise SettingsError(f"{kafka_variable('queue.buffering.max.messages')} must be a limit: 1 or more")
        config["delivery.report.only.error"] = not report_each
        config |= {"error_cb": on_error(self._on_error), "on_delivery": self._report}
        try:
            self._client = Producer(config, logger=logger)
        except KafkaException as error:
            raise SettingsError(f"librdkafka refuses the settings of the producer: {error.args[0].str()}") from error
        self._produce = self._client.produce

    def offer(self, topic: str, key: bytes, payload: bytes, timestamp_ms: int) -> bool:
        """Queue one record; False when the queue is full. Raises DeliveryError when the client has given up for good."""
        try:
            self._produce(topic, payload, key, timestamp=timestamp_ms)
        except BufferError:
            return False
        except KafkaException as error:
            raise DeliveryError(f"the client can send no more: {error.args[0].str()}; make another producer") from error
        self._offered += 1
        return True

    def serve(self, timeout_s: float) -> None:
        """Run the callbacks that are due; librdkafka does nothing for a caller that never polls."""
        before = self._delivered
        self._client.poll(timeout_s)
        if self.delivered() > before:
            self.connected = True

    def flush(self, timeout_s: float) -> int:
        """Wait until all that was queued is reported; how many are not."""
        self._client.flush(max(timeout_s, 0.0))
        return self.queued()

    def purge(self) -> None:
        """Give up what is still queued; each is reported as failed."""
        self._client.purge()
        self._client.flush(1.0)

    def queued(self) -> int:
        """How many records wait or are on their way."""
        return max(self._offered - self.delivered() - self._failed.total(), 0)

    def delivered(self) -> int:
        """How many records the broker has acknowledged."""
        if not self._report_each:
            with self._lock:
                arrived = self._offered - len(self._client) - self._failed.total()
                self._delivered = max(self._delivered, arrived)
        return self._delivered

    def failed(self) -> dict[str, int]:
        """How many records failed since the start, by librdkafka's name of the cause."""
        with self._lock:
            return dict(self._failed)

    def take_failures(self) -> tuple[int, list[Failure]]:
        """How many records failed since the last call, and the first of them."""
        with self._lock:
            count, listed = self._unreported, self._failures
            self._unreported, self._failures = 0, []
        return count, listed

    def _report(self, error: KafkaError | None, message: Message) -> None:
        if error is None:
            with self._lock:
                self._delivered += 1
            return
        self.last_error = error.str()
        with self._lock:
            self._failed[error.name()] += 1
            self._unreported += 1
            if len(self._failures) < FAILURES_REMEMBERED:
                key = (message.key() or b"").decode(errors="replace")
                self._failures.append(Failure(message.topic() or "", key, error.str()))

    def _on_error(self, error: KafkaError) -> None:
        self.last_error = error.str()
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.connected = False
