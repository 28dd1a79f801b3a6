"""`tradetape doctor` as a user runs it: what it finds, and that what it advises mends."""

from __future__ import annotations

import json
import os
import pty
import shlex
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import redis

from console_rig import COMMAND, clean_environment, tradetape
from tcp_proxy import TcpProxy

RED = "\x1b[31m"


@pytest.fixture
def environment(tmp_path: Path, kafka: str, redis_url: str, postgres: str, topic_prefix: str) -> dict[str, str]:
    """Services that answer, without topics and tables."""
    services = {"KAFKA_BOOTSTRAP_SERVERS": kafka, "REDIS_URL": redis_url, "DATABASE_URL": postgres}
    return clean_environment(tmp_path, TRADETAPE_TOPIC_PREFIX=topic_prefix, **services)


@pytest.fixture
def nothing(tmp_path: Path) -> dict[str, str]:
    """An environment in which nothing runs."""
    return clean_environment(tmp_path / "home")


def doctor(environment: dict[str, str]) -> tuple[int, dict[str, Any]]:
    done = tradetape("doctor", "--json", environment=environment)
    return done.returncode, {one["check"]: one for one in json.loads(done.stdout)["checks"]}


def test_what_doctor_advises_makes_all_well(environment: dict[str, str]) -> None:
    code, found = doctor(environment)
    assert code == 1
    faults = [one for one in found.values() if one["state"] == "FAIL"]
    assert {one["check"] for one in faults} == {"topics", "history"}
    for one in faults:
        name, *words = shlex.split(one["mend"])
        assert name == "tradetape"
        assert tradetape(*words, environment=environment).returncode == 0
    code, found = doctor(environment)
    assert code == 0, found
    assert {one["state"] for one in found.values()} == {"ok"}
    assert {"kafka", "kafka address", "redis", "redis policy", "redis memory", "redis clock"} <= found.keys()
    assert {"postgres", "postgres clock", "history", "topics", "packages"} <= found.keys()


def test_with_nothing_running_it_says_up(nothing: dict[str, str]) -> None:
    done = tradetape("doctor", environment=nothing)
    assert done.returncode == 3
    failed = [line for line in done.stdout.splitlines() if line.startswith("FAIL")]
    assert [line.split()[1] for line in failed] == ["kafka", "redis", "postgres"]
    assert all(line.endswith("->  tradetape up") for line in failed)


@pytest.mark.parametrize(
    ("variable", "check", "away"),
    [
        ("KAFKA_BOOTSTRAP_SERVERS", "kafka", "127.0.0.1:1"),
        ("REDIS_URL", "redis", "redis://:hunter2@127.0.0.1:1/0"),
        ("DATABASE_URL", "postgres", "postgresql://bot:hunter2@127.0.0.1:1/tape"),
    ],
)
def test_a_service_that_is_away_is_exit_code_3_and_the_others_are_checked(
    environment: dict[str, str], variable: str, check: str, away: str
) -> None:
    done = tradetape("doctor", "--json", environment={**environment, variable: away})
    assert done.returncode == 3
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
    assert [one["check"] for one in found.values() if one["unreachable"]] == [check]
    assert variable in found[check]["mend"]
    assert {found[other]["state"] for other in {"kafka", "redis", "postgres"} - {check}} == {"ok"}
    assert "hunter2" not in done.stdout + done.stderr


def test_a_wrong_password_is_told_without_showing_it(environment: dict[str, str]) -> None:
    wrong = environment["DATABASE_URL"].replace(":", ":x", 2).replace("postgresql:x", "postgresql:", 1)
    assert wrong != environment["DATABASE_URL"]
    done = tradetape("doctor", "--json", environment={**environment, "DATABASE_URL": wrong})
    found = {one["check"]: one for one in json.loads(done.stdout)["checks"]}
    assert "password authentication failed" in found["postgres"]["detail"]
    password = wrong.partition("@")[0].rpartition(":")[2]
    assert password not in done.stdout + done.stderr


def test_a_redis_that_drops_keys_is_a_fault(environment: dict[str, str], redis_url: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.config_set("maxmemory-policy", "allkeys-lru")
        try:
            code, found = doctor(environment)
        finally:
            client.config_set("maxmemory-policy", "noeviction")
    assert code == 1
    assert found["redis policy"]["state"] == "FAIL"
    assert found["redis policy"]["mend"].endswith("CONFIG SET maxmemory-policy noeviction")


@pytest.fixture
def forwarded(kafka: str) -> Iterator[str]:
    """Another address of the same Kafka, as behind a port mapping that the broker knows nothing of."""
    host, _, port = kafka.rpartition(":")
    proxy = TcpProxy(host, int(port))
    yield f"127.0.0.1:{proxy.port}"
    proxy.close()


def test_a_broker_that_advertises_another_address_is_told(
    environment: dict[str, str], forwarded: str, kafka: str
) -> None:
    _, found = doctor({**environment, "KAFKA_BOOTSTRAP_SERVERS": forwarded})
    assert found["kafka"]["state"] == "ok"
    assert found["kafka address"]["state"] == "warn"
    assert kafka in found["kafka address"]["detail"]
    assert forwarded in found["kafka address"]["detail"]


def on_a_terminal(environment: dict[str, str]) -> str:
    """What doctor prints to a terminal."""
    ours, theirs = pty.openpty()
    running = subprocess.Popen([str(COMMAND), "doctor"], env=environment, stdout=theirs, stderr=subprocess.DEVNULL)
    os.close(theirs)
    printed = b""
    try:
        while data := os.read(ours, 65536):
            printed += data
    except OSError:
        # Linux says "input/output error" when the other end of a terminal is gone.
        pass
    finally:
        os.close(ours)
        running.wait()
    return printed.decode()


def test_colours_are_for_terminals_and_no_color_is_honoured(nothing: dict[str, str]) -> None:
    assert RED in on_a_terminal(nothing)
    assert "\x1b" not in on_a_terminal({**nothing, "NO_COLOR": "1"})
    assert "\x1b" not in tradetape("doctor", environment=nothing).stdout
