"""The proof of the demo finds each single event that is missing, doubled, foreign or unreadable, and names it."""

from __future__ import annotations

import struct
from datetime import timedelta

import pytest

from tradetape.console.demo.bars import read_sample
from tradetape.console.demo.bot import SOURCE, Bot
from tradetape.console.demo.reconciliation import RecordLine, reconcile_record
from tradetape.console.demo.topic_content import Place, TopicContent, contents_of, dead_letter_places
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import CATALOGUE, Candle, Codec, Event, RunMode
from tradetape.schemas.names import record_key
from tradetape.schemas.stamping import Stamper
from tradetape.streams.dead_letters import headers_of
from tradetape.streams.record import Record

CANDLES = "tradetape.candles"
RUBBISH = b"\x01rubbish"
PARTITION = 2


@pytest.fixture
def candles() -> list[Candle]:
    return candles_of("demo7")


def candles_of(venue: str, count: int = 5) -> list[Candle]:
    tape = RecordingProducer(source=SOURCE)
    bot = Bot(tape=tape, venue=venue)
    for minute in read_sample("ETHUSDT")[:count]:
        bot.on_minute(minute)
    return tape.of(Candle)


def on_tape(events: list[Candle]) -> list[Record]:
    """The records of a topic that holds these events in this order."""
    return [record_of(event, offset) for offset, event in enumerate(events)]


def record_of(event: Event, offset: int) -> Record:
    stamper = Stamper(codec=Codec(CATALOGUE), source=SOURCE, run_mode=RunMode.PAPER)
    event_type, _, payload, _ = stamper.stamp(event)
    key = record_key(event.venue, event.symbol)
    topic = CATALOGUE.topic_name(event_type)
    return Record(topic, PARTITION, offset, key, payload, (), 0)


def rubbish(offset: int, key: bytes | None = b"demo7:ETHUSDT") -> Record:
    return Record(CANDLES, PARTITION, offset, key, RUBBISH, (), 0)


def content(records: list[Record], venue: str = "demo7") -> TopicContent:
    found = contents_of(Codec(CATALOGUE), venue)[CANDLES]
    for record in records:
        found.add(record)
    return found


def reconciled(
    candles: list[Candle],
    *,
    tape: list[Record] | None = None,
    expected: list[Candle] | None = None,
    rows: list[Candle] | None = None,
    dead: set[Place] | None = None,
) -> RecordLine:
    return reconcile_record(
        content(on_tape(candles) if tape is None else tape),
        expected=ids(candles if expected is None else expected),
        rows=ids(candles if rows is None else rows),
        dead_letters=dead or set(),
    )


def ids(events: list[Candle]) -> list[str]:
    return [str(event.event_id) for event in events]


def test_what_agrees_has_no_difference(candles: list[Candle]) -> None:
    line = reconciled(candles)
    assert (line.expected, line.on_topic, line.undecodable, line.in_postgres, line.dead_letters) == (5, 5, 0, 5, 0)
    assert (line.difference, line.faults) == (0, ())


def test_a_missing_row_is_found_and_named(candles: list[Candle]) -> None:
    line = reconciled(candles, rows=candles[1:])
    assert line.difference == 1
    (fault,) = line.faults
    assert str(candles[0].event_id) in fault
    assert "neither in table candles nor a dead letter" in fault


def test_an_extra_row_is_found(candles: list[Candle]) -> None:
    extra = candles_of("demo8", 1)
    line = reconciled(candles, rows=candles + extra)
    assert line.difference == 1
    assert str(extra[0].event_id) in line.faults[0]


def test_a_lost_row_is_not_cancelled_out_by_another_one(candles: list[Candle]) -> None:
    line = reconciled(candles, rows=candles[1:] + candles_of("demo8", 1))
    assert line.in_postgres == line.on_topic
    assert line.difference == 2


def test_a_row_that_stands_twice_is_found(candles: list[Candle]) -> None:
    line = reconciled(candles, rows=[*candles, candles[0]])
    assert line.difference == 1
    assert "more than once" in line.faults[0]


def test_an_event_that_never_reached_the_topic_is_found(candles: list[Candle]) -> None:
    line = reconciled(candles, tape=on_tape(candles[:-1]), rows=candles[:-1])
    assert line.difference == 1
    assert "expected, but not on tradetape.candles" in line.faults[0]


def test_an_event_that_nobody_expected_is_found(candles: list[Candle]) -> None:
    line = reconciled(candles, expected=candles[:-1])
    assert "but not expected" in line.faults[0]


def test_an_event_that_was_sent_twice_counts_once(candles: list[Candle]) -> None:
    line = reconciled(candles, tape=[*on_tape(candles), record_of(candles[0], 5)])
    assert (line.on_topic, line.difference) == (5, 0)


