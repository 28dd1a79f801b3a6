"""The demo as a newcomer runs it: it succeeds twice, its counts are those of the services themselves, and it notices a loss."""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Callable, Iterator
from decimal import ROUND_DOWN, Decimal
from importlib.resources import files
from pathlib import Path
from typing import Any, LiteralString

import psutil
import psycopg
import pytest
import redis
from confluent_kafka import OFFSET_BEGINNING, Consumer, TopicPartition

from tradetape.console.local.stack import LocalStack
from waiting import eventually

pytestmark = pytest.mark.local

TRADETAPE = Path(sys.executable).with_name("tradetape")
TABLES = {
    "Candle": "candles",
    "IndicatorUpdate": "indicator_updates",
    "MarketCondition": "market_conditions",
    "TradeSignal": "trade_signals",
    "SignalDecision": "signal_decisions",
    "Trade": "trades",
    "TradeDispatch": "trade_dispatches",
    "Fill": "fills",
    "TradeClosed": "closed_trades",
}
TOPICS = {
    "Candle": "tradetape.candles",
    "IndicatorUpdate": "tradetape.indicator-updates",
    "MarketCondition": "tradetape.market-conditions",
    "TradeSignal": "tradetape.trade-signals",
    "SignalDecision": "tradetape.signal-decisions",
    "Trade": "tradetape.trades",
    "TradeDispatch": "tradetape.trade-dispatches",
    "Fill": "tradetape.fills",
    "TradeClosed": "tradetape.trades-closed",
}
WORKERS = ("state", "history", "approval", "dispatch", "positions")
MINUTES = 4_320
HOURS = 71
"""Whole hours, on the hour, in the sample's three days; 72 when the shift puts the first minute on the hour."""


def demo(home: Path, *words: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "TRADETAPE_HOME": str(home)}
    command = [str(TRADETAPE), "demo", "--symbols", "1", "--speed", "max", "--json", *words]
    return subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240, check=False)


@pytest.fixture(scope="module")
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tradetape-demo-") as folder:
        try:
            yield Path(folder)
        finally:
            LocalStack(Path(folder)).down(wipe=True)


@pytest.fixture(scope="module")
def first(home: Path) -> dict[str, Any]:
    """What the first run says, in a home that nobody has used."""
    found = demo(home)
    assert found.returncode == 0, found.stderr
    outcome: dict[str, Any] = json.loads(found.stdout)
    return outcome


@pytest.fixture(scope="module")
def environment(home: Path, first: dict[str, Any]) -> dict[str, str]:
    """The services are left running."""
    assert first["venue"] == "demo1"
    return LocalStack(home).environment()


def lines(outcome: dict[str, Any]) -> dict[str, dict[str, Any]]:
    return {one["record"]: one for one in outcome["proof"]["records"]}


def sample() -> list[dict[str, str]]:
    """The minutes of BTCUSDT as they are shipped."""
    packed = (files("tradetape.console.demo") / "sample" / "BTCUSDT_1m.csv.gz").read_bytes()
    return list(csv.DictReader(io.StringIO(gzip.decompress(packed).decode())))


def keys_on_topic(bootstrap_servers: str, topic: str) -> Counter[bytes | None]:
    """How many different records of each key a plain client finds; what a signal rested on may be there twice."""
    consumer = Consumer({"bootstrap.servers": bootstrap_servers, "group.id": "by-hand", "enable.partition.eof": True})
    partitions = consumer.list_topics(topic, timeout=15).topics[topic].partitions
    consumer.assign([TopicPartition(topic, number, OFFSET_BEGINNING) for number in partitions])
    found: set[tuple[bytes | None, bytes | None]] = set()
    at_end = 0
    while at_end < len(partitions):
        message = consumer.poll(15)
        assert message is not None
        if message.error() is not None:
            at_end += 1
        else:
            found.add((message.key(), message.value()))
    consumer.close()
    return Counter(key for key, _ in found)


def test_the_table_says_what_kafka_and_postgresql_say_when_asked_by_hand(
    first: dict[str, Any], environment: dict[str, str]
) -> None:
    assert set(lines(first)) == set(TABLES)
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        for record, line in lines(first).items():
            query = f"SELECT count(*), count(DISTINCT event_id) FROM tradetape.{TABLES[record]} WHERE venue = 'demo1'"  # noqa: S608
            assert connection.execute(query.encode()).fetchone() == (line["expected"], line["expected"]), record
            on_topic = keys_on_topic(environment["KAFKA_BOOTSTRAP_SERVERS"], TOPICS[record])
            assert on_topic[b"demo1:BTCUSDT"] == line["expected"] == line["on_topic"] == line["in_postgres"]
    assert lines(first)["Candle"]["expected"] - MINUTES in (HOURS, HOURS + 1)


