"""What a replay reads: everything of its stretch once, in order, from where it stopped; what cannot be read is counted."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta

import pytest

from streams_rig import Tape, candle
from tradetape.schemas import CATALOGUE, Codec, times
from tradetape.sinks.errors import ReplayStopped
from tradetape.sinks.replay.plan import HISTORY, STDOUT, Place, Plan, Progress, Request
from tradetape.sinks.replay.reading import Chunk, Reading
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record
from tradetape.streams.topic_reader import TopicReader

START = datetime(2020, 1, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TOPIC = "tradetape.candles"


class Listed(TopicReader):
    """Reads from a list."""

    def __init__(self, records: list[Record]) -> None:
        self._records = records

    def read(self, starts: Mapping[Partition, int], ends: Mapping[Partition, int]) -> Iterator[Record]:
        for one in self._records:
            place = Partition(one.topic, one.partition)
            if starts[place] <= one.offset < ends[place]:
                yield one


def records(*minutes_of: tuple[str, int]) -> list[Record]:
    """Candles of these symbols and minutes, as they lie in one partition."""
    tape = Tape(CATALOGUE)
    return [tape.record(candle(START + minute * MINUTE, symbol=symbol)) for symbol, minute in minutes_of]


def minutes(chunk: Chunk) -> list[int]:
    codec = Codec(CATALOGUE)
    return [
        (codec.decode_fields(one.topic, one.value)["event_time"] - times.from_datetime(START)) // times.MINUTE_US
        for one in chunk.records
    ]


def plan(kind: str, on_tape: list[Record], start_minute: int | None = None, end_minute: int | None = None) -> Plan:
    start_us, end_us = (
        None if minute is None else times.from_datetime(START + minute * MINUTE)
        for minute in (start_minute, end_minute)
    )
    place = Place(TOPIC, "u", 0, begin=1, start=1, end=on_tape[-1].offset + 1)
    return Plan(Request(kind=kind, start_us=start_us, end_us=end_us), (place,))


def reading(asked: Plan, on_tape: list[Record], **more: object) -> Reading:
    return Reading(plan=asked, reader=Listed(on_tape), codec=Codec(CATALOGUE), chunk_records=3, **more)  # type: ignore[arg-type]


SIX = [("BTCUSDT", minute) for minute in (5, 1, 4, 2, 3, 6)]


def test_a_stretch_comes_with_its_start_and_without_its_end() -> None:
    on_tape = records(*SIX)
    asked = plan(HISTORY, on_tape, 2, 5)
    found = list(reading(asked, on_tape).chunks(Progress.none(asked)))
    assert [minute for chunk in found for minute in minutes(chunk)] == [4, 2, 3]


@pytest.mark.parametrize("kind", [HISTORY, STDOUT])
def test_going_on_after_any_chunk_gives_exactly_the_rest(kind: str) -> None:
    on_tape = records(*((symbol, minute) for minute in range(5) for symbol in ("S1USDT", "S2USDT", "S3USDT")))
    asked = plan(kind, on_tape)
    whole = list(reading(asked, on_tape).chunks(Progress.none(asked)))
    assert len(whole) >= 5
    for done in range(len(whole)):
        rest = list(reading(asked, on_tape).chunks(whole[done].progress))
        expected = [one for chunk in whole[done + 1 :] for one in chunk.records]
        assert [one for chunk in rest for one in chunk.records] == expected


def test_by_time_a_late_event_never_overtakes_an_earlier_one_of_its_key() -> None:
    on_tape = records(("S1USDT", 5), ("S1USDT", 1), ("S2USDT", 2), ("S1USDT", 7), ("S2USDT", 9))
    asked = plan(STDOUT, on_tape)
    found = [one for chunk in reading(asked, on_tape).chunks(Progress.none(asked)) for one in chunk.records]
    # The one of minute 1 is true at 1, but it was said after that of 5.
    assert [one.offset for one in found] == [3, 1, 2, 4, 5]


def test_what_cannot_be_decoded_is_counted_and_passed_over() -> None:
    on_tape = records(*SIX)
    spoilt = [*on_tape[:2], Record(TOPIC, 0, 3, None, b"rubbish", (), 0), *on_tape[3:]]
    asked = plan(HISTORY, spoilt)
    read = reading(asked, spoilt)
    found = [minute for chunk in read.chunks(Progress.none(asked)) for minute in minutes(chunk)]
    assert found == [5, 1, 2, 3, 6]
    assert read.undecodable.refused == {"bad_magic": 1}
    assert read.counts == {"read": 6, "kept": 5}


@pytest.mark.parametrize("kind", [HISTORY, STDOUT])
def test_asked_to_stop_it_does_not_pass_off_a_part_as_the_whole(kind: str) -> None:
    on_tape = records(*SIX)
    asked, stop = plan(kind, on_tape), threading.Event()
    chunks = reading(asked, on_tape, stop=stop).chunks(Progress.none(asked))
    next(chunks)
    stop.set()
    with pytest.raises(ReplayStopped):
        list(chunks)
