"""The time of each market and its bars: what a listener wants it is told, and again only from where it asks for."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from datetime import timedelta

import pytest

from dispatch_rig import NOON, bar
from topics_rig import TopicsRig
from tradetape.schemas import Candle, Codec, times
from tradetape.schemas.names import record_key
from tradetape.sinks.dispatch.market_time import Bar, MarketTime
from tradetape.streams.topic_reader import TopicReader
from waiting import eventually


class Ear:
    """Wants the bars of one market, or of none."""

    def __init__(self) -> None:
        self.market: bytes | None = None
        self.hold = threading.Event()
        self.hold.set()
        self.is_told = threading.Event()
        self.closed: list[int] = []
        """The minutes after noon at which the bars closed that it was told of."""

    def wants(self, key: bytes) -> bool:
        return key == self.market

    def on_bar(self, heard: Bar) -> None:
        assert heard.candle.event_time
        self.is_told.set()
        assert self.hold.wait(30)
        self.closed.append((heard.candle.event_time - NOON) // timedelta(minutes=1))


@pytest.fixture
def rig(kafka: str, topic_prefix: str) -> TopicsRig:
    return TopicsRig(kafka, topic_prefix)


@pytest.fixture
def ear() -> Ear:
    return Ear()


@pytest.fixture
def market(rig: TopicsRig, ear: Ear) -> Iterator[MarketTime]:
    reader = TopicReader(rig.kafka)
    market = MarketTime(
        kafka=rig.kafka, codec=Codec(rig.catalogue), reader=reader, now_us=lambda: time.time_ns() // 1_000
    )
    market.listen(ear)
    market.take([0, 1, 2, 3])
    yield market
    market.close()
    reader.close()


def partition_of(rig: TopicsRig, market: Candle) -> int:
    topic = rig.catalogue.topic_name(rig.catalogue.by_class(Candle))
    reader = TopicReader(rig.kafka)
    try:
        ends = reader.ends(reader.partitions([topic]))
        records = reader.read(dict.fromkeys(ends, 0), ends)
        (found,) = {record.partition for record in records if record.key == record_key(market.venue, market.symbol)}
        return found
    finally:
        reader.close()


def reached(rig: TopicsRig, market: MarketTime, minutes: range) -> Candle:
    """Emit these bars and wait until the market's time is theirs; the last of them."""
    bars = [bar(minute) for minute in minutes]
    (*_, last) = rig.emit(bars)
    assert isinstance(last, Candle)
    assert last.event_time
    closed_us = times.from_datetime(last.event_time)
    eventually("the time has come", lambda: market.time_us(last.venue, last.symbol) == closed_us)
    return last


def test_a_market_nobody_wants_tells_its_time_and_no_bars(rig: TopicsRig, market: MarketTime, ear: Ear) -> None:
    last = reached(rig, market, range(50))
    assert ear.closed == []
    ear.market = record_key(last.venue, last.symbol)
    reached(rig, market, range(50, 60))
    assert ear.closed == list(range(51, 61))


def test_bars_that_have_gone_by_are_told_from_where_the_time_was(rig: TopicsRig, market: MarketTime, ear: Ear) -> None:
    reached(rig, market, range(100))
    then_us = times.from_datetime(NOON + timedelta(minutes=100))
    last = reached(rig, market, range(100, 150))
    number = partition_of(rig, last)
    ear.market = record_key(last.venue, last.symbol)
    market.tell_from(number, ear.market, then_us, lambda: None)
    eventually("they are told", lambda: ear.closed[-1:] == [150])
    assert ear.closed == list(range(101, 151))


def test_who_comes_while_bars_are_told_hears_none_before_the_first_that_it_asks_for(
    rig: TopicsRig, market: MarketTime, ear: Ear
) -> None:
    first = reached(rig, market, range(10))
    number, ear.market = partition_of(rig, first), record_key(first.venue, first.symbol)
    ear.hold.clear()
    rig.emit([bar(minute) for minute in range(10, 50)])
    eventually("the next bar is being told", lambda: ear.is_told.is_set())
    ready_at: list[int] = []
    then_us = times.from_datetime(NOON + timedelta(minutes=5))
    market.tell_from(number, ear.market, then_us, lambda: ready_at.append(len(ear.closed)))
    ear.hold.set()
    eventually("they are told", lambda: ready_at != [] and 50 in ear.closed[ready_at[0] :])
    assert next(one for one in ear.closed[ready_at[0] :] if one > 5) == 6


def test_where_it_is_not_known_where_the_time_was_all_of_the_day_is_told_again(
    rig: TopicsRig, market: MarketTime, ear: Ear
) -> None:
    last = reached(rig, market, range(100))
    ear.market = record_key(last.venue, last.symbol)
    before_us = times.from_datetime(NOON - timedelta(minutes=1))
    market.tell_from(partition_of(rig, last), ear.market, before_us, lambda: None)
    eventually("they are told", lambda: len(ear.closed) == 100)
    assert ear.closed == list(range(1, 101))
