"""The bounded queue of market updates, beside a model that keeps everything in one list."""

from __future__ import annotations

from collections import Counter

from hypothesis import given
from hypothesis import strategies as st

from tradetape.producers.newest_wins import RECORD_OVERHEAD_BYTES, NewestWins, Update

MANY_BYTES = 10**9


def update(number: int, series: str = "a", size: int = 10) -> Update:
    return Update("topic", (series,), f"{series}{number}", b"key", bytes(size), number)


def queue(*, max_events: int = 3, max_bytes: int = MANY_BYTES) -> NewestWins:
    return NewestWins(max_events=max_events, max_bytes=max_bytes)


def drained(buffer: NewestWins) -> list[str]:
    return [buffer.pop_first().event_id for _ in range(len(buffer))]


def test_below_its_bound_it_is_first_in_first_out() -> None:
    buffer = queue()
    assert [buffer.put(update(number)) for number in range(3)] == [[], [], []]
    assert drained(buffer) == ["a0", "a1", "a2"]
    assert buffer.first() is None


def test_past_its_bound_an_update_with_a_successor_makes_room_before_one_without() -> None:
    buffer = queue()
    buffer.put(update(0, "quiet"))
    buffer.put(update(0, "busy"))
    buffer.put(update(1, "busy"))
    assert [one.event_id for one in buffer.put(update(2, "busy"))] == ["busy0"]
    assert drained(buffer) == ["quiet0", "busy1", "busy2"]


def test_one_of_the_same_series_makes_room_before_another_series_loses_its_newest() -> None:
    buffer = queue()
    for series in ("a", "b", "c"):
        buffer.put(update(0, series))
    assert [one.event_id for one in buffer.put(update(1, "b"))] == ["b0"]
    assert drained(buffer) == ["a0", "c0", "b1"]


def test_the_same_series_on_another_topic_is_another_one() -> None:
    buffer = queue(max_events=2)
    buffer.put(Update("candles", ("a",), "candle0", b"key", bytes(10), 0))
    buffer.put(update(0))
    assert [one.event_id for one in buffer.put(update(1))] == ["a0"]
    assert drained(buffer) == ["candle0", "a1"]


def test_with_more_series_than_room_the_oldest_goes() -> None:
    buffer = queue()
    for series in ("a", "b", "c"):
        buffer.put(update(0, series))
    assert [one.event_id for one in buffer.put(update(0, "d"))] == ["a0"]


def test_its_bytes_are_bounded_too() -> None:
    each = RECORD_OVERHEAD_BYTES + 1_000
    buffer = queue(max_events=1_000, max_bytes=2 * each)
    dropped = [one.event_id for number in range(5) for one in buffer.put(update(number, size=1_000))]
    assert dropped == ["a0", "a1", "a2"]
    assert buffer.bytes == 2 * each
    assert not buffer.has_room_for(update(9))


@given(
    st.integers(1, 8),
    st.lists(st.one_of(st.sampled_from("abcdefghij"), st.none()), max_size=200),
)
def test_nothing_vanishes_and_the_newest_of_a_series_outlives_its_older_ones(
    max_events: int, steps: list[str | None]
) -> None:
    buffer = queue(max_events=max_events)
    counts: Counter[str] = Counter()
    put, gone, dropped = list[str](), list[str](), list[str]()
    for series in steps:
        if series is None:
            if len(buffer):
                gone.append(buffer.pop_first().event_id)
            continue
        counts[series] += 1
        one = update(counts[series], series)
        put.append(one.event_id)
        dropped += [other.event_id for other in buffer.put(one)]
        assert len(buffer) <= max_events
    waiting = drained(buffer)
    assert sorted(put) == sorted(gone + dropped + waiting)
    assert [one for one in put if one in gone] == gone, "what went, went in order"
    assert [one for one in put if one in waiting] == waiting
    assert buffer.bytes == 0
    if len(counts) <= max_events:
        newest = {f"{series}{count}" for series, count in counts.items()}
        assert not newest & set(dropped), "there was room for the newest of each"
