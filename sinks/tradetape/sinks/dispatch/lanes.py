"""Orders side by side: one lane for each symbol, in which they go one after the other, and a bounded number of threads.

A lane whose far side hangs holds up itself and one thread, and no other symbol.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Collection

from tradetape.sinks.dispatch.job import Job

PARALLEL = 16
"""How many orders are on their way at once."""


class Lanes:
    """Runs `work` for each job, in order within its lane. `work` returns when the job is over, and raises nothing."""

    def __init__(self, *, work: Callable[[Job], None], parallel: int = PARALLEL) -> None:
        self._work = work
        self._parallel = parallel
        self._changed = threading.Condition()
        self._lanes: dict[str, deque[Job]] = {}
        self._ready: deque[str] = deque()
        self._running: dict[str, Job] = {}
        self._threads: list[threading.Thread] = []
        self._closed = False
        self.reached = 0
        """How often a lane had to wait for one of the threads."""

    def put(self, job: Job) -> None:
        """Add a job behind those of its lane."""
        with self._changed:
            waiting = self._lanes.setdefault(job.lane, deque())
            waiting.append(job)
            if len(waiting) == 1:
                self._ready.append(job.lane)
                self._have_thread()
            self._changed.notify_all()

    def _have_thread(self) -> None:
        if len(self._running) + len(self._ready) <= len(self._threads):
            return
        if len(self._threads) == self._parallel:
            self.reached += 1
            return
        thread = threading.Thread(target=self._run, name=f"tradetape-lane-{len(self._threads)}", daemon=True)
        self._threads.append(thread)
        thread.start()

    def in_flight(self) -> int:
        """How many jobs are not over yet."""
        with self._changed:
            return sum(map(len, self._lanes.values()))

    def has_room(self, limit: int, timeout_s: float) -> bool:
        """Wait until fewer than `limit` jobs are in flight; whether they are."""
        with self._changed:
            return self._changed.wait_for(lambda: sum(map(len, self._lanes.values())) < limit, timeout_s)

    def drop(self, partitions: Collection[int], timeout_s: float) -> bool:
        """Forget the jobs of these partitions, and wait for those that have begun; whether all of them ended."""
        with self._changed:
            for lane, waiting in self._lanes.items():
                running = self._running.get(lane)
                kept = [job for job in waiting if job is running or job.order.partition not in partitions]
                waiting.clear()
                waiting.extend(kept)
                if running is not None and running.order.partition in partitions:
                    running.dropped.set()
            self._ready = deque(lane for lane in self._ready if self._lanes[lane])
            self._lanes = {lane: waiting for lane, waiting in self._lanes.items() if waiting}
            self._changed.notify_all()
            return self._changed.wait_for(
                lambda: not any(job.order.partition in partitions for job in self._running.values()), timeout_s
            )

    def close(self) -> None:
        """Let the threads end when they have nothing more to do."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()

    def _run(self) -> None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: self._ready or self._closed)
                if not self._ready:
                    return
                lane = self._ready.popleft()
                job = self._running[lane] = self._lanes[lane][0]
            self._work(job)
            with self._changed:
                del self._running[lane]
                waiting = self._lanes[lane]
                waiting.popleft()
                if waiting:
                    self._ready.append(lane)
                else:
                    del self._lanes[lane]
                self._changed.notify_all()