def test_every_signal_goes_all_the_way_to_a_closed_trade(first: dict[str, Any]) -> None:
    count = {record: line["expected"] for record, line in lines(first).items()}
    assert count["TradeSignal"] == count["SignalDecision"] == count["Trade"] == count["Fill"]
    assert count["TradeDispatch"] == 2 * count["Trade"]
    trading = first["proof"]["trading"]
    assert trading["positions"] == trading["closed"] == count["TradeClosed"] == count["Trade"] // 2 > 3


def test_the_profit_is_what_the_prices_of_the_sample_give(first: dict[str, Any], environment: dict[str, str]) -> None:
    """A market order takes the open of the minute after its signal, and pays a thousandth of what it moves."""
    opens = {row["open_time_ms"]: Decimal(row["open"]) for row in sample()}
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        ((first_ms,),) = connection.execute(
            "SELECT extract(epoch FROM min(open_time)) * 1000 FROM tradetape.candles WHERE venue = 'demo1'"
        ).fetchall()
        signals = connection.execute(
            "SELECT action, extract(epoch FROM event_time) * 1000, amount_quote FROM tradetape.trade_signals "
            "WHERE venue = 'demo1' ORDER BY event_time"
        ).fetchall()
    shift_ms, pnl = int(first_ms) - int(sample()[0]["open_time_ms"]), Decimal(0)
    for entry, leaving in zip(signals[::2], signals[1::2], strict=True):
        bought, sold = (opens[str(int(one[1]) - shift_ms)] for one in (entry, leaving))
        quantity = (entry[2] / bought).quantize(Decimal("1e-8"), ROUND_DOWN)
        pnl += quantity * (sold - bought) - quantity * (sold + bought) / 1000
    assert Decimal(first["proof"]["trading"]["pnl_quote"]) == pnl


def test_every_key_in_redis_expires_and_every_hash_is_compact(
    first: dict[str, Any], environment: dict[str, str]
) -> None:
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        keys = client.keys("*")
        hashes = [key for key in keys if client.type(key) == b"hash"]
        assert all(client.ttl(key) > 0 for key in keys)
        # Approval's memory is no projection: it holds every symbol of an account in one hash.
        projections = [key for key in hashes if not key.startswith(b"tradetape:1:approval:")]
        assert {client.object("encoding", key) for key in projections} <= {b"listpack", b"ziplist"}
        assert b"tradetape:1:indicators:{demo1:BTCUSDT}:1h" in hashes
    state = first["proof"]["state"]
    assert (state["without_expiry"], state["not_compact"], state["difference"]) == (0, 0, 0)
    assert state["equal"] + state["expired"] == state["series"] > 0


def test_prices_in_postgresql_are_the_sample_text_as_decimals(environment: dict[str, str]) -> None:
    expected = [tuple(Decimal(row[name]) for name in ("open", "high", "low", "close", "volume")) for row in sample()]
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        found = connection.execute(
            "SELECT open, high, low, close, volume FROM tradetape.candles "
            "WHERE venue = 'demo1' AND symbol = 'BTCUSDT' AND timeframe = '1m' ORDER BY open_time"
        ).fetchall()
    assert found == expected


def test_the_newest_closed_trade_is_walked_back_to_its_candles_by_ids(
    first: dict[str, Any], environment: dict[str, str]
) -> None:
    steps = first["proof"]["journal"]
    assert [step["action"] for step in steps] == ["ENTER", "EXIT"]
    with psycopg.connect(environment["DATABASE_URL"]) as connection:

        def one(query: LiteralString, event_id: str) -> Any:
            (found,) = connection.execute(query, [event_id]).fetchall()
            return found[0]

        for step in steps:
            cause = "SELECT causation_id FROM tradetape.trade_signals WHERE event_id = %s"
            assert one(cause, step["signal_id"]) == step["update_id"]
            behind = "SELECT candle_event_id FROM tradetape.indicator_updates WHERE event_id = %s"
            assert one(behind, step["update_id"]) == step["candle_id"]
            signal = "SELECT signal_id FROM tradetape.signal_decisions WHERE event_id = %s"
            assert one(signal, step["decision_id"]) == step["signal_id"]
            trade = "SELECT trade_id FROM tradetape.trade_dispatches WHERE event_id = %s"
            assert one(trade, step["dispatch_id"]) == step["trade_id"]
            order = "SELECT trade_id FROM tradetape.fills WHERE event_id = %s"
            assert one(order, step["fill_id"]) == step["trade_id"]
        closed = "SELECT fill_ids FROM tradetape.closed_trades WHERE event_id = %s"
        assert one(closed, steps[0]["close_id"]) == [step["fill_id"] for step in steps]


