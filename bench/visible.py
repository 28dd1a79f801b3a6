"""Emits at a steady rate and watches for each event where it is to arrive: how long it took until it could be read there.

Emitting and watching run in one process on one clock. The watcher asks every half millisecond for all that is still
missing, so what it finds is late by at most that and one answer.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import count
from typing import NamedTuple

from bench.errors import BenchFailed
from bench.sample import symbol, update
from bench.timing import Percentiles, percentiles
from tradetape.producers import Producer

SERIES = 240
POLL_S = 0.0005
READY_TIMEOUT_S = 90.0
READY_STEP_S = 0.1
LOST_AFTER_S = 20.0


class Awaited(NamedTuple):
    """An event on its way."""

    symbol: str
    close_time: datetime
    emitted_ns: int


Probe = Callable[[Sequence[Awaited]], Sequence[bool]]
"""Which of these can be read now."""


class Visibility:
    """One producer, one probe, windows of steady emission."""

    def __init__(self, tape: Producer, probe: Probe) -> None:
        self._tape = tape
        self._probe = probe
        self._numbers = count()

    def wait_until_ready(self) -> None:
        """Emit now and then until something arrives: the worker has started. Raises BenchFailed."""
        deadline = time.monotonic() + READY_TIMEOUT_S
        sent: list[Awaited] = []
        while time.monotonic() < deadline:
            sent.append(self._emit())
            time.sleep(READY_STEP_S)
            if any(self._probe(sent)):
                return
        raise BenchFailed(f"nothing arrived within {READY_TIMEOUT_S:.0f} s")

    def window(self, *, rate_per_s: int, seconds: float) -> Percentiles:
        """Emit for so long; nanoseconds from before `emit` until the event could be read. Raises BenchFailed."""
        on_the_way: deque[Awaited] = deque()
        done = threading.Event()
        emitting = threading.Thread(target=self._emit_steadily, args=(on_the_way, done, rate_per_s, seconds))
        emitting.start()
        try:
            return percentiles(self._watch(on_the_way, done))
        finally:
            emitting.join()

    def _emit_steadily(
        self, on_the_way: deque[Awaited], done: threading.Event, rate_per_s: int, seconds: float
    ) -> None:
        try:
            began = time.perf_counter()
            for place in range(int(rate_per_s * seconds)):
                time.sleep(max(0.0, began + place / rate_per_s - time.perf_counter()))
                on_the_way.append(self._emit())
        finally:
            done.set()

    def _emit(self) -> Awaited:
        number = next(self._numbers)
        event = update(number, symbol(number % SERIES), datetime.now(UTC))
        emitted_ns = time.perf_counter_ns()
        self._tape.emit(event)
        return Awaited(event.symbol, event.bar_close_time, emitted_ns)

    def _watch(self, on_the_way: deque[Awaited], done: threading.Event) -> list[float]:
        missing: list[Awaited] = []
        took: list[float] = []
        while not done.is_set() or on_the_way or missing:
            while on_the_way:
                missing.append(on_the_way.popleft())
            if missing:
                arrived = self._probe(missing)
                now = time.perf_counter_ns()
                took += [now - one.emitted_ns for one, is_there in zip(missing, arrived, strict=True) if is_there]
                missing = [one for one, is_there in zip(missing, arrived, strict=True) if not is_there]
                _check_oldest(missing, now)
            time.sleep(POLL_S)
        return took


def _check_oldest(missing: Sequence[Awaited], now_ns: int) -> None:
    if missing and now_ns - missing[0].emitted_ns > LOST_AFTER_S * 1e9:
        raise BenchFailed(f"an event was not to be read {LOST_AFTER_S:.0f} s after it was emitted: {missing[0]}")
