"""How many cores the workers, the servers and everybody else kept busy between two moments."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import psutil

from tradetape.console.demo.workers import Worker

Seconds = dict[int, float]


class CoresUsed(NamedTuple):
    """On average. `others` is the rest of the machine, whoever measures included."""

    workers: float
    servers: float
    others: float


class Cores:
    """From its making on. Workers are known by what started them; servers are all else that this process has started."""

    def __init__(self, workers: Sequence[Worker]) -> None:
        self._workers = {pid for one in workers for pid in _tree(one.pid)}
        self._before, self._busy_before_s = _spent(), _busy_s()

    def used(self, took_s: float) -> CoresUsed:
        """What was used in the `took_s` seconds since."""
        after, busy_s = _spent(), _busy_s() - self._busy_before_s
        spent = {pid: seconds - self._before.get(pid, 0.0) for pid, seconds in after.items()}
        workers = sum(seconds for pid, seconds in spent.items() if pid in self._workers)
        servers = sum(spent.values()) - workers
        return CoresUsed(workers / took_s, servers / took_s, max(0.0, busy_s - workers - servers) / took_s)


def _tree(pid: int) -> set[int]:
    return {pid, *(one.pid for one in psutil.Process(pid).children(recursive=True))}


def _spent() -> Seconds:
    """Seconds of processor time of each process that this one has started, and of theirs."""
    found = {}
    for one in psutil.Process().children(recursive=True):
        try:
            times = one.cpu_times()
        except psutil.NoSuchProcess:
            continue
        found[one.pid] = times.user + times.system
    return found


def _busy_s() -> float:
    times = psutil.cpu_times()
    return float(sum(times) - times.idle - getattr(times, "iowait", 0.0) - getattr(times, "guest", 0.0))
