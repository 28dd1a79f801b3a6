"""Three brokers of which one is killed, or stopped, every 20 s under load: what was acknowledged is on the tape, and history
and current state come out of it whole. Acknowledged means on two of them at least (replication 3, min.insync.replicas 2)."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from itertools import cycle
from pathlib import Path

import psycopg
import pytest

from broker_cluster import Broker, BrokerCluster, running_cluster
from fleet import Fleet
from history_rig import HistoryRig
from history_workers import Load, Witness
from ledger import Ledger
from tradetape.console import topics
from tradetape.console.doctor import kafka
from tradetape.console.doctor.finding import State
from tradetape.producers.settings import load
from tradetape.schemas import CATALOGUE
from waiting import eventually

EVENTS_PER_S = 2_000
SIGNAL_EVERY = 20
EVERY_S = 20.0
STOPPED_S = (2.0, 15.0)
"""Also longer than the 9 s after which the controller gives its partitions to others, so that it wakes up a stale leader."""
WHOLE_S = 300.0


class Storm:
    """Strikes one broker after the other."""

    def __init__(self, cluster: BrokerCluster, fleet: Fleet, ledger: Ledger, *, blow: str) -> None:
        self.struck: Counter[int] = Counter()
        self.found_whole = 0
        """How many blows met a cluster that was whole again."""
        self._cluster = cluster
        self._fleet = fleet
        self._rng = ledger.rng
        self._blow = blow
        self._brokers = cycle(self._rng.sample(cluster.brokers, len(cluster.brokers)))

    def rage(self, duration_s: float) -> None:
        """One blow every 20 s."""
        for _ in range(round(duration_s / EVERY_S)):
            due = time.monotonic() + EVERY_S
            self.found_whole += self._cluster.is_whole()
            self._strike(next(self._brokers))
            self._work_until(due)

    def _strike(self, broker: Broker) -> None:
        self.struck[broker.number] += 1
        if self._blow == "kill":
            broker.kill()
            broker.begin()
            return
        broker.pause()
        try:
            self._work_until(time.monotonic() + self._rng.uniform(*STOPPED_S))
        finally:
            broker.wake()

    def _work_until(self, due: float) -> None:
        eventually("the next blow is due", lambda: self._fleet.is_at_work() and time.monotonic() >= due)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[BrokerCluster]:
    with running_cluster(tmp_path_factory.mktemp("brokers")) as made:
        yield made


@pytest.mark.long
@pytest.mark.timeout(1_500)
@pytest.mark.parametrize("blow", ["kill", "stop"])
@pytest.mark.parametrize(
    ("duration_s", "engines"),
    [pytest.param(300, ("kafka",), id="whole"), pytest.param(60, ("kafka", "faust"), id="small")],
)
def test_whichever_broker_is_lost_nothing_acknowledged_is(
    cluster: BrokerCluster,
    topic_prefix: str,
    postgres: str,
    redis_url: str,
    tmp_path: Path,
    duration_s: int,
    engines: tuple[str, ...],
    blow: str,
) -> None:
    rig = HistoryRig(kafka=cluster.kafka.bootstrap_servers, prefix=topic_prefix, dsn=postgres, replication=3)
    ledger, fleet = Ledger(), Fleet(rig, redis_url=redis_url, folder=tmp_path, engines=engines)
    load = Load(
        rig, ledger, events_per_s=EVENTS_PER_S, signal_every=SIGNAL_EVERY,
        start=datetime.now(UTC), step=timedelta(seconds=1 / EVENTS_PER_S),
    )  # fmt: skip
    storm = Storm(cluster, fleet, ledger, blow=blow)
    try:
        for _ in range(2):
            fleet.add_history()
        for engine in fleet.states:
            fleet.add_state(engine)
        with psycopg.connect(rig.dsn, autocommit=True) as connection:
            fleet.await_progress(Witness(connection))
        storm.rage(duration_s)
        eventually("the cluster is whole again", cluster.is_whole, timeout_s=WHOLE_S)
        verdict = fleet.judge(load, ledger)
        codes = fleet.end()
    finally:
        load.close()
        fleet.kill()
    print(f"{dict(storm.struck)} struck, {storm.found_whole} of them while all was whole; {codes}")
    assert set(codes) == {0}
    assert len(storm.struck) == len(cluster.brokers), "each was struck"
    assert verdict.counts["emitted"] >= EVENTS_PER_S * duration_s / 2


@pytest.mark.long
@pytest.mark.timeout(1_500)
def test_topics_of_three_brokers_are_acknowledged_by_two_and_doctor_sees_who_is_away(
    cluster: BrokerCluster, topic_prefix: str
) -> None:
    admin, catalogue = topics.admin_client(cluster.kafka), CATALOGUE.with_prefix(topic_prefix)
    settings = load(
        {"KAFKA_BOOTSTRAP_SERVERS": cluster.kafka.bootstrap_servers, "TRADETAPE_TOPIC_PREFIX": topic_prefix}
    )

    def found() -> State | None:
        return next((one.state for one in kafka.check(settings) if one.subject == "replicas"), None)

    made = topics.apply(admin, catalogue, replication=3)
    assert {(one.replicas, one.settings["min.insync.replicas"]) for one in made} == {(3, (None, "2"))}
    eventually("the cluster is whole", cluster.is_whole, timeout_s=WHOLE_S)
    assert {one.action for one in topics.apply(admin, catalogue)} == {"same"}
    assert found() is State.OK
    cluster.brokers[0].kill()
    try:
        eventually("one is missed", lambda: found() is State.WARN)
    finally:
        cluster.brokers[0].begin()
    eventually("the cluster is whole again", cluster.is_whole, timeout_s=WHOLE_S)
    assert found() is State.OK
