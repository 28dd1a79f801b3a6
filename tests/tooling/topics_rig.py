"""A test's own topics on the suite's Kafka."""

from __future__ import annotations

from collections.abc import Iterable

from raw_producer import raw_producer
from tradetape.console import topics
from tradetape.producers import Producer
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import CATALOGUE, Event


class TopicsRig:
    """Topics under one prefix, to emit onto and to spoil."""

    def __init__(self, kafka: str, prefix: str) -> None:
        self.kafka = KafkaSettings(bootstrap_servers=kafka)
        self.catalogue = CATALOGUE.with_prefix(prefix)
        topics.apply(topics.admin_client(self.kafka), self.catalogue)

    def emit(self, events: Iterable[Event], *, source: str = "test") -> list[Event]:
        """Emit events and wait until they are acknowledged; the events as stamped."""
        with Producer(
            bootstrap_servers=self.kafka.bootstrap_servers, source=source, catalogue=self.catalogue, overflow="wait"
        ) as producer:
            stamped = [producer.emit(event) for event in events]
            assert producer.flush(30)
        return stamped

    def put(self, topic: str, value: bytes | None, *, key: bytes = b"v:S") -> None:
        """One raw record."""
        client = raw_producer(self.kafka.bootstrap_servers)
        client.produce(topic, value=value, key=key)
        assert client.flush(30) == 0
