"""An offset moves only behind what is done, and lanes run side by side, each in its order, within their bound."""

from __future__ import annotations

import random
import threading
from collections import defaultdict

from hypothesis import given
from hypothesis import strategies as st

from dispatch_rig import trade
from tradetape.sinks.dispatch.executor import Order
from tradetape.sinks.dispatch.job import Job
from tradetape.sinks.dispatch.lanes import Lanes
from tradetape.sinks.dispatch.offset_window import OffsetWindow
from waiting import eventually


def job(number: int, symbol: str, *, partition: int = 0) -> Job:
    """An order as a lane takes it."""
    return Job(Order(trade=trade(number, symbol=symbol), leg_index=0, partition=partition, value=b""), offset=number)


@given(st.lists(st.integers(0, 3), min_size=1, max_size=20), st.integers())
def test_an_offset_is_passed_only_when_all_parts_of_it_and_of_those_before_it_are_done(
    parts: list[int], seed: int
) -> None:
    window = OffsetWindow(10)
    for number, count in enumerate(parts):
        window.accept(10 + 2 * number, parts=count)
    todo = [10 + 2 * number for number, count in enumerate(parts) for _ in range(count)]
    random.Random(seed).shuffle(todo)
    while todo:
        assert window.end == min(todo)
        window.done(todo.pop())
    assert window.end == window.accepted == 10 + 2 * (len(parts) - 1) + 1


def test_jobs_keep_their_order_within_a_lane_and_no_more_run_at_once_than_may() -> None:
    done: dict[str, list[int]] = defaultdict(list)
    running, most, lock = [0], [0], threading.Lock()

    def work(one: Job) -> None:
        with lock:
            running[0] += 1
            most[0] = max(most[0], running[0])
        done[one.lane].append(one.offset)
        with lock:
            running[0] -= 1

    lanes = Lanes(work=work, parallel=3)
    for number in range(200):
        lanes.put(job(number, f"COIN{number % 10}"))
    eventually("all are done", lambda: lanes.in_flight() == 0)
    lanes.close()
    assert done == {f"v:COIN{lane}": list(range(lane, 200, 10)) for lane in range(10)}
    assert most[0] <= 3


def test_a_lane_that_hangs_takes_one_thread_and_that_the_bound_was_reached_is_counted() -> None:
    gate = threading.Event()
    done: list[str] = []

    def work(one: Job) -> None:
        if one.lane.startswith("v:SLOW"):
            gate.wait(30)
        done.append(one.lane)

    lanes = Lanes(work=work, parallel=2)
    for number, symbol in enumerate(("SLOW1", "FAST", "FAST")):
        lanes.put(job(number, symbol))
    eventually("the other lane goes on", lambda: done == ["v:FAST", "v:FAST"])
    assert lanes.reached == 0
    lanes.put(job(3, "SLOW2"))
    lanes.put(job(4, "FAST"))
    eventually("a lane waits for a thread", lambda: lanes.reached == 1)
    gate.set()
    eventually("all are done", lambda: lanes.in_flight() == 0)
    lanes.close()


def test_dropping_a_partition_forgets_what_has_not_begun_and_waits_for_what_has() -> None:
    begun, gate, done = threading.Event(), threading.Event(), []

    def work(one: Job) -> None:
        begun.set()
        gate.wait(30)
        done.append((one.lane, one.offset, one.dropped.is_set()))

    lanes = Lanes(work=work, parallel=4)
    for number in range(3):
        lanes.put(job(number, "A"))
    assert begun.wait(30)
    assert not lanes.drop({0}, 0.01)
    gate.set()
    assert lanes.drop({0}, 30)
    eventually("nothing is left", lambda: lanes.in_flight() == 0)
    lanes.close()
    assert done == [("v:A", 0, True)]