def test_an_undecodable_record_must_be_a_dead_letter(candles: list[Candle]) -> None:
    tape = [*on_tape(candles), rubbish(5)]
    line = reconciled(candles, tape=tape)
    assert (line.undecodable, line.difference) == (1, 1)
    assert "tradetape.candles[2]@5" in line.faults[0]
    line = reconciled(candles, tape=tape, dead={Place(PARTITION, 5)})
    assert (line.undecodable, line.dead_letters, line.difference) == (1, 1, 0)


def test_a_dead_letter_stands_for_the_event_it_holds(candles: list[Candle]) -> None:
    dead = {Place(PARTITION, 0)}
    assert reconciled(candles, rows=candles[1:], dead=dead).difference == 0
    assert reconciled(candles, rows=candles, dead=dead).difference == 1


def test_a_dead_letter_of_a_repeat_leaves_the_first_one_its_row(candles: list[Candle]) -> None:
    line = reconciled(candles, tape=[*on_tape(candles), record_of(candles[0], 5)], dead={Place(PARTITION, 5)})
    assert line.difference == 0


def test_a_dead_letter_of_a_record_that_is_not_there_is_found(candles: list[Candle]) -> None:
    line = reconciled(candles, dead={Place(0, 99)})
    assert "tradetape.candles[0]@99" in line.faults[0]


def test_many_faults_are_counted_and_the_first_named(candles: list[Candle]) -> None:
    line = reconciled(candles, rows=[])
    assert line.difference == 5
    assert "and 2 more" in line.faults[0]


def test_another_runs_events_are_passed_over(candles: list[Candle]) -> None:
    others = on_tape(candles_of("demo70"))
    found = content([*on_tape(candles), *others, rubbish(9, b"demo70:ETHUSDT"), rubbish(10, None)])
    assert found.ids == set(ids(candles))
    assert not found.unreadable


def test_the_newest_of_a_series_goes_by_event_time_then_offset(candles: list[Candle]) -> None:
    found = content(on_tape(list(reversed(candles))))
    (newest,) = found.newest.values()
    assert newest.fields["event_id"] == candles[-1].event_id
    again = content([*on_tape(candles), record_of(candles[-1], 9), record_of(candles[0], 10)])
    (newest,) = again.newest.values()
    assert newest.place == Place(PARTITION, 9)


def test_unfinished_candles_are_a_series_of_their_own(candles: list[Candle]) -> None:
    last = candles[-1]
    open_one = Candle(
        venue=last.venue, symbol=last.symbol, timeframe=last.timeframe, is_final=False,
        event_time=last.close_time - timedelta(seconds=10), open_time=last.open_time, close_time=last.close_time,
        open=last.open, high=last.high, low=last.low, close=last.close, volume=last.volume,
    )  # fmt: skip
    assert len(content([*on_tape(candles), record_of(open_one, 9)]).newest) == 2


def test_dead_letters_count_once_for_each_worker_and_place() -> None:
    def letter(worker: str, record: Record) -> Record:
        headers = headers_of(record, "bad_magic", ValueError("bad"), stage="VALUE_CONVERTER", worker=worker)
        return Record("tradetape.dead-letters", 0, 0, record.key, record.value, tuple(headers), 0)

    letters = [
        letter("history", rubbish(5)),
        letter("history", rubbish(5)),
        letter("state", rubbish(6)),
        letter("history", rubbish(7, b"demo70:ETHUSDT")),
    ]
    assert dead_letter_places(letters, worker="history", venue="demo7") == {CANDLES: {Place(PARTITION, 5)}}


def test_a_record_that_was_a_dead_letter_before_counts_at_its_new_place() -> None:
    first = rubbish(5)
    old = headers_of(first, "bad_magic", ValueError("bad"), stage="VALUE_CONVERTER", worker="state")
    redriven = rubbish(8)
    new = headers_of(redriven, "bad_magic", ValueError("bad"), stage="VALUE_CONVERTER", worker="history")
    letter = Record("tradetape.dead-letters", 0, 0, first.key, first.value, (*old, *new), 0)
    assert dead_letter_places([letter], worker="history", venue="demo7") == {CANDLES: {Place(PARTITION, 8)}}


def test_a_foreign_schema_id_is_undecodable(candles: list[Candle]) -> None:
    record = on_tape(candles)[0]
    assert record.value
    other = struct.pack(">bI", 0, CATALOGUE.by_record("Fill").schema_id) + record.value[5:]
    found = content([Record(CANDLES, PARTITION, 0, record.key, other, (), 0)])
    assert found.unreadable == {Place(PARTITION, 0): "foreign_schema_id"}