def test_what_is_printed_at_the_end_shows_the_trades(environment: dict[str, str], home: Path) -> None:
    def shown(*words: str) -> str:
        variables = {**os.environ, "TRADETAPE_HOME": str(home)}
        return subprocess.run(
            [str(TRADETAPE), *words], env=variables, capture_output=True, text=True, check=True
        ).stdout

    tailed = [json.loads(line) for line in shown("tail", "trades", "-n", "5").splitlines()]
    assert {one["topic"] for one in tailed} == {TOPICS["Trade"]}
    journal = shown("history", "query", "trade_journal", "--venue", "demo1", "-n", "5", "--json").splitlines()
    assert all(json.loads(line)["trade_id"] for line in journal)
    assert len(journal) == len(tailed) == 5


def venues_in_history(environment: dict[str, str]) -> set[str]:
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        return {venue for (venue,) in connection.execute("SELECT DISTINCT venue FROM tradetape.candles").fetchall()}


@pytest.mark.long
def test_a_second_run_uses_what_is_there_and_reconciles_too(environment: dict[str, str], home: Path) -> None:
    before = LocalStack(home).status()
    known = venues_in_history(environment)
    found = demo(home, "--engine", "kafka")
    assert found.returncode == 0, found.stderr
    outcome = json.loads(found.stdout)
    assert outcome["venue"] not in known
    assert venues_in_history(environment) == known | {outcome["venue"]}
    assert all(line["difference"] == 0 for line in lines(outcome).values())
    assert LocalStack(home).status() == before


def workers_of(environment: dict[str, str]) -> list[list[str]]:
    """The command lines of every worker of these services that runs."""
    found = []
    for process in psutil.process_iter(["cmdline", "environ"]):
        command, variables = process.info["cmdline"] or [], process.info["environ"] or {}
        if "work" in command and variables.get("KAFKA_BOOTSTRAP_SERVERS") == environment["KAFKA_BOOTSTRAP_SERVERS"]:
            found.append(command)
    return found


@pytest.mark.parametrize(
    "end", [subprocess.Popen.kill, lambda running: running.send_signal(signal.SIGINT)], ids=["kill -9", "Ctrl-C"]
)
def test_no_worker_outlives_a_demo_that_is_ended(
    environment: dict[str, str], home: Path, end: Callable[[subprocess.Popen[bytes]], None]
) -> None:
    command = [str(TRADETAPE), "demo", "--symbols", "1", "--speed", "60"]
    variables = {**os.environ, "TRADETAPE_HOME": str(home)}
    with subprocess.Popen(command, env=variables, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as running:
        try:
            eventually("all workers run", lambda: len(workers_of(environment)) == len(WORKERS))
        finally:
            end(running)
    eventually("no worker runs", lambda: not workers_of(environment))


@pytest.mark.long
def test_as_recorded_leaves_redis_without_what_is_long_past(environment: dict[str, str], home: Path) -> None:
    found = demo(home, "--engine", "kafka", "--as-recorded")
    assert found.returncode == 0, found.stderr
    outcome = json.loads(found.stdout)
    state = outcome["proof"]["state"]
    assert state["expired"] == state["series"] > 0
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        left = list(client.scan_iter(match=f"*{{{outcome['venue']}:*"))
        # Its trades were dispatched now, whenever they were signalled.
        assert left == [f"tradetape:1:trades:{{{outcome['venue']}:BTCUSDT}}".encode()]


def test_a_row_that_is_lost_on_the_way_is_named_and_exits_4(environment: dict[str, str], home: Path) -> None:
    with psycopg.connect(environment["DATABASE_URL"], autocommit=True) as connection:
        connection.execute(
            "CREATE FUNCTION lose() RETURNS trigger LANGUAGE plpgsql AS "
            "$$ BEGIN IF NEW.is_final AND extract(minute FROM NEW.open_time) = 7 THEN RETURN NULL; END IF; RETURN NEW; END $$"
        )
        connection.execute(
            "CREATE TRIGGER lossy BEFORE INSERT ON tradetape.candles FOR EACH ROW EXECUTE FUNCTION lose()"
        )
        try:
            found = demo(home, "--engine", "kafka")
        finally:
            connection.execute("DROP TRIGGER lossy ON tradetape.candles")
    assert found.returncode == 4, found.stderr
    line = lines(json.loads(found.stdout))["Candle"]
    assert line["difference"] == MINUTES // 60
    assert "neither in table candles nor a dead letter" in line["faults"][0]
