"""The set with three brokers: any of them crashes, replicas come and go, and the demo that plays meanwhile is reconciled."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterator

import pytest

from compose_set import UP_TIMEOUT_S, WORKERS, ComposeSet, reconciled, running_set
from waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(1_200)]

BROKERS = ("kafka", "kafka-2", "kafka-3")
SCALED = ("history", "state")
SPEED = "1500"
"""Of three days: three minutes."""


@pytest.fixture(scope="module")
def three(images: None) -> Iterator[ComposeSet]:
    """The set with its override, up and healthy."""
    with running_set("docker-compose.yml", "deploy/brokers.yml") as made:
        yield made


@pytest.fixture
def demo(three: ComposeSet) -> Iterator[subprocess.Popen[str]]:
    """One that plays. Compose runs the set-up before it, which needs its brokers."""
    made = three.run("demo", "demo", "--services", "environment", "--symbols", "1", "--speed", SPEED, "--json")
    try:
        eventually("the demo plays", lambda: three.runs("demo"))
        yield made
    finally:
        made.kill()
        made.wait()


def test_topics_lie_on_all_three_brokers(three: ComposeSet) -> None:
    told = three.cli("doctor", "--json")
    states = {one["check"]: one["state"] for one in json.loads(told)["checks"]}
    assert states["replicas"] == "ok"


def test_whichever_broker_crashes_the_demo_is_reconciled(three: ComposeSet, demo: subprocess.Popen[str]) -> None:
    for broker in BROKERS:
        three.crash_and_come_back(broker)
    reconciled(demo)
    three.await_health([*BROKERS, *WORKERS])


def test_replicas_come_and_go_and_the_demo_is_reconciled(three: ComposeSet, demo: subprocess.Popen[str]) -> None:
    for count in (2, 1):
        words = [word for one in SCALED for word in ("--scale", f"{one}={count}")]
        three.compose("up", "--detach", "--no-build", "--no-recreate", "--wait", *words, timeout_s=UP_TIMEOUT_S)
        for one in SCALED:
            assert len(three.compose("ps", "--quiet", one).split()) == count
    reconciled(demo)
