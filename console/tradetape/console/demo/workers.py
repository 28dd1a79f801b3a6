"""The demo's workers: processes of their own that run `tradetape work …` and end with the demo.

No worker outlives the demo: it is stopped on the way out, and when the demo is killed its tether ends it.
"""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

from tradetape.console.demo.venue import log_of
from tradetape.console.errors import DemoFailed
from tradetape.console.local.process import tail

STOP_TIMEOUT_S = 15.0
LOG_LINES = 15


class Worker:
    """One worker process; its output goes to a log of its own."""

    def __init__(self, *, name: str, command: Sequence[str], environment: Mapping[str, str], log: Path) -> None:
        self.name = name
        self.log = log
        with log.open("ab") as output:
            # A session of its own: Ctrl-C reaches the demo alone, which then stops its workers in order.
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tradetape.console.demo.tether", *command],
                stdin=subprocess.PIPE,
                stdout=output,
                stderr=output,
                env=dict(environment),
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        """Its process id."""
        return self._process.pid

    def check(self) -> None:
        """Raise DemoFailed, with the end of its log, when it has ended although nobody asked it to."""
        code = self._process.poll()
        if code is not None:
            raise DemoFailed(
                f"the {self.name} worker {_ended(code)}; the end of {self.log}:\n{tail(self.log, LOG_LINES)}"
            )

    def ask_to_stop(self) -> None:
        """Send TERM."""
        if self._process.poll() is None:
            self._process.terminate()

    def wait(self, deadline: float) -> int:
        """Wait until it has ended, and end it at the deadline (monotonic seconds); its exit code."""
        try:
            return self._process.wait(max(deadline - time.monotonic(), 0.0))
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()
        finally:
            if self._process.stdin is not None:
                self._process.stdin.close()


class Workers:
    """The workers of one run, by name. Use as a context manager: none is left on the way out."""

    def __init__(self, *, venue: str, logs: Path, environment: Mapping[str, str]) -> None:
        self._venue = venue
        self._logs = logs
        self._environment = environment
        self._running: list[Worker] = []

    def start(self, name: str, *command: str) -> Worker:
        """Start one."""
        log = log_of(self._logs, self._venue, name)
        worker = Worker(name=name, command=command, environment=self._environment, log=log)
        self._running.append(worker)
        return worker

    def check(self) -> None:
        """Raise DemoFailed for a worker that has ended."""
        for worker in self._running:
            worker.check()

    def stop(self) -> dict[str, int]:
        """Stop them all, side by side; their exit codes by name."""
        running, self._running = self._running, []
        deadline = time.monotonic() + STOP_TIMEOUT_S
        for worker in running:
            worker.ask_to_stop()
        with ExitStack() as last:
            # Whatever interrupts the wait for one, the others are waited for too.
            for worker in running:
                last.callback(worker.wait, deadline)
            return {worker.name: worker.wait(deadline) for worker in running}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.stop()


def _ended(code: int) -> str:
    return f"was ended by signal {-code}" if code < 0 else f"ended with exit code {code}"
