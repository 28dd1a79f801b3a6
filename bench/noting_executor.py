"""An executor that notes when it was called, and for which signal: a line for each call, in the file that FILE names.

The clock is the system's monotonic one, which is the same for every process of a machine.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

from tradetape.sinks.dispatch.executor import Answer, Order

FILE = "BENCH_CALLS_FILE"


class NotingExecutor:
    """Acknowledges every order."""

    name = "noting"
    is_idempotent = False

    def __init__(self) -> None:
        self._file = os.open(os.environ[FILE], os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def submit(self, order: Order) -> Answer:
        """Look at the clock, then write."""
        called_ns = time.monotonic_ns()
        os.write(self._file, f"{order.trade.signal_id} {called_ns}\n".encode())
        return Answer(external_id=order.key)


def calls(file: Path) -> Iterator[tuple[str, int]]:
    """The signal and the time in nanoseconds of each call, in order."""
    for line in file.read_text(encoding="ascii").splitlines():
        signal_id, called_ns = line.split()
        yield signal_id, int(called_ns)
