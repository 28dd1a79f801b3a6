"""One topic's way out of the outbox: what follows from what the client reports."""

from __future__ import annotations

import pytest

from tradetape.producers.outbox.lane import HOLD_FIRST_S, HOLD_LONGEST_S, Failure, Lane, Settled
from tradetape.producers.outbox.store import Stored

UNKNOWN_TOPIC = Failure("UNKNOWN_TOPIC_OR_PART", "Broker: Unknown topic or partition")
TOO_LARGE = Failure("MSG_SIZE_TOO_LARGE", "Broker: Message size too large")
PURGED = Failure("_PURGE_INFLIGHT", "Local: Purged in flight")


def stored(number: int) -> Stored:
    return Stored(number, f"id{number}", b"k", b"p", 0, is_input=False)


def round_of(lane: Lane, numbers: range, failures: dict[int, Failure] | None = None, *, now_s: float = 0.0) -> Settled:
    """Send a round and report all of it, the last first: reports of different partitions come in any order."""
    records = [stored(number) for number in numbers]
    for record in records:
        lane.sent(record)
    assert lane.settle(now_s) is None, "the round is not over"
    for record in reversed(records):
        lane.reported(record, (failures or {}).get(record.number))
    settled = lane.settle(now_s)
    assert settled is not None
    return settled


def test_what_arrived_is_settled_once_and_the_next_round_may_go() -> None:
    lane = Lane("t")
    assert lane.may_send(0)
    lane.sent(stored(1))
    assert lane.is_busy
    assert not lane.may_send(0), "rounds do not overlap"
    lane.reported(stored(1), None)
    assert lane.settle(0) == Settled([stored(1)], [], is_whole=True)
    assert lane.settle(0) is None
    assert lane.may_send(0)


def test_a_topic_that_refuses_holds_the_lane_longer_each_time() -> None:
    lane = Lane("t")
    now_s, waits = 0.0, []
    for _ in range(8):
        round_of(lane, range(1, 4), dict.fromkeys(range(1, 4), UNKNOWN_TOPIC), now_s=now_s)
        assert lane.held_by == UNKNOWN_TOPIC.text
        wait = next(step / 2 for step in range(1_000) if lane.may_send(now_s + step / 2))
        waits.append(wait)
        now_s += wait
    assert waits[:3] == [HOLD_FIRST_S, 2 * HOLD_FIRST_S, 4 * HOLD_FIRST_S]
    assert waits[-1] == HOLD_LONGEST_S
    round_of(lane, range(1, 4), now_s=now_s)
    assert lane.held_by is None
    assert lane.may_send(now_s)


def test_a_refused_batch_is_tried_record_by_record_until_past_the_last_one_refused() -> None:
    lane = Lane("t")
    settled = round_of(lane, range(1, 6), {2: TOO_LARGE, 3: TOO_LARGE})
    assert [one.number for one in settled.arrived] == [5, 4, 1]
    assert not settled.is_whole
    assert settled.refused == [], "the batch was refused, not yet the record"
    assert lane.held_by is None
    waiting = [stored(2), stored(3), stored(6)]
    assert lane.round_of(waiting) == [stored(2)]
    alone = round_of(lane, range(2, 3), {2: TOO_LARGE})
    assert alone.refused == [(stored(2), TOO_LARGE)]
    assert lane.round_of([stored(3), stored(6)]) == [stored(3)]
    assert round_of(lane, range(3, 4)) == Settled([stored(3)], [], is_whole=True), "its neighbour was innocent"
    assert lane.round_of([stored(6), stored(7)]) == [stored(6), stored(7)]


@pytest.mark.parametrize("failures", [{1: PURGED, 2: PURGED}, {2: PURGED}])
def test_what_we_gave_up_ourselves_holds_and_parks_nothing(failures: dict[int, Failure]) -> None:
    lane = Lane("t")
    settled = round_of(lane, range(1, 3), failures)
    assert settled.refused == []
    assert not settled.is_whole
    assert lane.held_by is None
    assert lane.may_send(0)
    assert lane.round_of([stored(2), stored(3)]) == [stored(2), stored(3)]
