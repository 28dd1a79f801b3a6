"""The yardstick: what a capable programmer writes by hand with confluent-kafka and fastavro. None of our hot path runs here.

It takes what came out of measuring: poll for a first record then drain, 10 ms between fetches, schemas parsed once, no
callback for each message.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from io import BytesIO
from typing import Any

import fastavro
from confluent_kafka import OFFSET_BEGINNING, Consumer, Message, Producer, TopicPartition

from bench.errors import BenchFailed
from bench.services import PARTITIONS

FRAME_BYTES = 5
SILENCE_TIMEOUT_S = 30.0
POLL_EVERY = 1_000

CONSUMER: dict[str, Any] = {
    "group.id": "bench-bare",
    "enable.auto.commit": False,
    "auto.offset.reset": "earliest",
    "check.crcs": True,
    "fetch.queue.backoff.ms": 10,
    "fetch.wait.max.ms": 100,
    "queued.max.messages.kbytes": 16_384,
}
PRODUCER: dict[str, Any] = {
    "acks": "all",
    "enable.idempotence": True,
    "max.in.flight": 1,
    "partitioner": "murmur2_random",
    "compression.type": "lz4",
    "linger.ms": 1,
    "message.max.bytes": 1024 * 1024 - 4096,
    # Errors alone: a broker that has just started makes librdkafka warn on stderr.
    "log_level": 3,
}

Schema = dict[str, Any]
Plain = dict[str, Any]


def consumer(bootstrap_servers: str, topic: str) -> Consumer:
    """Reads the whole topic, in no group."""
    made = Consumer({**CONSUMER, "bootstrap.servers": bootstrap_servers})
    made.assign([TopicPartition(topic, place, OFFSET_BEGINNING) for place in range(PARTITIONS)])
    return made


def next_batch(source: Consumer, size: int, timeout_s: float) -> list[Message]:
    """Wait for a record, then take what is there, `size` at most."""
    first = source.poll(timeout_s)
    if first is None:
        return []
    batch = [first, *source.consume(size - 1, 0)]
    for message in batch:
        if (error := message.error()) is not None:
            raise BenchFailed(f"Kafka: {error.str()}")
    return batch


def batches(bootstrap_servers: str, topic: str, *, size: int, expected: int) -> Iterator[list[Message]]:
    """The topic's first `expected` records."""
    source = consumer(bootstrap_servers, topic)
    try:
        read, heard = 0, time.monotonic()
        while read < expected:
            if batch := next_batch(source, size, 0.1):
                read, heard = read + len(batch), time.monotonic()
                yield batch
            elif time.monotonic() - heard > SILENCE_TIMEOUT_S:
                raise BenchFailed(f"{topic} gave {read} of {expected} records")
    finally:
        source.close()


def decoder(schema: Schema) -> Callable[[bytes], Plain]:
    """Decodes framed values with fastavro."""
    parsed = fastavro.parse_schema(schema)

    def decode(value: bytes) -> Plain:
        source = BytesIO(value)
        source.seek(FRAME_BYTES)
        return fastavro.schemaless_reader(source, parsed, None)  # type: ignore[return-value]

    return decode


def times_as_integers(node: Any) -> Any:
    """The same schema with instants left as integers; decimals stay decimals."""
    if isinstance(node, dict):
        return {
            name: times_as_integers(value)
            for name, value in node.items()
            if (name, value) != ("logicalType", "timestamp-micros")
        }
    return [times_as_integers(item) for item in node] if isinstance(node, list) else node


class BareProducer:
    """Encodes with fastavro and produces, with one reused frame."""

    def __init__(self, bootstrap_servers: str, topic: str, schema: Schema, schema_id: int) -> None:
        self._producer = Producer({**PRODUCER, "bootstrap.servers": bootstrap_servers})
        self._topic = topic
        self._schema = fastavro.parse_schema(schema)
        self._frame = _frame(schema_id)
        self._produced = 0

    def emit(self, plain: Plain) -> None:
        """Put one record on its way."""
        out = BytesIO()
        out.write(self._frame)
        fastavro.schemaless_writer(out, self._schema, plain)
        key = f"{plain['venue']}:{plain['symbol']}".encode()
        self._producer.produce(self._topic, value=out.getvalue(), key=key, timestamp=plain["emitted_at"] // 1_000)
        self._produced += 1
        if self._produced % POLL_EVERY == 0:
            self._producer.poll(0)

    def flush(self, timeout_s: float) -> int:
        """Wait for the broker; how many records it has not acknowledged."""
        return int(self._producer.flush(timeout_s))

    @classmethod
    def encoded(cls, plain: Plain, schema: Schema, schema_id: int) -> bytes:
        """The value that `emit` produces for a record."""
        out = BytesIO()
        out.write(_frame(schema_id))
        fastavro.schemaless_writer(out, fastavro.parse_schema(schema), plain)
        return out.getvalue()


def _frame(schema_id: int) -> bytes:
    return b"\0" + schema_id.to_bytes(4, "big")
