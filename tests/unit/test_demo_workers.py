"""No worker outlives the demo, and none that dies is overlooked."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from tradetape.console.demo import workers as module
from tradetape.console.demo.workers import Worker, Workers
from tradetape.console.errors import DemoFailed
from waiting import eventually

SLEEPER = """
import os, signal, sys, time
from tradetape.console.demo import tether
def main(argv):
    if argv == ["stubborn"]:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("pid", os.getpid(), flush=True)
    if argv == ["mortal"]:
        return 7
    time.sleep(120)
    return 0
tether.main = main
tether.STOP_GRACE_S = 0.2
sys.exit(tether.run(sys.argv[1:]))
"""
STARTER = """
import subprocess, sys, time
worker = subprocess.Popen([sys.executable, *sys.argv[1:]], stdin=subprocess.PIPE)
time.sleep(120)
"""
DEADLINE_S = 20.0


def gone(pid: int) -> bool:
    return not psutil.pid_exists(pid) or psutil.Process(pid).status() == psutil.STATUS_ZOMBIE


@pytest.mark.parametrize("kind", ["willing", "stubborn"])
def test_a_worker_ends_when_the_demo_is_killed(kind: str, tmp_path: Path) -> None:
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    command = [sys.executable, "-c", STARTER, str(script), kind]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as starter:
        try:
            assert starter.stdout
            worker = int(starter.stdout.readline().split()[1])
        finally:
            starter.kill()
        eventually("the worker's end", lambda: gone(worker))


@pytest.fixture
def sleeping(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[Workers, str], Worker]:
    """Starts a worker that does nothing, for long."""
    script = tmp_path / "sleeper.py"
    script.write_text(SLEEPER)
    real = subprocess.Popen

    def popen(command: list[str], **rest: object) -> object:
        return real([sys.executable, str(script), *command[3:]], **rest)  # type: ignore[call-overload]

    monkeypatch.setattr(subprocess, "Popen", popen)

    def start(running: Workers, kind: str) -> Worker:
        worker = running.start(kind, kind)
        eventually("the worker's start", lambda: worker.log.read_text() != "")
        return worker

    return start


def test_a_worker_that_dies_is_reported_with_the_end_of_its_log(
    tmp_path: Path, sleeping: Callable[[Workers, str], Worker]
) -> None:
    with Workers(venue="demo7", logs=tmp_path, environment=os.environ) as running:
        willing, mortal = sleeping(running, "willing"), sleeping(running, "mortal")

        def check() -> bool:
            running.check()
            return False

        # Its first thread may be gone a while before the last: until then it has no exit code.
        with pytest.raises(DemoFailed, match="the mortal worker ended with exit code 7") as failed:
            eventually("its death", check)
        willing.check()
    assert str(tmp_path / "demo7-mortal.log") in str(failed.value)
    assert f"pid {mortal.pid}" in str(failed.value)


def test_workers_are_stopped_on_the_way_out_whatever_happens(
    tmp_path: Path, sleeping: Callable[[Workers, str], Worker]
) -> None:
    pids: list[int] = []

    def interrupted() -> None:
        with Workers(venue="demo7", logs=tmp_path, environment=os.environ) as running:
            pids.extend(sleeping(running, kind).pid for kind in ("state", "history"))
            running.check()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert len(pids) == 2
    assert all(gone(pid) for pid in pids)


def test_a_worker_that_ignores_the_request_is_ended(
    tmp_path: Path, sleeping: Callable[[Workers, str], Worker], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "STOP_TIMEOUT_S", 0.3)
    with Workers(venue="demo7", logs=tmp_path, environment=os.environ) as running:
        sleeping(running, "stubborn")
        sleeping(running, "willing")
        assert running.stop() == {"stubborn": -signal.SIGKILL, "willing": -signal.SIGTERM}
