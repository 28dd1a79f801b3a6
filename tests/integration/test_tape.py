"""Reading the tape: what was emitted comes back, in the order that was asked for, up to an end that was fixed beforehand."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from topics_rig import TopicsRig
from tradetape.schemas import Candle, MarketCondition
from tradetape.streams import Tape
from tradetape.streams.errors import TopicMissing

START = datetime(2026, 3, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SYMBOLS = [f"S{number}USDT" for number in range(9)]


def candle(symbol: str, minute: int, *, is_final: bool = True) -> Candle:
    opens = START + minute * MINUTE
    price = Decimal(minute + 1)
    return Candle(
        venue="v", symbol=symbol, timeframe="1m", open_time=opens, close_time=opens + MINUTE, is_final=is_final,
        event_time=None if is_final else opens + MINUTE / 2,
        open=price, high=price, low=price, close=price, volume=Decimal(1),
    )  # fmt: skip


@pytest.fixture
def rig(kafka: str, topic_prefix: str) -> TopicsRig:
    return TopicsRig(kafka, topic_prefix)


@pytest.fixture
def tape(rig: TopicsRig) -> Iterator[Tape]:
    with Tape(kafka=rig.kafka, catalogue=rig.catalogue, run_bytes=10_000) as tape:
        yield tape


def test_a_stretch_comes_by_time_over_all_partitions_with_its_start_and_without_its_end(
    rig: TopicsRig, tape: Tape
) -> None:
    # One symbol after the other: in the order of emission, time goes back nine times.
    rig.emit(candle(symbol, minute) for symbol in SYMBOLS for minute in range(60))
    found = list(tape.read(Candle, START + 10 * MINUTE, START + 50 * MINUTE))
    expected = [START + minute * MINUTE for minute in range(10, 50) for _ in SYMBOLS]
    assert [one.event_time for one in found] == expected
    assert {(one.symbol, one.event_time) for one in found} == {
        (symbol, START + minute * MINUTE) for symbol in SYMBOLS for minute in range(10, 50)
    }


def test_events_come_back_as_they_were_stamped(rig: TopicsRig, tape: Tape) -> None:
    stamped = rig.emit([candle("BTCUSDT", 1), candle("BTCUSDT", 2)])
    assert list(tape.read(Candle)) == stamped
    assert list(tape.read(Candle, order="tape")) == stamped


def test_a_repeat_comes_once_in_the_order_of_time_and_as_often_as_it_is_stored_in_the_order_of_the_tape(
    rig: TopicsRig, tape: Tape
) -> None:
    for _ in range(3):
        rig.emit([candle("BTCUSDT", 1), candle("ETHUSDT", 1)])
    assert sorted(one.symbol for one in tape.read(Candle)) == ["BTCUSDT", "ETHUSDT"]
    assert len(list(tape.read(Candle, order="tape"))) == 6


def test_bars_in_progress_come_only_to_who_asks_for_them(rig: TopicsRig, tape: Tape) -> None:
    rig.emit([candle("BTCUSDT", 1, is_final=False), candle("BTCUSDT", 1)])
    assert [one.is_final for one in tape.read(Candle)] == [True]
    assert [one.is_final for one in tape.read(Candle, in_progress=True)] == [False, True]


def test_what_cannot_be_decoded_is_passed_over_and_counted(rig: TopicsRig, tape: Tape) -> None:
    topic = rig.catalogue.topic_name(rig.catalogue.by_record("Candle"))
    rig.emit([candle("BTCUSDT", 1)])
    rig.put(topic, b"\x07rubbish")
    rig.put(topic, None)
    assert len(list(tape.read(Candle))) == 1
    assert tape.undecodable == {"bad_magic": 1, "empty": 1}


def test_a_read_ends_where_the_tape_ended_when_it_began(rig: TopicsRig, tape: Tape) -> None:
    rig.emit([candle("BTCUSDT", minute) for minute in range(5)])
    reading = tape.read(Candle)
    rig.emit([candle("BTCUSDT", minute) for minute in range(5, 9)])
    assert len(list(reading)) == 5


def test_an_event_of_tomorrow_is_found_although_it_was_emitted_today(rig: TopicsRig, tape: Tape) -> None:
    tomorrow = datetime.now(UTC) + timedelta(hours=23)
    rig.emit([MarketCondition(venue="v", symbol="MARKET", scope="s", condition="due", event_time=tomorrow)])
    assert len(list(tape.read(MarketCondition, tomorrow - MINUTE))) == 1


def test_following_gives_what_comes_until_it_is_stopped(rig: TopicsRig, tape: Tape) -> None:
    rig.emit([candle("BTCUSDT", 0)])
    stop, found = threading.Event(), []
    arrived = threading.Semaphore(0)

    def follow() -> None:
        for event in tape.read(Candle, order="tape", follow=True, stop=stop):
            found.append(event.event_time)
            arrived.release()

    thread = threading.Thread(target=follow)
    thread.start()
    try:
        assert arrived.acquire(timeout=30)
        rig.emit([candle("BTCUSDT", 1)])
        assert arrived.acquire(timeout=30)
    finally:
        stop.set()
        thread.join(timeout=30)
    assert not thread.is_alive()
    assert found == [START + MINUTE, START + 2 * MINUTE]


def test_a_topic_that_is_not_there_says_how_to_make_it(rig: TopicsRig) -> None:
    tape = Tape(kafka=rig.kafka, catalogue=rig.catalogue.with_prefix("nowhere."))
    with tape, pytest.raises(TopicMissing, match=r"nowhere\.candles.*tradetape topics apply"):
        tape.read(Candle)


def test_naive_times_and_an_order_that_cannot_be_are_refused(tape: Tape) -> None:
    with pytest.raises(ValueError, match="aware"):
        tape.read(Candle, datetime(2026, 1, 1))  # noqa: DTZ001
    with pytest.raises(ValueError, match='order="tape"'):
        tape.read(Candle, follow=True)
