"""A repeat of an event is one row and one more on a counter, never a second row and never a dead letter."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from history_rig import HistoryRig
from tradetape.producers import Producer
from tradetape.schemas import Candle, IndicatorUpdate, MarketCondition
from tradetape.streams.dead_letters import MemoryDeadLetters

START = datetime(2025, 6, 1, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def emit_candles(tape: Producer, minutes: range) -> int:
    for minute in minutes:
        opened = START + timedelta(minutes=minute)
        for symbol in SYMBOLS:
            tape.emit(
                Candle(
                    venue="binance", symbol=symbol, timeframe="1m", open_time=opened,
                    close_time=opened + timedelta(minutes=1), open=1, high=2, low=1, close=2, volume=3, is_final=True,
                )
            )  # fmt: skip
    return len(minutes) * len(SYMBOLS)


def test_an_event_emitted_twice_is_stored_once(rig: HistoryRig) -> None:
    """The second run of a producer repeats half of the first run's events, in the same batch for the sink."""
    with rig.producer() as tape:
        emit_candles(tape, range(50))
    with rig.producer() as tape:
        emit_candles(tape, range(25, 75))

    letters = MemoryDeadLetters()
    sink = rig.store(rig.sink(dead_letters=letters))

    assert letters.letters == []
    assert sink.counts == {"stored": 75 * len(SYMBOLS), "repeated": 25 * len(SYMBOLS), "skipped": 0}
    assert rig.assert_every_event_once() == 75 * len(SYMBOLS)


def test_an_event_that_is_stored_already_is_counted_as_repeated(rig: HistoryRig) -> None:
    with rig.producer() as tape:
        emit_candles(tape, range(10))
    rig.store()
    first = rig.places_in_history()
    with rig.producer() as tape:
        emit_candles(tape, range(5, 15))

    letters = MemoryDeadLetters()
    sink = rig.store(rig.sink(dead_letters=letters))

    assert letters.letters == []
    assert (sink.counts["stored"], sink.counts["repeated"]) == (5 * len(SYMBOLS), 5 * len(SYMBOLS))
    assert rig.assert_every_event_once() == 15 * len(SYMBOLS)
    assert first.items() <= rig.places_in_history().items(), "a repeat must not replace what is stored"


def test_repeats_in_one_table_do_not_touch_the_rows_of_another(rig: HistoryRig) -> None:
    """A batch holds several tables; a repeat in one sends all of them through staging."""
    with rig.producer() as tape:
        for _ in range(3):
            emit_candles(tape, range(5))
        for minute in range(20):
            at = START + timedelta(minutes=minute)
            tape.emit(MarketCondition(venue="v", symbol="MARKET", scope="market", condition="calm", event_time=at))
            tape.emit(
                IndicatorUpdate(venue="v", symbol="BTCUSDT", timeframe="1m", bar_close_time=at, values={"rsi_14": 50.0})
            )

    sink = rig.store()

    assert sink.counts["repeated"] == 2 * 5 * len(SYMBOLS)
    assert rig.assert_every_event_once() == 5 * len(SYMBOLS) + 20 + 20


def test_a_tape_that_is_read_again_from_the_beginning_changes_nothing(rig: HistoryRig) -> None:
    with rig.producer() as tape:
        count = emit_candles(tape, range(30))
    rig.store()
    first = rig.places_in_history()
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("DELETE FROM tradetape.sink_offsets")

    letters = MemoryDeadLetters()
    sink = rig.store(rig.sink(dead_letters=letters))

    assert (sink.counts["stored"], sink.counts["repeated"], letters.letters) == (0, count, [])
    assert rig.places_in_history() == first


def test_events_of_one_id_at_two_times_are_two_rows(rig: HistoryRig) -> None:
    """The key is (event_time, event_id): a bar in progress has its own id for each of its updates."""
    opened = START
    with rig.producer() as tape:
        for second in (10, 20, 60):
            is_final = second == 60
            tape.emit(
                Candle(
                    venue="binance", symbol="BTCUSDT", timeframe="1m", open_time=opened,
                    close_time=opened + timedelta(minutes=1), event_time=opened + timedelta(seconds=second),
                    open=1, high=2, low=1, close=2, volume=second, is_final=is_final,
                )
            )  # fmt: skip
    rig.store()
    rows = rig.rows("SELECT volume, is_final FROM tradetape.candles ORDER BY event_time")
    assert [(int(row["volume"]), row["is_final"]) for row in rows] == [(10, False), (20, False), (60, True)]
