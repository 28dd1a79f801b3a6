"""A Kafka producer that knows none of our code, for the records that a test writes as they are."""

from __future__ import annotations

from confluent_kafka import Producer


def raw_producer(servers: str) -> Producer:
    """Idempotent, since batches pass each other otherwise when one is retried; keys go where our own producers put them."""
    return Producer(
        {
            "bootstrap.servers": servers, "partitioner": "murmur2_random", "enable.idempotence": True, "log_level": 0
        }
    )  # fmt: skip
