"""A tape that grows into a registry: the demo runs before and after, and every event of both runs is readable."""

from __future__ import annotations

import json
import tempfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from console_rig import clean_environment, tradetape
from tradetape.console.local.stack import LocalStack

pytestmark = [pytest.mark.local, pytest.mark.long]

TOPIC = "tradetape.market-conditions"


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tradetape-demo-") as folder:
        try:
            yield Path(folder)
        finally:
            LocalStack(Path(folder)).down(wipe=True)


def demo(environment: dict[str, str], *words: str) -> dict[str, Any]:
    found = tradetape("demo", "--symbols", "1", "--speed", "max", "--json", *words, environment=environment)
    assert found.returncode == 0, found.stderr
    outcome: dict[str, Any] = json.loads(found.stdout)
    assert outcome["proof"]["records"]
    assert all(line["difference"] == 0 for line in outcome["proof"]["records"])
    return outcome


def ids_on_topic(bootstrap_servers: str) -> Counter[int]:
    """How many records of each schema id a plain client finds."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "by-hand", "enable.partition.eof": True})
    partitions = consumer.list_topics(TOPIC, timeout=15).topics[TOPIC].partitions
    consumer.assign([TopicPartition(TOPIC, number, OFFSET_BEGINNING) for number in partitions])
    found: Counter[int] = Counter()
    at_end = 0
    while at_end < len(partitions):
        message = consumer.poll(15)
        assert message is not None
        if message.error() is not None:
            at_end += 1
        else:
            found[int.from_bytes((message.value() or b"")[1:5], "big")] += 1
    consumer.close()
    return found


def test_the_demo_registers_what_it_needs_and_what_was_written_before_stays_readable(home: Path) -> None:
    environment = clean_environment(home)
    demo(environment, "--engine", "kafka")
    servers = LocalStack(home).environment()["KAFKA_BOOTSTRAP_SERVERS"]
    (content_id,) = before = ids_on_topic(servers)
    assert content_id >= 2**30

    assert tradetape("up", "--registry", environment=environment).returncode == 0
    demo(environment, "--engine", "faust")
    pushed = tradetape("schemas", "push", environment=environment).stdout
    (told,) = [line.split() for line in pushed.splitlines() if line.startswith(TOPIC)]
    registered_id = int(told[3])
    after = ids_on_topic(servers)
    assert after.keys() == {content_id, registered_id}
    assert after[content_id] == before[content_id]
    assert after[registered_id] > 0

    tail = tradetape("tail", TOPIC, "--from", "beginning", environment=environment)
    shown = [json.loads(line) for line in tail.stdout.splitlines()]
    assert len(shown) == after.total()
    assert Counter(one["event"]["venue"] for one in shown) == {
        "demo1": after[content_id], "demo2": after[registered_id],
    }  # fmt: skip
