"""An indicator gets a column of its own while a sink writes: every value is there once, before, meanwhile and after."""

from __future__ import annotations

import struct
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import psycopg
import pytest

from console_rig import run_command
from history_rig import HistoryRig, login_of
from tradetape.schemas import IndicatorUpdate
from tradetape.sinks.errors import PromotionRefused
from tradetape.sinks.history import promotion
from tradetape.sinks.history.connection import connect
from tradetape.streams.dead_letters import MemoryDeadLetters
from waiting import eventually

START = datetime(2025, 5, 31, 23, 0, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
AWKWARD = (0.1 + 0.2, 1e22, 5e-324, -1.7976931348623157e308, 1 / 3, 123456789.123456789)


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> HistoryRig:
    monkeypatch.setenv("DATABASE_URL", postgres)
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def update(number: int, value: float) -> IndicatorUpdate:
    """Two in three have the indicator, and half of these another one that stays in `extra`."""
    values = {"rsi_14": 50.0, **({"rsi_21": value} if number % 3 else {}), **({"mine": 1.5} if number % 2 else {})}
    at = START + timedelta(seconds=number)
    return IndicatorUpdate(venue="v", symbol=SYMBOLS[number % 3], timeframe="1s", bar_close_time=at, values=values)


class Load:
    """Emits until it is ended; `given` is what was given, by event id."""

    def __init__(self, rig: HistoryRig) -> None:
        self.given: dict[str, float | None] = {}
        self._rig = rig
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        with self._rig.producer() as tape:
            number = 0
            while not self._over.wait(0.01):
                for _ in range(20):
                    number += 1
                    value = AWKWARD[number % len(AWKWARD)] + (number if number % 5 == 0 else 0)
                    stamped = tape.emit(update(number, value))
                    self.given[str(stamped.event_id)] = stamped.values.get("rsi_21")

    def end(self) -> None:
        self._over.set()
        self._thread.join()


@pytest.fixture
def load(rig: HistoryRig) -> Iterator[Load]:
    load = Load(rig)
    yield load
    load.end()


def bits(value: float | None) -> bytes | None:
    """A double to its last bit."""
    return None if value is None else struct.pack(">d", value)


def assert_each_value_once(rig: HistoryRig, given: dict[str, float | None]) -> None:
    """Every update has its value in the column, and none has it in `extra`; what else is in `extra` stays."""
    rows = rig.rows("SELECT event_id::text, rsi_21, extra, producer_seq FROM tradetape.indicator_updates")
    assert {row["event_id"]: bits(row["rsi_21"]) for row in rows} == {key: bits(value) for key, value in given.items()}
    assert all(row["extra"] in (None, {"mine": 1.5}) for row in rows)
    assert sum(row["extra"] is not None for row in rows) == len(rows) // 2 + (len(rows) % 2)


def test_a_promotion_while_a_sink_writes_loses_and_doubles_nothing(
    rig: HistoryRig, load: Load, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(promotion, "BATCH_ROWS", 37)
    letters = MemoryDeadLetters()
    sink = rig.sink(dead_letters=letters)
    with rig.working(sink, max_batch_records=100) as engine:
        eventually("the sink writes", lambda: sink.counts["stored"] > 500)
        assert run_command("history", "promote-indicator", "rsi_21") == 0
        reached = sink.counts["stored"]
        eventually("the sink goes on", lambda: sink.counts["stored"] > reached + 500 or engine.failure is not None)
        load.end()
        ends = rig.ends()
        eventually("the sink catches up", lambda: rig.has_come_to(ends) or engine.failure is not None)

    assert letters.letters == []
    assert_each_value_once(rig, load.given)


def test_a_sink_whose_session_could_not_be_ended_is_put_right_by_a_second_run(rig: HistoryRig) -> None:
    """The old shape goes on into `extra`; the view shows every value all the time, and nothing is lost."""
    given: dict[str, float | None] = {}
    sink = rig.sink()
    with rig.working(sink), rig.producer() as tape, connect(rig.dsn, application="test") as connection:

        def emit(numbers: range) -> None:
            for number in numbers:
                stamped = tape.emit(update(number, number + 0.5))
                given[str(stamped.event_id)] = stamped.values.get("rsi_21")
            eventually("the sink has stored them", lambda: sink.counts["stored"] == len(given))

        emit(range(1, 31))
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(promotion, "_renew_sinks", lambda _: False)
            assert promotion.promote(connection, "rsi_21") == (True, 20, True)
        emit(range(31, 61))
        in_extra = rig.rows("SELECT count(*) AS rows FROM tradetape.indicator_updates WHERE extra ? 'rsi_21'")
        assert in_extra == [{"rows": 20}], "the sink has the old shape still"
        shown = rig.rows(
            "SELECT event_id::text, tradetape.indicator_values(u) ->> 'rsi_21' AS value FROM tradetape.indicator_updates u"
        )
        assert {row["event_id"]: row["value"] and float(row["value"]) for row in shown} == given

        assert promotion.promote(connection, "rsi_21") == (False, 20, False)
        emit(range(61, 91))

    assert_each_value_once(rig, given)
    assert rig.rows("SELECT col_description('tradetape.indicator_updates'::regclass, attnum) AS said FROM pg_attribute "
                    "WHERE attrelid = 'tradetape.indicator_updates'::regclass AND attname = 'rsi_21'")[0]["said"]  # fmt: skip


def test_the_latest_indicators_show_it_from_either_place(rig: HistoryRig) -> None:
    with rig.producer() as tape:
        tape.emit(update(1, 7.25))
    rig.store()
    values = 'SELECT "values" FROM tradetape.latest_indicators'
    before = rig.rows(values)
    assert before == [{"values": {"rsi_14": 50, "rsi_21": 7.25, "mine": 1.5}}]
    assert run_command("history", "promote-indicator", "rsi_21") == 0
    assert rig.rows(values) == before


@pytest.mark.parametrize(
    ("name", "problem"),
    [
        ("rsi-21", "no indicator's name"),
        ('x"; DROP TABLE y', "no indicator's name"),
        ("venue", "holds no indicator"),
        ("close", "holds no indicator"),
        ("rsi_22", "no stored update has rsi_22"),
    ],
)
def test_what_cannot_be_an_indicators_column_is_refused(rig: HistoryRig, name: str, problem: str) -> None:
    with rig.producer() as tape:
        tape.emit(update(1, 1.0))
    rig.store()
    with pytest.raises(PromotionRefused, match=problem):
        run_command("history", "promote-indicator", name)


def test_a_long_query_leaves_the_table_as_it_was(rig: HistoryRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(promotion, "ATTEMPTS", 2)
    with rig.producer() as tape:
        tape.emit(update(1, 1.0))
    rig.store()
    with psycopg.connect(login_of(rig.dsn, "tradetape_reader")) as reader:
        reader.execute("SELECT count(*) FROM tradetape.indicator_updates")
        with pytest.raises(Exception, match="in use by a long query"):
            run_command("history", "promote-indicator", "rsi_21")
    assert "rsi_21" not in rig.rows("SELECT * FROM tradetape.indicator_updates")[0]
