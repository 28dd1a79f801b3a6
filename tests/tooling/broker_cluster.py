"""A cluster of three Kafkas as processes, each broker and controller, of which a test kills and stops some.

They are the local stack's own Kafka, with settings behind its own that make one cluster of three.
"""

from __future__ import annotations

import json
import random
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from pathlib import Path

import psutil

from tradetape.console import topics
from tradetape.console.local import process
from tradetape.console.local.kafka import Kafka, new_cluster_id
from tradetape.console.local.places import Places, default_cache
from tradetape.console.local.ports import LOOPBACK, PortBook, is_free
from tradetape.producers.connection import KafkaSettings
from tradetape.streams.errors import BrokersUnreachable
from waiting import eventually

BROKERS = 3
START_S = 300.0
"""Three Javas at once, on a machine that may be busy with others."""
PORTS = range(20_000, 32_000)
"""Below those that the system gives to clients: a killed broker's port must still be free when it starts again."""
# Of a setting that a file gives twice Kafka takes the last. On a busy machine a controller may be silent for a while.
SETTINGS = """
node.id={number}
controller.quorum.voters={voters}
controller.quorum.election.timeout.ms=4000
controller.quorum.fetch.timeout.ms=8000
default.replication.factor=3
min.insync.replicas=2
offsets.topic.replication.factor=3
transaction.state.log.replication.factor=3
transaction.state.log.min.isr=2
share.coordinator.state.topic.replication.factor=3
share.coordinator.state.topic.min.isr=2
"""


class Broker(Kafka):
    """One of the three."""

    def __init__(self, home: Path, *, number: int, port: int, cluster_id: str, voters: Mapping[int, int]) -> None:
        """`voters` holds the port of each one's controller by number."""
        super().__init__(Places(home=home, cache=default_cache()), PortBook(home / "ports.json"), fixed_ports=False)
        self.number = number
        self.port = port
        self.places.make()
        book = {self.name: port, "kafka-controller": voters[number]}
        (home / "ports.json").write_text(json.dumps(book), encoding="utf-8")
        self._cluster_id = cluster_id
        self._voters = voters

    def cluster_id(self) -> str:
        return self._cluster_id

    def properties(self, port: int, controller: int, data: Path) -> str:
        voters = ",".join(f"{number}@{LOOPBACK}:{port}" for number, port in sorted(self._voters.items()))
        own = SETTINGS.format(number=self.number, voters=voters)
        return super().properties(port, controller, data) + own

    def begin(self) -> None:
        """Start it, and wait for nothing: one alone is no cluster, and answers nobody."""
        self._start()

    def is_up(self) -> bool:
        """Whether it answers."""
        return self.answers(self.port)

    def kill(self) -> None:
        """kill -9."""
        self._process().kill()
        assert self._child is not None
        process.await_end(self._child)

    def pause(self) -> None:
        """SIGSTOP."""
        self._process().suspend()

    def wake(self) -> None:
        """SIGCONT."""
        self._process().resume()

    def _process(self) -> psutil.Process:
        found = process.find(self.marker)
        assert found is not None, (
            f"broker {self.number} has ended by itself: {process.tail(self.places.log(self.name))}"
        )
        return found


class BrokerCluster:
    """The three, and what is known of them."""

    def __init__(self, folder: Path) -> None:
        numbers, cluster_id, ports = range(1, BROKERS + 1), new_cluster_id(), _free_ports(2 * BROKERS)
        voters = {number: ports.pop() for number in numbers}
        self.brokers = [
            Broker(folder / str(number), number=number, port=ports.pop(), cluster_id=cluster_id, voters=voters)
            for number in numbers
        ]
        self.kafka = KafkaSettings(bootstrap_servers=",".join(f"{LOOPBACK}:{one.port}" for one in self.brokers))
        self._admin = topics.admin_client(self.kafka)

    def up(self) -> None:
        """Start all, side by side, and wait until they answer."""
        with ThreadPoolExecutor(BROKERS) as pool:
            list(pool.map(Broker.begin, self.brokers))
        eventually("the brokers answer", lambda: all(one.is_up() for one in self.brokers), timeout_s=START_S)

    def is_whole(self) -> bool:
        """Whether every partition has a leader and lies whole on as many brokers as it should."""
        try:
            layout = topics.layout_of(self._admin)
        except BrokersUnreachable:
            return False
        return all(one.is_led and one.in_sync == one.brokers for places in layout.values() for one in places)

    def down(self) -> None:
        """End them; nothing of theirs has to last."""
        for broker in self.brokers:
            if (found := process.find(broker.marker)) is not None:
                found.kill()
            broker.down()


@contextmanager
def running_cluster(folder: Path) -> Iterator[BrokerCluster]:
    """Three brokers that answer, ended on the way out."""
    cluster = BrokerCluster(folder)
    try:
        cluster.up()
        yield cluster
    finally:
        cluster.down()


def _free_ports(count: int) -> list[int]:
    free = (port for port in random.sample(PORTS, len(PORTS)) if is_free(port))
    return list(islice(free, count))
