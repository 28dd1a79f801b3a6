"""A librdkafka producer with our settings: bounded queues, idempotent, quiet, and no time limit of its own.

What waits is bounded by who owns it, the outbox or the buffer, never by a timeout that would drop it.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Mapping
from typing import Any

from confluent_kafka import KafkaError, KafkaException, Producer

from tradetape.producers.connection import KafkaSettings, denial, logger, on_error
from tradetape.producers.errors import SettingsError
from tradetape.producers.settings import kafka_variable
from tradetape.schemas.catalogue import MAX_BATCH_BYTES

FIXED = {
    "acks": "all",
    "enable.idempotence": True,
    # A partition takes any batch as the first of a producer. When its leader appears while several are on their way, it
    # may refuse the first and take the second, and librdkafka then calls both delivered (confluent-kafka-go #921).
    "max.in.flight.requests.per.connection": 1,
    "partitioner": "murmur2_random",
    "message.max.bytes": MAX_BATCH_BYTES - 4096,
}
"""What order, durability and co-partitioning with Java and Faust rest on."""
UNTIMED = {"message.timeout.ms": 0}
PURGE_TIMEOUT_S = 1.0
PURGE_POLL_S = 0.05
DEFAULTS: Mapping[str, Any] = {
    "compression.type": "lz4",
    "queue.buffering.max.messages": 40_000,
    "queue.buffering.max.kbytes": 65_536,
    "socket.keepalive.enable": True,
    "socket.timeout.ms": 15_000,
    "reconnect.backoff.max.ms": 2_000,
}


class Client:
    """One librdkafka producer. Each record brings its own report, called from `poll`; `only_failures` spares the others.

    One that `is_gapless` sends nothing behind a batch that was refused, and is beyond use then: see `is_beyond_use`.
    """

    def __init__(
        self, name: str, settings: KafkaSettings, *, only_failures: bool, is_gapless: bool, linger_ms: int
    ) -> None:
        """`linger_ms` is how long a record waits for others; under load batches fill up by themselves. Raises SettingsError."""
        defaults = {**DEFAULTS, "linger.ms": linger_ms, "client.id": f"tradetape-{name}"}
        fixed = {**FIXED, **UNTIMED, "enable.gapless.guarantee": is_gapless}
        config = settings.client_config(defaults, fixed=fixed)
        if config["enable.idempotence"] is not True:
            # Weakened in a development mode; librdkafka has the one only with the other.
            config["enable.gapless.guarantee"] = False
        if str(config["queue.buffering.max.messages"]) == "0":
            raise SettingsError(f"{kafka_variable('queue.buffering.max.messages')} must be a limit: 1 or more")
        config |= {
            "error_cb": on_error(self._on_error),
            "delivery.report.only.error": only_failures,
        }
        self.last_error: str | None = None
        self._denial: str | None = None
        self.is_connected = False
        try:
            self._producer = Producer(config, logger=logger)
        except KafkaException as error:
            raise SettingsError(f"librdkafka refuses the settings of the producer: {error.args[0].str()}") from error
        self.produce = self._producer.produce
        self.poll = self._producer.poll
        self.unreported = self._producer.__len__
        """How many records wait or are on their way."""

    def purge(self) -> None:
        """Give up what is unreported; each is reported as failed."""
        self._producer.purge()
        deadline = time.monotonic() + PURGE_TIMEOUT_S
        while self.unreported() and time.monotonic() < deadline:
            # What was on its way leaves a gap, which a gapless client tells in between. Its `flush` would go on calling
            # back while that error is set, and those reports would be lost.
            with contextlib.suppress(KafkaException):
                self.poll(PURGE_POLL_S)

    def answered(self) -> None:
        """A broker acknowledged a record."""
        self.is_connected = True
        self.last_error = self._denial = None

    def _on_error(self, error: KafkaError) -> None:
        if (why := denial(error)) is not None:
            self._denial = why
        # That all brokers are down is said after each refusal, and tells less.
        self.last_error = self._denial or error.str()
        if error.code() == KafkaError._ALL_BROKERS_DOWN:
            self.is_connected = False


def is_beyond_use(error: KafkaException) -> bool:
    """Whether the client that raised it from `produce` or `poll` sends nothing any more."""
    why: KafkaError = error.args[0]
    # From `produce` the code alone says so.
    return why.fatal() or why.code() == KafkaError._FATAL
