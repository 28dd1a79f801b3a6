"""The health check of a container: it says what the worker's page says, whatever ails the worker, and costs next to nothing."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from prometheus_client import CollectorRegistry

from tradetape.console.ready import MAX_ANSWER_BYTES, ask
from tradetape.streams.health import HealthServer
from tradetape.streams.processor import Partition
from tradetape.streams.progress import Progress


@pytest.fixture
def progress() -> Progress:
    return Progress()


@pytest.fixture
def port(progress: Progress) -> Iterator[int]:
    server = HealthServer(host="127.0.0.1", port=0, progress=progress, metrics=CollectorRegistry())
    yield server.port
    server.close()


@pytest.fixture
def mute() -> Iterator[socket.socket]:
    """A server that takes connections and never says a word."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        yield server


def test_it_says_what_the_page_says(progress: Progress, port: int) -> None:
    assert ask(port) == (False, "no partitions are assigned yet")
    progress.assigned([Partition("tradetape.candles", 0)])
    assert ask(port) == (True, "ok")
    progress.waits("Redis: away")
    assert ask(port) == (False, "waits: Redis: away")


def test_nobody_there_and_nobody_who_answers_are_not_healthy(mute: socket.socket) -> None:
    is_ready, text = ask(mute.getsockname()[1], timeout_s=0.2)
    assert not is_ready
    assert "timed out" in text
    port = mute.getsockname()[1]
    mute.close()
    assert ask(port)[0] is False


@pytest.mark.parametrize("said", [b"", b"200", b"HTTP/1.0 500 200\r\n\r\n200", b"x" * (2 * MAX_ANSWER_BYTES)])
def test_an_answer_that_is_none_is_not_healthy(mute: socket.socket, said: bytes) -> None:
    def answer() -> None:
        with mute.accept()[0] as connection:
            connection.recv(64)
            connection.sendall(said)

    thread = threading.Thread(target=answer, daemon=True)
    thread.start()
    assert ask(mute.getsockname()[1], timeout_s=5.0)[0] is False
    thread.join(10)


def test_as_a_command_it_exits_as_docker_wants_it(progress: Progress, port: int) -> None:
    def run() -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-I", "-m", "tradetape.console.ready"]
        environment = {**os.environ, "TRADETAPE_HTTP_PORT": str(port)}
        return subprocess.run(command, env=environment, capture_output=True, text=True, check=False)

    assert (run().returncode, run().stdout) == (1, "no partitions are assigned yet\n")
    progress.assigned([Partition("tradetape.candles", 0)])
    assert (run().returncode, run().stdout) == (0, "ok\n")


def test_it_imports_nothing_of_ours_and_no_http_library() -> None:
    program = "import sys; from tradetape.console import ready; print(' '.join(sys.modules))"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    imported = set(done.stdout.split())
    assert {one for one in imported if one.startswith("tradetape.")} == {"tradetape.console", "tradetape.console.ready"}
    assert imported.isdisjoint({"http.client", "urllib.request", "msgspec", "argparse", "email"})
