"""From `emit` of a signal to the call of the executor, through the real workers of approval and dispatch, at a steady rate.

On its way lie the outbox, an answer in Redis, decision and trade on the tape, and the intent in PostgreSQL and on the
tape, each acknowledged before the next. Each signal has to reach the executor once.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from itertools import count
from pathlib import Path

from bench.errors import BenchFailed
from bench.noting_executor import FILE, calls
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import VENUE, symbol
from bench.services import Services
from bench.timing import NS_PER_MS, Percentiles, percentiles
from tradetape.console.demo.workers import Workers
from tradetape.producers import Producer
from tradetape.producers.settings import PREFIX
from tradetape.schemas import Action, Catalogue, Direction, RunMode, TradeSignal
from tradetape.streams.processors.approval import SETTLE_S

RATE_PER_S = 20
WINDOW_S, QUICK_WINDOW_S = 10.0, 5.0
WARM_UP_S = SETTLE_S + 5.0
"""Approval reads the tape beside its work while its memory is new, as after a loss of Redis."""
SYMBOLS = 50
READY_TIMEOUT_S, ARRIVAL_TIMEOUT_S = 90.0, 20.0
STEP_S = 0.1
P50_BUDGET_MS, P99_BUDGET_MS = 20.0, 100.0
ENGINES = ("faust", "kafka")
ROOT = Path(__file__).resolve().parents[1]


def run(services: Services, options: Options) -> Report:
    """Measure."""
    report = Report("dispatch", f"from emit of a signal until its executor is called, at {RATE_PER_S} signals/s")
    seconds = QUICK_WINDOW_S if options.quick else WINDOW_S
    found: dict[str, list[Percentiles]] = {}
    lost = repeated = 0
    for engine in ENGINES:
        say(f"dispatch: approval on {engine}")
        flow, found[engine] = _measured(services, engine, seconds, options.rounds)
        lost += flow.lost()
        repeated += flow.repeated()
    for engine, all_ in found.items():
        p50 = report.figure(f"approval on {engine}, p50", "ms", *(one.p50 / NS_PER_MS for one in all_))
        p99 = report.figure(f"approval on {engine}, p99", "ms", *(one.p99 / NS_PER_MS for one in all_))
        report.at_most(f"approval on {engine} over its budget, p50", p50 / P50_BUDGET_MS, 1)
        report.at_most(f"approval on {engine} over its budget, p99", p99 / P99_BUDGET_MS, 1)
    report.at_most("signals that reached no executor", lost, 0, must_hold=True)
    report.at_most("signals that reached it twice", repeated, 0, must_hold=True)
    report.notes.append(
        f"Budgets: p50 {P50_BUDGET_MS:g} ms, p99 {P99_BUDGET_MS:g} ms. The default engine of approval is Faust."
    )
    return report


class Flow:
    """One producer of signals, and what its executor noted."""

    def __init__(self, tape: Producer, file: Path) -> None:
        self._tape = tape
        self._file = file
        self._numbers = count()
        self._emitted_ns: dict[str, int] = {}
        self._window: list[str] = []

    def emit(self) -> str:
        """The next signal; its id."""
        number = next(self._numbers)
        signal = TradeSignal(
            venue=VENUE, symbol=symbol(number % SYMBOLS), strategy_id="bench", timeframe="1m", action=Action.ENTER,
            direction=Direction.LONG, reference_price="100", score=0.7,
            bar_close_time=datetime(2025, 6, 1, tzinfo=UTC) + timedelta(minutes=number),
        )  # fmt: skip
        emitted_ns = time.monotonic_ns()
        signal_id = str(self._tape.emit(signal).signal_id)
        self._emitted_ns[signal_id] = emitted_ns
        return signal_id

    def wait_until_ready(self, workers: Workers) -> None:
        """Emit now and then until each call comes before the next signal. Raises BenchFailed, DemoFailed."""
        _wait(lambda: self._is_prompt(self.emit()), workers, READY_TIMEOUT_S)
        self.wait_until_called(workers)

    def _is_prompt(self, signal_id: str) -> bool:
        time.sleep(STEP_S)
        return any(called == signal_id for called, _ in calls(self._file))

    def window(self, seconds: float) -> None:
        """Emit for so long at the rate."""
        self._window = []
        began = time.monotonic()
        for place in range(int(RATE_PER_S * seconds)):
            time.sleep(max(0.0, began + place / RATE_PER_S - time.monotonic()))
            self._window.append(self.emit())

    def wait_until_called(self, workers: Workers) -> None:
        """Until every signal has reached the executor, or none of them will."""
        deadline = time.monotonic() + ARRIVAL_TIMEOUT_S
        while self.lost() and time.monotonic() < deadline:
            workers.check()
            time.sleep(STEP_S)

    def latency(self) -> Percentiles:
        """Of the last window, in nanoseconds. Raises BenchFailed when nothing of it has arrived."""
        called_ns = dict(reversed(list(calls(self._file))))
        took = [called_ns[one] - self._emitted_ns[one] for one in self._window if one in called_ns]
        if not took:
            raise BenchFailed("no signal reached the executor")
        return percentiles(took)

    def lost(self) -> int:
        """How many signals have not reached the executor."""
        return len(self._emitted_ns.keys() - dict(calls(self._file)).keys())

    def repeated(self) -> int:
        """How many have reached it more than once."""
        return sum(times > 1 for times in Counter(called for called, _ in calls(self._file)).values())


def _measured(services: Services, engine: str, seconds: float, rounds: int) -> tuple[Flow, list[Percentiles]]:
    """Windows one after the other, in nanoseconds, after one that warms the workers up."""
    catalogue, dsn = services.topics("dispatch"), services.database("dispatch")
    file = services.logs / f"{catalogue.prefix}calls"
    file.touch()
    more = {FILE: str(file), "PYTHONPATH": str(ROOT), f"{PREFIX}RUN_MODE": RunMode.PAPER.value}
    with ExitStack() as held:
        held.enter_context(services.empty_redis())
        workers = held.enter_context(services.workers("dispatch", catalogue, dsn, more))
        workers.start("approval", "work", "approval", "--engine", engine, "--group", f"{catalogue.prefix}approval")
        executor = ["--executor", "bench.noting_executor:NotingExecutor"]
        workers.start("dispatch", "work", "dispatch", "--group", f"{catalogue.prefix}dispatch", *executor)
        flow = Flow(held.enter_context(_producer(services, catalogue)), file)
        flow.wait_until_ready(workers)
        flow.window(WARM_UP_S)
        found = []
        for _ in range(rounds):
            flow.window(seconds)
            flow.wait_until_called(workers)
            found.append(flow.latency())
        return flow, found


def _wait(is_done: Callable[[], bool], workers: Workers, timeout_s: float) -> None:
    deadline = time.monotonic() + timeout_s
    while not is_done():
        workers.check()
        if time.monotonic() > deadline:
            raise BenchFailed(f"signals did not reach the executor within {timeout_s:.0f} s")
        time.sleep(STEP_S)


def _producer(services: Services, catalogue: Catalogue) -> Producer:
    return Producer(
        bootstrap_servers=services.bootstrap_servers,
        source="bench",
        run_mode=RunMode.PAPER,
        catalogue=catalogue,
        outbox_dir=services.outboxes,
    )
