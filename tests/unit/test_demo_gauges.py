"""The live view's numbers: rates over the last moments, a run that stands still is given up, latencies are medians."""

from __future__ import annotations

import threading
import time
from contextlib import closing
from datetime import UTC, datetime
from typing import cast

import pytest

from scripted_broker import COMMITTED, LEADERLESS, LED, TOPIC, scripted_broker
from tradetape.console.demo import group_offsets
from tradetape.console.demo.gauges import STALL_TIMEOUT_S, Rate, Snapshot, Stall, WorkerGauge
from tradetape.console.demo.group_offsets import GroupOffsets
from tradetape.console.demo.probes import Probe
from tradetape.console.errors import DemoFailed
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import Event, MarketCondition
from tradetape.streams.processor import Partition
from waiting import eventually


class Clock:
    def __init__(self) -> None:
        self.now = 50.0

    def __call__(self) -> float:
        return self.now


def snapshot(emitted: int = 10, lag: int = 5, coming: dict[str, int] | None = None) -> Snapshot:
    gauge = WorkerGauge(lag=lag, per_second=1.0)
    return Snapshot(
        minutes=1, of_minutes=2, emitted=emitted, emitted_per_second=0.0, workers={"history": gauge}, latencies_s={},
        coming=coming,
    )  # fmt: skip


def test_a_rate_looks_at_the_last_three_seconds_only() -> None:
    clock = Clock()
    rate = Rate(clock)
    assert rate.add(0) == 0.0
    for count in (1_000, 2_000, 3_000):
        clock.now += 1
        assert rate.add(count) == 1_000.0
    clock.now += 3
    assert rate.add(3_000) == 0.0


def test_a_run_that_moves_is_not_given_up_and_one_that_stands_still_is() -> None:
    clock = Clock()
    stall = Stall(clock)
    for lag in range(5):
        clock.now += STALL_TIMEOUT_S
        stall.look(snapshot(lag=lag))
    clock.now += STALL_TIMEOUT_S
    stall.look(snapshot(lag=4))
    clock.now += 1
    with pytest.raises(DemoFailed, match="history 4"):
        stall.look(snapshot(lag=4))


def test_what_follows_later_is_movement_too_and_is_named_when_it_stands_still() -> None:
    clock = Clock()
    stall = Stall(clock)
    for count in (3, 2, 2):
        stall.look(snapshot(lag=0, coming={"fills": count}))
        clock.now += STALL_TIMEOUT_S + 1 - count
    with pytest.raises(DemoFailed, match="still to come: 2 fills"):
        stall.look(snapshot(lag=0, coming={"fills": 2}))


def test_a_group_without_its_coordinator_is_where_it_was_last_heard_to_be(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_offsets, "QUESTION_TIMEOUT_S", 0.5)
    partitions = [Partition(TOPIC, LED), Partition(TOPIC, LEADERLESS)]
    with (
        scripted_broker() as broker,
        closing(GroupOffsets(KafkaSettings(bootstrap_servers=broker.address), "history")) as offsets,
    ):
        broker.coordinates = False
        assert offsets.committed(partitions) == dict.fromkeys(partitions, 0)
        broker.coordinates = True
        eventually("the group is found", lambda: offsets.committed(partitions) == dict.fromkeys(partitions, COMMITTED))
        broker.coordinates = False
        assert offsets.committed(partitions) == dict.fromkeys(partitions, COMMITTED)


def test_a_probe_measures_from_emission_until_the_event_is_there() -> None:
    asked: list[Event] = []
    emitted_at = datetime.now(UTC)
    event = MarketCondition(
        venue="v", symbol="MARKET", scope="s", condition="c", event_time=emitted_at, emitted_at=emitted_at
    )
    done = threading.Event()

    def is_there(one: Event) -> bool:
        asked.append(one)
        if len(asked) >= 3:
            done.set()
        return len(asked) >= 3

    probe = Probe(name="x", pick=lambda: event, is_there=is_there, ask_interval_s=0.001)
    assert probe.median_s() is None
    probe.start()
    assert done.wait(30)
    deadline = time.monotonic() + 30
    while probe.median_s() is None and time.monotonic() < deadline:
        time.sleep(0.001)
    probe.stop()
    measured = cast(float, probe.median_s())
    assert 0 < measured <= (datetime.now(UTC) - emitted_at).total_seconds()
    assert asked == [event] * 3


def test_a_probe_that_cannot_ask_gives_up_and_keeps_why() -> None:
    def fail(_: Event) -> bool:
        raise OSError("gone")

    event = MarketCondition(venue="v", symbol="MARKET", scope="s", condition="c")
    probe = Probe(name="x", pick=lambda: event, is_there=fail, ask_interval_s=0.001)
    probe.start()
    deadline = time.monotonic() + 30
    while probe.failure is None and time.monotonic() < deadline:
        time.sleep(0.001)
    probe.stop()
    assert str(probe.failure) == "gone"
    assert probe.median_s() is None
