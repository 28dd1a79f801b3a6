"""`tradetape topics` as a user runs it."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

from console_rig import clean_environment, tradetape

TOPICS = 10
"""Nine records and the dead letters."""


@pytest.fixture
def environment(tmp_path: Path, kafka: str, topic_prefix: str) -> dict[str, str]:
    return clean_environment(tmp_path, KAFKA_BOOTSTRAP_SERVERS=kafka, TRADETAPE_TOPIC_PREFIX=topic_prefix)


def test_apply_prints_a_diff_once_and_list_shows_what_is_there(environment: dict[str, str], topic_prefix: str) -> None:
    dry = tradetape("topics", "apply", "--partitions", "3", "--dry-run", environment=environment)
    assert dry.returncode == 0
    assert len(re.findall(rf"(?m)^\+ {re.escape(topic_prefix)}\S+  3 partitions$", dry.stdout)) == TOPICS

    done = tradetape("topics", "apply", "--partitions", "3", environment=environment)
    assert (done.returncode, done.stdout) == (0, dry.stdout)
    again = tradetape("topics", "apply", environment=environment)
    assert (again.returncode, again.stdout) == (0, "")

    listed = json.loads(tradetape("topics", "list", "--json", environment=environment).stdout)
    assert len(listed) == TOPICS
    assert {one["partitions"] for one in listed} == {3}
    assert {one["records"] for one in listed} == {0}
    trades = next(one for one in listed if one["name"] == f"{topic_prefix}trades")
    assert trades["retention_ms"] == -1
    table = tradetape("topics", "list", environment=environment).stdout.splitlines()
    assert len(table) == 1 + TOPICS


def test_missing_topics_are_told_on_stderr_with_what_creates_them(environment: dict[str, str]) -> None:
    done = tradetape("topics", "list", "--json", environment=environment)
    assert done.returncode == 0
    assert {one["partitions"] for one in json.loads(done.stdout)} == {None}
    assert "`tradetape topics apply`" in done.stderr


def test_another_number_of_partitions_is_refused_in_one_sentence(environment: dict[str, str]) -> None:
    assert tradetape("topics", "apply", "--partitions", "2", environment=environment).returncode == 0
    done = tradetape("topics", "apply", "--partitions", "5", environment=environment)
    assert (done.returncode, done.stdout) == (1, "")
    assert re.fullmatch(r"tradetape: .*has 2 partitions, not 5.*--partitions 2.*\n", done.stderr)


def test_a_broker_that_is_away_is_exit_code_3(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, KAFKA_BOOTSTRAP_SERVERS="127.0.0.1:1")
    done = tradetape("topics", "list", "--json", environment=environment)
    assert (done.returncode, done.stdout) == (3, "")
    assert re.fullmatch(r"tradetape: Kafka cannot be reached: .*`tradetape doctor`.*\n", done.stderr)
