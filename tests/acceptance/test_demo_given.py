"""The demo on services and workers that somebody else runs, as in the containers: it proves them, and stops none of them."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from console_rig import clean_environment, tradetape
from streams_rig import WorkerProcess
from waiting import eventually

WORKERS = ("state", "history", "approval", "positions")


@pytest.fixture
def environment(kafka: str, redis_url: str, postgres: str, topic_prefix: str, tmp_path: Path) -> dict[str, str]:
    """Services with topics and tables of the test's own."""
    made = clean_environment(
        tmp_path / "home", KAFKA_BOOTSTRAP_SERVERS=kafka, REDIS_URL=redis_url, DATABASE_URL=postgres,
        TRADETAPE_TOPIC_PREFIX=topic_prefix, TRADETAPE_RUN_MODE="PAPER",
    )  # fmt: skip
    for words in (("topics", "apply"), ("history", "migrate")):
        assert tradetape(*words, environment=made).returncode == 0
    return made


@pytest.fixture
def workers(environment: dict[str, str], tmp_path: Path) -> Iterator[list[WorkerProcess]]:
    """Workers under the names of groups that the command gives them."""
    engine = {"state": ["--engine", "kafka"], "approval": ["--engine", "kafka"]}
    made = [
        WorkerProcess(
            ["-m", "tradetape.console", "work", name, *engine.get(name, [])], environment=environment,
            log=tmp_path / f"{name}.log",
        )
        for name in WORKERS
    ]  # fmt: skip
    yield made
    for one in made:
        one.kill()


def test_it_plays_to_the_workers_that_are_there_and_reconciles_what_they_made_of_it(
    environment: dict[str, str], workers: list[WorkerProcess]
) -> None:
    words = ("demo", "--services", "environment", "--symbols", "1", "--speed", "max", "--json")
    refused = tradetape("demo", "--services", "environment", environment={**environment, "TRADETAPE_RUN_MODE": "LIVE"})
    assert (refused.returncode, refused.stdout) == (1, "")
    runs = []

    def has_found_workers() -> bool:
        runs.append(tradetape(*words, environment=environment))
        return "worker is at work" not in runs[-1].stderr

    eventually("the workers are at work", has_found_workers)
    found = runs[-1]
    assert found.returncode == 0, found.stderr
    lines = {line["record"]: line for line in json.loads(found.stdout)["proof"]["records"]}
    assert all(line["difference"] == 0 for line in lines.values())
    assert lines["SignalDecision"]["in_postgres"] == lines["TradeSignal"]["expected"] > 0
    assert not any(one.has_ended for one in workers)
