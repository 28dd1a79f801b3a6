"""A replay into the history gives the rows that the live sink gave, fills what is missing, and touches nothing of the sink."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import psycopg
import pytest
from psycopg.rows import dict_row
from psycopg.sql import SQL, Identifier

from history_rig import HistoryRig
from replay_rig import ReplayRig
from tradetape.schemas import Candle, Event, IndicatorUpdate, MarketCondition

START = datetime(2017, 11, 30, 20, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
SYMBOLS = [f"S{number}USDT" for number in range(7)]
MINUTES = 600
"""Ten hours, over the end of a month."""


def candle(symbol: str, minute: int) -> Candle:
    opens = START + minute * MINUTE
    price = Decimal(minute + 1) / 8
    return Candle(
        venue="v", symbol=symbol, timeframe="1m", open_time=opens, close_time=opens + MINUTE, is_final=True,
        open=price, high=price + 1, low=price, close=price, volume=Decimal(3),
    )  # fmt: skip


def update(symbol: str, minute: int) -> IndicatorUpdate:
    return IndicatorUpdate(
        venue="v", symbol=symbol, timeframe="1m", bar_close_time=START + (minute + 1) * MINUTE,
        values={"rsi_14": minute / 10, "of_our_own": 1.5},
    )  # fmt: skip


def events() -> list[Event]:
    """One symbol after the other: time goes back on the tape."""
    found: list[Event] = []
    for symbol in SYMBOLS:
        for minute in range(MINUTES):
            found += [candle(symbol, minute), update(symbol, minute)]
    found.append(MarketCondition(venue="v", symbol="MARKET", scope="s", condition="calm", event_time=START))
    return found


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    rig = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)
    with rig.producer() as producer:
        for event in events():
            producer.emit(event)
    return rig


@pytest.fixture
def replay(rig: HistoryRig, kafka: str) -> ReplayRig:
    return ReplayRig(KAFKA_BOOTSTRAP_SERVERS=kafka, DATABASE_URL=rig.dsn, TRADETAPE_TOPIC_PREFIX=rig.catalogue.prefix)


def rows(rig: HistoryRig, schema: str, table: str) -> list[dict[str, object]]:
    with psycopg.connect(rig.dsn, row_factory=dict_row, options="-c timezone=UTC") as connection:
        statement = SQL("SELECT * FROM {} ORDER BY event_time, event_id").format(Identifier(schema, table))
        return connection.execute(statement).fetchall()


TABLES = ("candles", "indicator_updates", "market_conditions")


def test_a_replay_into_a_new_schema_equals_the_live_history_row_by_row(rig: HistoryRig, replay: ReplayRig) -> None:
    rig.store()
    done = replay.run("--into", "history", "--schema", "rebuilt", "--json")
    assert done.code == 0, done.err
    for table in TABLES:
        live = rows(rig, "tradetape", table)
        assert live
        assert rows(rig, "rebuilt", table) == live
    assert done.document["counts"]["stored"] == len(events())
    assert {one["table"]: one["same"] for one in done.document["differences"]}["candles"] == len(SYMBOLS) * MINUTES
    assert all(one["missing"] == one["extra"] == one["different"] == 0 for one in done.document["differences"])


def test_a_difference_is_counted_and_is_exit_code_4(rig: HistoryRig, replay: ReplayRig) -> None:
    rig.store()
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("DELETE FROM tradetape.candles WHERE symbol = 'S1USDT'")
        connection.execute("UPDATE tradetape.candles SET high = high + 1 WHERE symbol = 'S2USDT'")
        connection.execute(
            "INSERT INTO tradetape.market_conditions SELECT (jsonb_populate_record(m, jsonb_build_object("
            "'event_id', gen_random_uuid(), 'scope', 'of nowhere'))).* FROM tradetape.market_conditions m"
        )
    done = replay.run("--into", "history", "--schema", "rebuilt", "--json")
    assert done.code == 4, done.err
    found = {one["table"]: one for one in done.document["differences"]}
    assert found["candles"] == {
        "table": "candles", "same": 5 * MINUTES, "missing": 0, "extra": MINUTES, "different": MINUTES,
    }  # fmt: skip
    assert (found["market_conditions"]["missing"], found["market_conditions"]["same"]) == (1, 1)


def test_a_schema_that_is_there_is_not_written_to(rig: HistoryRig, replay: ReplayRig) -> None:
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("CREATE SCHEMA rebuilt")
    for schema, told in (("rebuilt", "already"), ("tradetape", "live schema"), ("Big; DROP", "no name of a schema")):
        for words in ([], ["--dry-run"]):
            done = replay.run("--into", "history", "--schema", schema, *words)
            assert (done.code, done.out) == (2, "")
            assert told in done.err
    # Nothing is in the book that could be resumed into it.
    assert rig.rows("SELECT 1 FROM tradetape.replay_runs") == []
    assert rig.rows("SELECT 1 FROM pg_class WHERE relnamespace = 'rebuilt'::regnamespace") == []


def test_gaps_are_filled_and_the_live_sinks_offsets_stay(rig: HistoryRig, replay: ReplayRig) -> None:
    rig.store()
    live = {table: rows(rig, "tradetape", table) for table in TABLES}
    offsets = rig.rows("SELECT * FROM tradetape.sink_offsets ORDER BY topic, partition")
    gap = "event_time >= '2017-11-30 22:00Z' AND event_time < '2017-12-01 01:00Z'"
    with psycopg.connect(rig.dsn) as connection:
        connection.execute(f"DELETE FROM tradetape.candles WHERE {gap}")  # noqa: S608
    in_gap = 3 * 60 * len(SYMBOLS)
    assert len(rows(rig, "tradetape", "candles")) == len(live["candles"]) - in_gap
    done = replay.run(
        "--from", "2017-11-30T22:00Z", "--to", "2017-12-01T01:00Z", "--into", "history", "--topics", "candles", "--json"
    )
    assert done.code == 0, done.err
    assert {table: rows(rig, "tradetape", table) for table in TABLES} == live
    assert done.document["counts"] == {
        "read": len(live["candles"]), "kept": in_gap, "outside": len(live["candles"]) - in_gap, "replayed": in_gap,
        "stored": in_gap,
    }  # fmt: skip
    again = replay.run("--into", "history", "--json")
    assert again.code == 0
    assert again.document["counts"]["repeated"] == len(events())
    assert "stored" not in again.document["counts"]
    assert rig.rows("SELECT * FROM tradetape.sink_offsets ORDER BY topic, partition") == offsets


def test_what_cannot_be_decoded_or_stored_is_counted_and_never_ends_it(
    rig: HistoryRig, replay: ReplayRig, market_condition: Callable[[str], bytes]
) -> None:
    topic = rig.catalogue.topic_name(rig.catalogue.by_record("MarketCondition"))
    rig.put(topic, [(b"v:MARKET", b"\x07rubbish"), (b"v:MARKET", None), (b"v:MARKET", market_condition("2099-01-01"))])
    with rig.producer() as producer:
        producer.emit(MarketCondition(venue="v", symbol="MARKET", scope="s", condition="b", event_time=START + MINUTE))
    done = replay.run("--into", "history", "--topics", "market-conditions", "--json")
    assert done.code == 4, done.err
    counts = done.document["counts"]
    assert counts["stored"] == 2
    assert {name: count for name, count in counts.items() if "." in name} == {
        "undecodable.bad_magic": 1, "undecodable.empty": 1, "refused.no_month": 1,
    }  # fmt: skip
    assert rig.tape(rig.catalogue.dead_letters_topic) == []


@pytest.fixture
def market_condition(rig: HistoryRig) -> Callable[[str], bytes]:
    """A market condition of a day, as a foreign producer might write it."""
    event_type = rig.catalogue.by_record("MarketCondition")
    (whole,) = rig.tape(rig.catalogue.topic_name(event_type))

    def made(day: str) -> bytes:
        at = datetime.fromisoformat(day).replace(tzinfo=UTC)
        return rig.frame(event_type, {**rig.plain(whole), "event_time": int(at.timestamp()) * 1_000_000})

    return made


def test_a_dry_run_counts_and_writes_nothing_anywhere(rig: HistoryRig, replay: ReplayRig) -> None:
    before = rig.ends(*(one.name for one in rig.catalogue.topics()))
    for words in (["history"], ["history", "--schema", "rebuilt"], ["topics:elsewhere."], ["stdout"]):
        done = replay.run("--dry-run", "--json", "--speed", "1x", "--into", *words)
        assert done.code == 0, done.err
        counts = done.document["counts"]
        assert counts["would_write"] == len(events())
        assert counts[f"would_write.{rig.catalogue.prefix}candles"] == len(SYMBOLS) * MINUTES
    for table in (*TABLES, "replay_runs"):
        assert rig.rows(f"SELECT * FROM tradetape.{table}") == []  # noqa: S608
    assert rig.rows("SELECT 1 FROM pg_namespace WHERE nspname = 'rebuilt'") == []
    assert rig.ends(*(one.name for one in rig.catalogue.topics())) == before
    assert not replay.topics("elsewhere.")


def test_a_run_is_in_the_book_with_what_was_asked_and_how_it_ended(rig: HistoryRig, replay: ReplayRig) -> None:
    done = replay.run("--into", "history", "--from", "2017-12-01T00:00Z", "--topics", "candles", "--json")
    assert done.code == 0
    (run,) = replay.run("--list", "--json").document
    assert (run["run_id"], run["outcome"], run["target"]) == (done.document["run"], "DONE", "history")
    assert run["topics"] == [f"{rig.catalogue.prefix}candles"]
    assert run["range_start"].startswith("2017-12-01T00:00:00")
    assert run["counts"] == done.document["counts"]
    again = replay.run("--resume", run["run_id"])
    assert (again.code, "nothing to resume" in again.err) == (2, True)
