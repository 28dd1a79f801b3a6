"""The run is as fast as its speed says, and never faster."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tradetape.console.demo.pace import Pace


class Watch:
    """A clock that only sleeping moves."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def test_a_minute_of_the_market_takes_a_minute_divided_by_the_speed() -> None:
    watch = Watch()
    pace = Pace(120.0, clock=watch, sleep=watch.sleep)
    for index in range(4):
        pace.await_close(index)
    assert watch.now == pytest.approx(100.0 + 4 * 0.5)
    assert pace.takes(4) == timedelta(seconds=2)


def test_who_is_late_does_not_wait() -> None:
    watch = Watch()
    pace = Pace(60.0, clock=watch, sleep=watch.sleep)
    pace.await_close(0)
    watch.now += 10
    pace.await_close(1)
    assert watch.slept == [1.0]


def test_without_a_speed_nothing_waits() -> None:
    watch = Watch()
    pace = Pace(None, clock=watch, sleep=watch.sleep)
    for index in range(1000):
        pace.await_close(index)
    assert watch.slept == []
    assert pace.takes(1000) == timedelta(0)
