"""What the live view shows: how much was emitted, how far each worker is behind, how fast it goes.

Kafka itself is asked, as an operator would: ends of topics against the groups' committed offsets.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence

import msgspec

from tradetape.console.demo.emission import Emission
from tradetape.console.demo.group_offsets import GroupOffsets
from tradetape.console.demo.probes import Probe
from tradetape.console.errors import DemoFailed
from tradetape.streams.processor import Partition
from tradetape.streams.topic_reader import Offsets, TopicReader

RATE_WINDOW_S = 3.0
STALL_TIMEOUT_S = 90.0
"""How long a run may make no progress before it is given up."""


class Rate:
    """Events per second over the last moments."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._points: deque[tuple[float, int]] = deque()

    def add(self, count: int) -> float:
        """Take the count as it is now; the rate."""
        now = self._clock()
        self._points.append((now, count))
        while now - self._points[0][0] > RATE_WINDOW_S:
            self._points.popleft()
        (then, before) = self._points[0]
        return (count - before) / (now - then) if now > then else 0.0


class WorkerGauge(msgspec.Struct, frozen=True, kw_only=True):
    """One worker: events it has still to take, and how many it takes in a second."""

    lag: int
    per_second: float


class Snapshot(msgspec.Struct, frozen=True, kw_only=True):
    """One look at the run: minutes of the market played, of how many, events emitted, and how long the tape is.

    `coming` counts by record what has still to follow from what was emitted; None while the bot plays.
    """

    minutes: int
    of_minutes: int
    emitted: int
    emitted_per_second: float
    workers: dict[str, WorkerGauge]
    latencies_s: dict[str, float | None]
    on_tape: int = 0
    coming: Mapping[str, int] | None = None


class LagGauge:
    """How far one worker's group is behind the ends of its topics, counting from the run's start."""

    def __init__(self, *, name: str, offsets: GroupOffsets, partitions: Sequence[Partition], starts: Offsets) -> None:
        self.name = name
        self._offsets = offsets
        self._partitions = list(partitions)
        self._starts = starts
        self._rate = Rate()

    def read(self, ends: Offsets) -> WorkerGauge:
        """The group's lag and pace now."""
        committed = self._offsets.committed(self._partitions)
        taken = sum(max(committed[one] - self._starts[one], 0) for one in self._partitions)
        return WorkerGauge(lag=self.lag(committed, ends), per_second=self._rate.add(taken))

    def lag(self, committed: Mapping[Partition, int], ends: Offsets) -> int:
        """Records before `ends` that the group has not committed; what was there before the run counts too."""
        return sum(max(ends[one] - committed[one], 0) for one in self._partitions)

    def close(self) -> None:
        """Let go of the connection."""
        self._offsets.close()


class Gauges:
    """Reads all gauges together."""

    def __init__(
        self,
        *,
        reader: TopicReader,
        workers: Sequence[LagGauge],
        partitions: Sequence[Partition],
        emission: Emission,
        probes: Sequence[Probe],
    ) -> None:
        self._reader = reader
        self._workers = workers
        self._partitions = list(partitions)
        self._emission = emission
        self._probes = probes
        self._rate = Rate()

    def read(self, coming: Mapping[str, int] | None) -> Snapshot:
        """One look. Raises BrokersUnreachable."""
        ends = self._reader.ends(self._partitions)
        emitted = self._emission.ledger.count
        return Snapshot(
            minutes=self._emission.minutes_done,
            of_minutes=self._emission.minutes,
            emitted=emitted,
            emitted_per_second=self._rate.add(emitted),
            workers={one.name: one.read(ends) for one in self._workers},
            latencies_s={probe.name: probe.median_s() for probe in self._probes},
            on_tape=sum(ends.values()),
            coming=coming,
        )


class Rest:
    """Notices when nobody is behind any more, and the tape has not grown for so long."""

    def __init__(self, rest_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self._rest_s = rest_s
        self._clock = clock
        self._on_tape = -1
        self._since = clock()

    def look(self, snapshot: Snapshot) -> bool:
        """Whether all that was played has come through, with what workers made of it."""
        if snapshot.on_tape != self._on_tape or any(worker.lag for worker in snapshot.workers.values()):
            self._on_tape, self._since = snapshot.on_tape, self._clock()
            return not self._rest_s and not any(worker.lag for worker in snapshot.workers.values())
        return self._clock() - self._since >= self._rest_s


class Stall:
    """Notices a run that moves no more."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._seen: tuple[object, ...] = ()
        self._moved_at = clock()

    def look(self, snapshot: Snapshot) -> None:
        """Raise DemoFailed when nothing has changed for too long."""
        coming = snapshot.coming or {}
        lags = (worker.lag for worker in snapshot.workers.values())
        seen = (snapshot.minutes, snapshot.emitted, *lags, *sorted(coming.items()))
        if seen != self._seen:
            self._seen, self._moved_at = seen, self._clock()
        elif self._clock() - self._moved_at > STALL_TIMEOUT_S:
            behind = ", ".join(f"{name} {worker.lag}" for name, worker in snapshot.workers.items())
            lacks = ", ".join(f"{count} {name}" for name, count in coming.items()) or "nothing"
            raise DemoFailed(
                f"nothing has moved for {STALL_TIMEOUT_S:.0f} s; records still to take: {behind}; still to come: {lacks}"
            )
