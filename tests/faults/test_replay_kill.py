"""A replay that is killed or interrupted in the middle goes on where it stopped, and comes to the same rows."""

from __future__ import annotations

import signal
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest

from history_rig import HistoryRig
from replay_rig import ReplayRig
from tradetape.schemas import Candle, MarketCondition
from tradetape.sinks.replay import reading
from waiting import eventually

START = datetime(2021, 5, 1, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
COUNT = 30_000
SYMBOLS = 20


def candles() -> list[Candle]:
    found = []
    for number in range(COUNT):
        minute, symbol = divmod(number, SYMBOLS)
        opens, price = START + minute * MINUTE, Decimal(number + 1)
        found.append(
            Candle(
                venue="v", symbol=f"S{symbol}USDT", timeframe="1m", open_time=opens, close_time=opens + MINUTE,
                is_final=True, open=price, high=price, low=price, close=price, volume=Decimal(1),
            )
        )  # fmt: skip
    return found


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


@pytest.fixture
def replay(rig: HistoryRig, kafka: str) -> ReplayRig:
    return ReplayRig(KAFKA_BOOTSTRAP_SERVERS=kafka, DATABASE_URL=rig.dsn, TRADETAPE_TOPIC_PREFIX=rig.catalogue.prefix)


def stored(rig: HistoryRig) -> int:
    (row,) = rig.rows("SELECT count(*) AS n FROM tradetape.candles")
    return int(row["n"])


def test_killed_in_the_middle_a_replay_into_the_history_is_resumed_to_the_same_rows(
    rig: HistoryRig, replay: ReplayRig
) -> None:
    with rig.producer() as producer:
        for one in candles():
            producer.emit(one)
    running = replay.started("--into", "history", "--topics", "candles")
    try:
        eventually("a part is stored", lambda: stored(rig) > 0 or running.poll() is not None)
    finally:
        running.send_signal(signal.SIGKILL)
        running.communicate(timeout=60)
    before = stored(rig)
    assert 0 < before < COUNT, "the kill came too late to show anything"

    (run,) = replay.run("--list", "--json").document
    assert (run["outcome"], run["finished_at"]) == ("INTERRUPTED", None)
    (noted,) = rig.rows("SELECT progress -> 'next_offsets' AS nexts FROM tradetape.replay_runs")
    done = replay.run("--resume", run["run_id"], "--json")
    assert done.code == 0, done.err

    assert rig.assert_every_event_once(is_settled=False) == COUNT
    counts = done.document["counts"]
    assert counts["read"] <= COUNT + reading.CHUNK_RECORDS
    # One chunk at most was stored and not noted: it is found there again.
    assert counts.get("repeated", 0) <= reading.CHUNK_RECORDS
    assert sum(noted["nexts"]) >= before - reading.CHUNK_RECORDS
    (run,) = replay.run("--list", "--json").document
    assert run["outcome"] == "DONE"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_interrupted_by_a_signal_a_run_says_how_to_go_on_and_does(
    number: signal.Signals, code: int, rig: HistoryRig, replay: ReplayRig
) -> None:
    conditions = [
        MarketCondition(venue="v", symbol="MARKET", scope="s", condition="c", event_time=START + days * timedelta(1))
        for days in range(100)
    ]
    with rig.producer() as producer:
        for one in conditions:
            producer.emit(one)
    # At this pace, a day in a second, it would take 99 seconds.
    running = replay.started("--into", "history", "--speed", "86400x")

    def rows() -> int:
        return int(rig.rows("SELECT count(*) AS n FROM tradetape.market_conditions")[0]["n"])

    try:
        eventually("the first ones are stored", lambda: rows() >= 2 or running.poll() is not None)
    finally:
        running.send_signal(number)
        _, told = running.communicate(timeout=60)
    assert running.returncode == code, told
    before = rows()
    assert before < len(conditions)
    (run,) = replay.run("--list", "--json").document
    assert run["outcome"] == "INTERRUPTED"
    assert f"tradetape replay --resume {run['run_id']}" in told

    # Its pace is part of what was asked for: here it is told to hurry, by the hand of the test.
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("UPDATE tradetape.replay_runs SET plan = jsonb_set(plan, '{request,speed}', '1e9')")
    done = replay.run("--resume", run["run_id"], "--json")
    assert done.code == 0, done.err
    assert rows() == len(conditions)
    assert done.document["counts"]["replayed"] == done.document["counts"]["stored"] == len(conditions)


def test_a_session_that_is_ended_under_it_costs_a_replay_nothing(rig: HistoryRig, replay: ReplayRig) -> None:
    days = 6
    with rig.producer() as producer:
        for day in range(days):
            producer.emit(
                MarketCondition(
                    venue="v", symbol="MARKET", scope="s", condition="c", event_time=START + day * timedelta(1)
                )
            )
    ended = (
        "SELECT pg_terminate_backend(pid) AS ended FROM pg_stat_activity WHERE application_name = 'tradetape-replay'"
    )
    running = replay.started("--into", "history", "--speed", "86400x")
    try:
        eventually("a session is ended", lambda: bool(rig.rows(ended)) or running.poll() is not None)
    finally:
        _, told = running.communicate(timeout=60)
    assert running.returncode == 0, told
    assert rig.assert_every_event_once(is_settled=False) == days


def test_a_run_that_goes_on_is_not_resumed_by_a_second_process(rig: HistoryRig, replay: ReplayRig) -> None:
    with rig.producer() as producer:
        for days in (0, 1, 400):
            producer.emit(
                MarketCondition(
                    venue="v", symbol="MARKET", scope="s", condition="c", event_time=START + days * timedelta(1)
                )
            )
    running = replay.started("--into", "history", "--speed", "86400x")
    try:
        eventually("it is in the book", lambda: bool(rig.rows("SELECT 1 FROM tradetape.replay_runs")))
        (run,) = replay.run("--list", "--json").document
        assert run["outcome"] == "RUNNING"
        second = replay.run("--resume", run["run_id"])
        assert (second.code, "another process" in second.err) == (2, True)
    finally:
        running.terminate()
        running.communicate(timeout=60)
