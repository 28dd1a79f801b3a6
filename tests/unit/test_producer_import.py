"""What embedding the producer costs a bot: its names, and no package of the services."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

import tradetape.producers
import tradetape.schemas

SERVICES = {"faust", "mode", "aiokafka", "psycopg", "psycopg_pool", "redis", "hiredis", "rich", "prometheus_client"}
OTHER_ROOMS = {"tradetape.streams", "tradetape.sinks", "tradetape.console"}
PUBLIC = {
    "Delivered",
    "Dropped",
    "ForkedProducer",
    "Health",
    "OutboxError",
    "OutboxFull",
    "OutboxHealth",
    "OutboxInUse",
    "OutboxUnavailable",
    "Producer",
    "ProducerClosed",
    "ProducersError",
    "QueueFull",
    "SettingsError",
}


def loaded_by(statement: str) -> set[str]:
    script = f"{statement}\nimport json, sys\nprint(json.dumps(sorted(sys.modules)))"
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True)
    assert run.stderr == ""
    return set(json.loads(run.stdout))


@pytest.mark.parametrize("statement", ["import tradetape.producers", "import tradetape.producers.testing"])
def test_a_bot_loads_no_service_library_and_no_other_room(statement: str) -> None:
    loaded = loaded_by(statement)
    assert "tradetape.producers" in loaded
    assert not loaded & SERVICES
    assert not loaded & OTHER_ROOMS
    assert not loaded & {"http.client", "tradetape.schemas.registry", "fastavro", "platformdirs"}


def test_importing_prints_nothing_starts_no_thread_and_opens_no_socket() -> None:
    script = (
        "import os, threading\n"
        "import tradetape.producers\n"
        "assert threading.active_count() == 1\n"
        "links = [os.readlink(f'/proc/self/fd/{fd}') for fd in os.listdir('/proc/self/fd') if os.path.islink(f'/proc/self/fd/{fd}')]\n"
        "assert not [one for one in links if one.startswith('socket:')], links\n"
    )
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", script],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        stdin=subprocess.DEVNULL,
        env={**os.environ},
    )
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


def test_the_public_names_are_these() -> None:
    assert set(tradetape.producers.__all__) == PUBLIC
    for name in PUBLIC:
        assert getattr(tradetape.producers, name).__doc__


def test_every_error_is_caught_by_one_base() -> None:
    errors = [value for name, value in vars(tradetape.producers).items() if name in PUBLIC and _is_error(value)]
    assert len(errors) == 9
    assert all(issubclass(error, tradetape.producers.ProducersError) for error in errors)


def _is_error(value: object) -> bool:
    return isinstance(value, type) and issubclass(value, Exception)


def test_the_names_of_the_readme_are_there() -> None:
    assert {"Action", "Direction", "IndicatorUpdate", "TradeSignal", "Candle"} <= set(tradetape.schemas.__all__)
    assert callable(tradetape.producers.Producer.from_env)
