"""The sides of the contract that need no broker: ticks, offset keepers, and the engine of tests and backtests."""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable, Mapping, Sequence

import pytest

from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.engines.memory import MemoryEngine
from tradetape.streams.errors import ProcessorBroken, Transient
from tradetape.streams.processor import Partition, keeper, tick
from tradetape.streams.record import Record


class Plain:
    """A processor that remembers offsets and times."""

    name = "plain"
    topics: tuple[str, ...] = ("candles",)

    def __init__(self) -> None:
        self.offsets: list[int] = []

    def process(self, batch: Sequence[Record]) -> None:
        self.offsets += [record.offset for record in batch]


class Ticked(Plain):
    def __init__(self, *failures: Exception) -> None:
        super().__init__()
        self.times: list[int] = []
        self._failures = list(failures)

    def tick(self, now_us: int) -> None:
        self.times.append(now_us)
        if self._failures:
            raise self._failures.pop(0)


class Keeping(Plain):
    def __init__(self, starts: Mapping[Partition, int | None]) -> None:
        super().__init__()
        self._starts = starts

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        return {one: self._starts.get(one) for one in partitions}

    def released(self, partitions: Iterable[Partition]) -> None:
        """Nothing to give up."""


def records(count: int, *, topic: str = "candles") -> list[Record]:
    return [Record(topic, 0, offset, None, b"", (), 0) for offset in range(count)]


def engine(processor: Plain, given: Sequence[Record], *, max_batch_records: int = 3) -> MemoryEngine:
    return MemoryEngine(
        processor=processor, dead_letters=MemoryDeadLetters(), records=given,
        max_batch_records=max_batch_records, now_us=lambda: 42,
    )  # fmt: skip


def test_a_tick_that_fails_for_now_is_logged_and_comes_again(caplog: pytest.LogCaptureFixture) -> None:
    ticked = Ticked(Transient("Redis is away"))
    with caplog.at_level(logging.WARNING):
        tick(ticked, 1)
        tick(ticked, 2)
    assert ticked.times == [1, 2]
    assert caplog.text.count("Redis is away") == 1


def test_a_tick_that_breaks_ends_the_worker() -> None:
    with pytest.raises(ZeroDivisionError):
        tick(Ticked(ZeroDivisionError()), 1)


def test_who_does_not_tick_is_left_alone() -> None:
    tick(Plain(), 1)


def test_half_an_offset_keeper_is_refused() -> None:
    class Half(Plain):
        def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
            return {}

    whole = Keeping({})
    assert keeper(Plain()) is None
    assert keeper(whole) is whole
    with pytest.raises(ProcessorBroken, match="assigned"):
        keeper(Half())


def test_in_memory_the_clock_is_the_tests_and_it_ticks_behind_each_batch() -> None:
    ticked = Ticked()
    engine(ticked, records(7)).run()
    assert ticked.times == [42, 42, 42]


def test_in_memory_an_offset_keeper_says_where_to_start() -> None:
    keeping = Keeping({Partition("candles", 0): 4})
    engine(keeping, records(7)).run()
    assert keeping.offsets == [4, 5, 6]
    fresh = Keeping({})
    engine(fresh, records(3)).run()
    assert fresh.offsets == [0, 1, 2]


def test_in_memory_records_of_other_topics_are_passed_over() -> None:
    plain = Plain()
    engine(plain, [*records(2), *records(5, topic="trades")]).run()
    assert plain.offsets == [0, 1]


def test_in_memory_a_dependency_that_stays_away_ends_the_run_in_the_end() -> None:
    class Away(Plain):
        calls = 0

        def process(self, batch: Sequence[Record]) -> None:
            self.calls += 1
            raise Transient("away")

    away = Away()
    with pytest.raises(Transient):
        MemoryEngine(processor=away, dead_letters=MemoryDeadLetters(), records=records(1), max_attempts=3).run()
    assert away.calls == 3


def test_in_memory_a_stop_is_heard_between_batches() -> None:
    stop = threading.Event()

    class Stopping(Plain):
        def process(self, batch: Sequence[Record]) -> None:
            super().process(batch)
            stop.set()

    stopping = Stopping()
    running = engine(stopping, records(7))
    running.run(stop)
    assert stopping.offsets == [0, 1, 2]
    assert running.committed == {Partition("candles", 0): 3}
