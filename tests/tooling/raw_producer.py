"""A Kafka producer that knows none of our code, for the records that a test writes as they are."""

from __future__ import annotations

from confluent_kafka import Producer


def raw_producer(servers: str) -> Producer:
    """As safe as our own: in order, none lost (test_producer_client.py says how one could be), keys where ours go."""
    return Producer(
        {
            "bootstrap.servers": servers, "partitioner": "murmur2_random", "enable.idempotence": True,
            "max.in.flight": 1, "log_level": 0,
        }
    )  # fmt: skip
