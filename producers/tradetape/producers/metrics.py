"""The numbers of `health()` for Prometheus, of every producer of this process, read when Prometheus asks.

Imported only where the host uses prometheus_client. Counts of a source never go back, whoever of its producers is
closed, and asking never raises. Labels are bounded: source, and the reason of a drop.
"""

from __future__ import annotations

import logging
import os
import weakref
from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator

from prometheus_client import REGISTRY, CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tradetape.producers.producer import Health, Producer
from tradetape.producers.roster import ROSTER, Counts, Roster, counts_of

logger = logging.getLogger("tradetape.producers")

COUNTERS = {
    "emitted": ("tradetape_events_produced", "Events that emit took."),
    "delivered": ("tradetape_events_delivered", "Events that Kafka has acknowledged."),
    "hooks_missed": ("tradetape_hooks_missed", "Calls of hooks for which there was no room."),
}
GAUGES: dict[str, tuple[str, Callable[[list[Health]], float]]] = {
    "tradetape_producer_connected": ("1 while a broker answers.", lambda all_: min(one.connected for one in all_)),
    "tradetape_producer_queued_events": (
        "Market updates that wait or are on their way.", lambda all_: sum(one.queued for one in all_),
    ),
    "tradetape_outbox_events": (
        "Decisions on disk that Kafka has not acknowledged.", lambda all_: sum(one.outbox.events for one in all_),
    ),
    "tradetape_outbox_bytes": ("What the outbox holds.", lambda all_: sum(one.outbox.bytes for one in all_)),
    "tradetape_outbox_oldest_age_seconds": (
        "How long the oldest decision has waited; 0 when none waits.",
        lambda all_: max(one.outbox.oldest_age_s or 0.0 for one in all_),
    ),
    "tradetape_outbox_parked_events": (
        "Decisions that their topic refused.", lambda all_: sum(one.outbox.parked for one in all_),
    ),
    "tradetape_topics_held": ("Topics to which nothing goes.", lambda all_: sum(len(one.outbox.held) for one in all_)),
}  # fmt: skip
"""By name: what it says, and how it is read of all open producers of a source, which is one where it has one outbox."""


class ProducerMetrics(Collector):
    """All producers of a roster."""

    def __init__(self, roster: Roster = ROSTER) -> None:
        self._roster = roster
        self._process = os.getpid()
        self._highest: dict[str, Counts] = {}

    def describe(self) -> Iterable[Metric]:
        """The names, for the registry."""
        return self._metrics({}, {})

    def collect(self) -> Iterable[Metric]:
        """What Prometheus reads."""
        producers, counts = self._roster.read()
        healths: dict[str, list[Health]] = defaultdict(list)
        for producer in producers:
            health = _health(producer)
            if health is not None:
                healths[producer.source].append(health)
                counts[producer.source] = counts.get(producer.source, Counter()) + counts_of(health)
        return self._metrics(healths, self._never_less(counts))

    def _never_less(self, counts: dict[str, Counts]) -> dict[str, Counts]:
        """Also where a producer could not be asked this time."""
        if self._process != os.getpid():
            self._process, self._highest = os.getpid(), {}
        for source, found in counts.items():
            self._highest[source] = self._highest.get(source, Counter()) | found
        return dict(self._highest)

    def _metrics(self, healths: dict[str, list[Health]], counts: dict[str, Counts]) -> Iterator[Metric]:
        for counted, (name, meaning) in COUNTERS.items():
            counter = CounterMetricFamily(name, meaning, labels=["source"])
            for source, one in counts.items():
                counter.add_metric([source], one[counted, ""])
            yield counter
        discarded = CounterMetricFamily(
            "tradetape_events_discarded", "Market updates that will not arrive.", labels=["source", "reason"]
        )
        for source, one in counts.items():
            for (counted, reason), count in one.items():
                if counted == "dropped":
                    discarded.add_metric([source, reason], count)
        yield discarded
        for name, (meaning, value_of) in GAUGES.items():
            gauge = GaugeMetricFamily(name, meaning, labels=["source"])
            for source, found in healths.items():
                gauge.add_metric([source], float(value_of(found)))
            yield gauge


_exposed: weakref.WeakSet[CollectorRegistry] = weakref.WeakSet()


def expose(registry: CollectorRegistry = REGISTRY) -> None:
    """Show the metrics in a registry, once. Raises ValueError where another collector of it has one of the names."""
    if registry not in _exposed:
        registry.register(ProducerMetrics())
        _exposed.add(registry)


def _health(producer: Producer) -> Health | None:
    try:
        return producer.health()
    except Exception:  # whatever ails a producer, the host's page shows the rest
        logger.warning("the metrics of %s are missing this time", producer.source, exc_info=True)
        return None
