"""A producer's metrics while a real Kafka takes its events."""

from __future__ import annotations

from prometheus_client import CollectorRegistry

from outbox_rig import signal, update
from topics_rig import TopicsRig
from tradetape.producers import Producer, metrics


def test_what_kafka_has_acknowledged_is_counted(kafka: str, topic_prefix: str) -> None:
    rig = TopicsRig(kafka, topic_prefix)
    registry = CollectorRegistry()
    metrics.expose(registry)
    with Producer(bootstrap_servers=kafka, source=topic_prefix, catalogue=rig.catalogue) as tape:
        tape.emit(update())
        for number in range(4):
            tape.emit(signal(number))
        assert tape.flush(30)
        labels = {"source": topic_prefix}
        assert registry.get_sample_value("tradetape_producer_connected", labels) == 1
        assert registry.get_sample_value("tradetape_events_produced_total", labels) == 5
        assert registry.get_sample_value("tradetape_events_delivered_total", labels) == 5
        assert registry.get_sample_value("tradetape_outbox_events", labels) == 0
        assert registry.get_sample_value("tradetape_outbox_oldest_age_seconds", labels) == 0
