"""`tradetape up`, `status`, `logs`, `down` as a user runs them, in a home of their own."""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from console_rig import COMMAND, clean_environment, tradetape
from tradetape.console.local.stack import LocalStack

pytestmark = pytest.mark.local

SERVICES = ["kafka", "postgres", "redis", "registry"]
VARIABLES = ["DATABASE_URL", "KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "TRADETAPE_OUTBOX_DIR", "TRADETAPE_RUN_MODE"]


@pytest.fixture(scope="module")
def environment(stack: LocalStack) -> Iterator[dict[str, str]]:
    """A home of its own on a machine without network and without any tool: the suite's stack has filled the cache."""
    with tempfile.TemporaryDirectory(prefix="tradetape-acceptance-") as folder:
        home, tools = Path(folder) / "home", Path(folder) / "no-tools"
        tools.mkdir()
        nowhere = "http://127.0.0.1:1"
        variables = {"PATH": str(tools), "HTTPS_PROXY": nowhere, "HTTP_PROXY": nowhere}
        cache = {"TRADETAPE_CACHE": str(stack.places.cache)}
        try:
            yield clean_environment(home, **variables, **cache)
        finally:
            LocalStack(home).down(wipe=True)


def test_up_prints_exports_alone_and_status_tells_the_same(environment: dict[str, str]) -> None:
    up = tradetape("up", environment=environment)
    assert up.returncode == 0, up.stderr
    assert [line.partition("=")[0] for line in sorted(up.stdout.splitlines())] == [f"export {one}" for one in VARIABLES]
    assert "Starting" in up.stderr

    shell = ["/bin/sh", "-c", f'eval "$({COMMAND} up)"; echo "$KAFKA_BOOTSTRAP_SERVERS $REDIS_URL $DATABASE_URL"']
    seen = subprocess.run(shell, env=environment, capture_output=True, text=True, check=True).stdout.split()
    status = tradetape("status", "--json", environment=environment)
    told = json.loads(status.stdout)
    assert seen == [told["environment"][one] for one in ("KAFKA_BOOTSTRAP_SERVERS", "REDIS_URL", "DATABASE_URL")]
    assert told["environment"]["TRADETAPE_RUN_MODE"] == "PAPER"
    assert (status.returncode, status.stderr) == (0, "")


def test_status_names_the_process_that_listens_on_the_port(environment: dict[str, str]) -> None:
    tradetape("up", environment=environment)
    services = json.loads(tradetape("status", "--json", environment=environment).stdout)["services"]
    assert sorted(services) == SERVICES
    assert services.pop("registry") == {"port": None, "pid": None, "running": False}
    for one in services.values():
        sockets = psutil.Process(one["pid"]).net_connections(kind="tcp")
        assert one["port"] in {socket.laddr.port for socket in sockets if socket.status == psutil.CONN_LISTEN}


def test_commands_find_the_running_stack_by_themselves_and_keep_its_password(environment: dict[str, str]) -> None:
    tradetape("up", environment=environment)
    told = json.loads(tradetape("status", "--json", environment=environment).stdout)["environment"]
    password = told["DATABASE_URL"].partition("@")[0].rpartition(":")[2]
    assert len(password) > 16
    printed = ""
    for words in (["topics", "apply"], ["topics", "list"], ["history", "migrate"], ["doctor"], ["doctor", "--json"]):
        done = tradetape(*words, environment=environment)
        assert done.returncode == 0, done
        printed += done.stdout + done.stderr
    assert "services are those of the local stack" in printed
    assert password not in printed


def test_logs_shows_the_last_lines_of_a_service(environment: dict[str, str]) -> None:
    tradetape("up", environment=environment)
    done = tradetape("logs", "postgres", "-n", "3", environment=environment)
    assert done.returncode == 0
    assert 1 <= len(done.stdout.splitlines()) <= 3
    assert re.search(r"LOG:", done.stdout)


def test_down_stops_all_and_says_when_there_was_nothing_to_stop(environment: dict[str, str]) -> None:
    tradetape("up", environment=environment)
    down = tradetape("down", environment=environment)
    assert (down.returncode, down.stdout, down.stderr) == (0, "", "Stopped kafka, postgres, redis.\n")
    again = tradetape("down", environment=environment)
    assert (again.returncode, again.stdout, again.stderr) == (0, "", "Nothing ran.\n")

    status = tradetape("status", "--json", environment=environment)
    told = json.loads(status.stdout)
    assert status.returncode == 1
    assert {one["pid"] for one in told["services"].values()} == {None}
    assert told["environment"] == {}


@pytest.mark.usefixtures("registry_url")
def test_the_registry_runs_for_those_who_ask_and_is_found_like_the_rest(environment: dict[str, str]) -> None:
    """The suite's own registry has filled the cache; this one starts without network."""
    tradetape("down", environment=environment)
    try:
        up = tradetape("up", "--registry", environment=environment)
        assert up.returncode == 0, up.stderr
        names = [line.partition("=")[0] for line in sorted(up.stdout.splitlines())]
        assert names == [f"export {one}" for one in sorted([*VARIABLES, "SCHEMA_REGISTRY_URL"])]
        told = json.loads(tradetape("status", "--json", environment=environment).stdout)
        port = told["services"]["registry"]["port"]
        assert told["environment"]["SCHEMA_REGISTRY_URL"] == f"http://127.0.0.1:{port}/apis/ccompat/v7"
        assert tradetape("up", environment=environment).stdout == up.stdout

        assert re.search(
            r"FAIL +schemas +9 of 9 are not registered.*-> {2}tradetape schemas push", _doctor(environment)
        )
        assert tradetape("schemas", "push", environment=environment).returncode == 0
        assert re.search(r"ok +schemas +9 are registered", _doctor(environment))
        logs = tradetape("logs", "registry", "-n", "2", environment=environment)
        assert (logs.returncode, len(logs.stdout.splitlines())) == (0, 2)
    finally:
        down = tradetape("down", environment=environment)
    assert down.stderr == "Stopped kafka, postgres, redis, registry.\n"
    assert tradetape("logs", "registry", environment=environment).returncode == 0


def _doctor(environment: dict[str, str]) -> str:
    return tradetape("doctor", environment=environment).stdout


def test_a_home_that_never_ran_is_no_error_to_status_down_and_logs(tmp_path: Path) -> None:
    environment = clean_environment(tmp_path / "home")
    assert tradetape("status", environment=environment).stdout.count("not running") == len(SERVICES)
    assert tradetape("down", "--wipe", environment=environment).returncode == 0
    logs = tradetape("logs", "kafka", environment=environment)
    assert (logs.returncode, logs.stdout) == (1, "")
    assert logs.stderr == "tradetape: kafka has no log yet; start it with `tradetape up`\n"
    assert not (tmp_path / "home").exists()


def test_a_home_that_cannot_be_made_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    done = tradetape("up", environment=clean_environment(tmp_path / "file" / "home"))
    assert (done.returncode, done.stdout) == (1, "")
    assert re.search(r"(?m)^tradetape: cannot make .*; set TRADETAPE_HOME to a folder of yours$", done.stderr)
    assert "Traceback" not in done.stderr
