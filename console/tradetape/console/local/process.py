"""Processes of the local stack: started to outlive us, found again without trusting a pid file.

A service is known by a path that only its own command line holds (its configuration or data folder). Whatever was
killed, `up` itself included, the next command finds the true state; a reused pid is never mistaken for a service.
"""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import psutil

from tradetape.console.errors import ServiceFailed

POLL_INTERVAL_S = 0.05
KILL_WAIT_S = 5.0
LOG_TAIL_LINES = 12


def find(marker: str) -> psutil.Process | None:
    """The running process whose command line holds the marker as one argument's beginning or whole."""
    for process in psutil.process_iter(["cmdline", "status"]):
        command = process.info["cmdline"] or ()
        if marker in command and process.info["status"] != psutil.STATUS_ZOMBIE and process.pid != os.getpid():
            return process
    return None


def listening_ports(process: psutil.Process) -> set[int]:
    """The TCP ports that a process listens on; empty also where we may not look."""
    try:
        sockets = process.net_connections(kind="tcp")
    except psutil.Error:
        return set()
    return {one.laddr.port for one in sockets if one.status == psutil.CONN_LISTEN}


def start(
    command: Sequence[str],
    *,
    log: Path,
    environment: Mapping[str, str] | None = None,
    folder: Path | None = None,
    user: tuple[int, int] | None = None,
) -> subprocess.Popen[bytes]:
    """Start a process in a session of its own, so that neither Ctrl-C nor our end reaches it."""
    with log.open("ab") as output:
        started = subprocess.Popen(
            list(command),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            env=dict(environment) if environment is not None else None,
            cwd=folder,
            start_new_session=True,
            user=user[0] if user else None,
            group=user[1] if user else None,
            extra_groups=[] if user else None,
        )
    # It is meant to outlive us, which Popen's destructor would otherwise warn about.
    started.returncode = 0
    return started


def stop(process: psutil.Process, *, with_signal: signal.Signals, timeout_s: float) -> None:
    """End a process: ask, wait, then kill. psutil refuses to signal a pid that was given to another process."""
    try:
        process.send_signal(with_signal)
        if _gone(process, timeout_s):
            return
        process.kill()
        _gone(process, KILL_WAIT_S)
    except psutil.NoSuchProcess:
        return


def lives(process: psutil.Process) -> bool:
    """Whether it has not ended; a child that nobody has waited for yet has."""
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def _gone(process: psutil.Process, timeout_s: float) -> bool:
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if not lives(process) and reap(process.pid):
            return True
        time.sleep(POLL_INTERVAL_S)
    return False


def await_end(pid: int) -> None:
    """Wait until a child that has been killed is gone whole."""
    deadline = time.monotonic() + KILL_WAIT_S
    while not reap(pid) and time.monotonic() < deadline:
        time.sleep(POLL_INTERVAL_S)


def reap(pid: int) -> bool:
    """Take note of a child's end, so that its pid is free. Whether nothing of it is left that we could wait for.

    A process of many threads shows as ended a little before its last thread is, and only then can be waited for.
    """
    try:
        return os.waitpid(pid, os.WNOHANG)[0] == pid
    except ChildProcessError:
        return True


def run(
    command: Sequence[str],
    *,
    what: str,
    user: tuple[int, int] | None = None,
    folder: Path | None = None,
    timeout_s: float = 120,
) -> None:
    """Run a preparing command to its end. Raises ServiceFailed with what it printed."""
    done = subprocess.run(
        list(command),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        user=user[0] if user else None,
        group=user[1] if user else None,
        extra_groups=[] if user else None,
        cwd=folder,
        timeout=timeout_s,
        check=False,
    )
    if done.returncode:
        raise ServiceFailed(f"{what} failed: {done.stdout.decode(errors='replace').strip()[-2000:]}")


def tail(log: Path, lines: int = LOG_TAIL_LINES) -> str:
    """The last lines of a log, indented for a message."""
    if not log.exists():
        return "  (no log)"
    text = log.read_text(encoding="utf-8", errors="replace").splitlines()[-lines:]
    return "\n".join(f"  {line}" for line in text)
