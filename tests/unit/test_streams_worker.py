"""How a worker process runs its engine."""

from __future__ import annotations

import gc
import signal
import threading
from collections.abc import Iterator

import pytest

from tradetape.streams.worker import EXIT_OK, run_worker


@pytest.fixture
def signals_as_before() -> Iterator[None]:
    numbers = (signal.SIGTERM, signal.SIGINT)
    before = {number: signal.getsignal(number) for number in numbers}
    yield
    gc.unfreeze()
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.usefixtures("signals_as_before")
def test_what_is_loaded_before_the_first_record_is_not_looked_through_again() -> None:
    loaded: list[dict[str, int]] = [{} for _ in range(1_000)]
    closed: list[bool] = []

    class Engine:
        def run(self, _: threading.Event) -> None:
            self.frozen = gc.get_freeze_count()
            self.collected = {id(one) for one in gc.get_objects()}

    engine = Engine()
    assert run_worker(engine, name="worker", close=lambda: closed.append(True)) == EXIT_OK
    assert engine.frozen > len(loaded)
    assert not engine.collected & {id(one) for one in loaded}
    assert closed == [True]
