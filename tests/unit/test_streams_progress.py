"""Alive means moving, or waiting with a turning loop for something that is named; ready means at work (I14)."""

from __future__ import annotations

import pytest

from tradetape.streams.processor import Partition
from tradetape.streams.progress import Progress
from tradetape.streams.record import Record

PLACE = Partition("candles", 0)
RECORD = Record("candles", 0, 7, None, b"", (), 0)


class Clock:
    def __init__(self) -> None:
        self.now = 1_000.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def progress(clock: Clock) -> Progress:
    made = Progress(clock=clock, stuck_after_s=60)
    made.assigned([PLACE])
    return made


def test_a_loop_that_does_not_turn_is_not_alive(progress: Progress, clock: Clock) -> None:
    clock.now += 60
    assert progress.trouble() is None
    clock.now += 1
    assert "the loop has not turned for 61 s" in (progress.trouble() or "")
    progress.polled()
    assert progress.trouble() is None


def test_lag_without_movement_is_not_alive_and_idleness_without_lag_is(progress: Progress, clock: Clock) -> None:
    progress.behind({PLACE: 0})
    clock.now += 3_600
    progress.polled()
    assert progress.trouble() is None
    progress.behind({PLACE: 0})
    progress.behind({PLACE: 3})
    clock.now += 61
    progress.polled()
    assert progress.trouble() == "3 records wait and none was processed for 61 s"
    progress.moved([RECORD])
    assert progress.trouble() is None


def test_a_named_wait_is_alive_but_not_ready_until_the_work_goes_on(progress: Progress, clock: Clock) -> None:
    progress.behind({PLACE: 3})
    progress.waits("Redis: connection refused")
    clock.now += 600
    progress.polled()
    assert progress.trouble() is None
    assert progress.unready() == "waits: Redis: connection refused"
    progress.moved([RECORD])
    assert progress.unready() is None
    progress.waits("Kafka")
    progress.goes_on()
    assert progress.unready() is None


def test_a_worker_without_partitions_is_not_ready() -> None:
    progress = Progress()
    assert progress.unready() == "no partitions are assigned yet"
    progress.assigned([PLACE])
    assert progress.unready() is None
    progress.assigned([])
    assert progress.unready() == "no partitions are assigned yet"


def test_records_are_counted_by_topic_and_given_up_partitions_have_no_lag(progress: Progress) -> None:
    progress.moved([RECORD, RECORD])
    assert progress.processed == {"candles": 2}
    assert progress.last_event_age_s > 1_000_000_000, "the record is of 1970"
    progress.behind({PLACE: 3})
    progress.assigned([Partition("candles", 1)])
    assert progress.lag == {Partition("candles", 1): 0}
