"""Old months of market data go one by one, and only they: decisions and money stay, and a sink that writes is not hurt."""

from __future__ import annotations

import json
import threading
from datetime import UTC, date, datetime, timedelta
from typing import Any

import psycopg
import pytest

from console_rig import run_command
from history_rig import HistoryRig
from tradetape.console.errors import UsageError
from tradetape.schemas import Fill, MarketCondition, Side
from tradetape.sinks.errors import DatabaseUnavailable
from tradetape.sinks.history import retention
from tradetape.streams.dead_letters import MemoryDeadLetters
from waiting import eventually

NOW = datetime.now(UTC)
ROUNDS = 5


def months_ago(count: int) -> datetime:
    """The first instant of a month before this one, in UTC."""
    year, month = divmod(NOW.year * 12 + NOW.month - 1 - count, 12)
    return datetime(year, month + 1, 1, tzinfo=UTC)


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> HistoryRig:
    monkeypatch.setenv("DATABASE_URL", postgres)
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def condition(at: datetime, name: str = "c") -> MarketCondition:
    return MarketCondition(venue="v", symbol="BTCUSDT", scope="s", condition=name, event_time=at)


def emit_months(rig: HistoryRig, count: int) -> None:
    """Two conditions, at the beginning and a day later, and a fill in each of so many months, this one among them."""
    with rig.producer() as tape:
        for number in range(count):
            at = months_ago(number)
            if at + timedelta(days=1) < NOW:
                tape.emit(condition(at + timedelta(days=1)))
            tape.emit(condition(at))
            tape.emit(
                Fill(
                    venue="v", symbol="BTCUSDT", event_time=at, venue_order_id="o", venue_trade_id=str(number),
                    side=Side.BUY, price=1, quantity=1, amount_quote=1,
                )
            )  # fmt: skip


def kept(rig: HistoryRig, table: str = "market_conditions") -> list[date]:
    rows = rig.rows(
        "SELECT to_date(right(inhrelid::regclass::text, 7), 'YYYY\"m\"MM') AS month FROM pg_inherits "
        "WHERE inhparent = to_regclass(%s) ORDER BY 1",
        f"tradetape.{table}",
    )
    return [row["month"] for row in rows]


def test_partitions_tell_rows_bytes_and_span_of_each_month(rig: HistoryRig, capsys: pytest.CaptureFixture[str]) -> None:
    emit_months(rig, 3)
    rig.store()
    capsys.readouterr()

    assert run_command("history", "partitions", "--json", "--table", "market_conditions") == 0

    found = {one["month"]: one for one in json.loads(capsys.readouterr().out)}
    assert list(found) == [f"{months_ago(number):%Y-%m}" for number in (2, 1, 0)]
    two_ago, one = months_ago(2), found[f"{months_ago(2):%Y-%m}"]
    assert (one["table"], one["rows"], one["is_estimate"]) == ("market_conditions", 2, False)
    assert one["bytes"] > 0
    assert datetime.fromisoformat(one["first"]) == two_ago
    assert datetime.fromisoformat(one["last"]) == two_ago + timedelta(days=1)

    assert run_command("history", "partitions") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["fills", f"{two_ago:%Y-%m}", "1"] in [line[:3] for line in lines]


def test_retain_says_first_and_drops_only_when_told(rig: HistoryRig, capsys: pytest.CaptureFixture[str]) -> None:
    emit_months(rig, 5)
    rig.store()
    all_months = [months_ago(number).date() for number in (4, 3, 2, 1, 0)]
    capsys.readouterr()

    assert run_command("history", "retain", "--months", "2") == 0
    said = capsys.readouterr().out.splitlines()
    assert [line.split(",")[0] for line in said] == [
        f"would drop market_conditions {months_ago(number):%Y-%m}" for number in (4, 3)
    ]
    assert kept(rig) == all_months

    assert run_command("history", "retain", "--months", "2", "--apply") == 0
    assert [line.replace("dropped", "would drop") for line in capsys.readouterr().out.splitlines()] == said
    assert kept(rig) == all_months[2:]
    assert kept(rig, "fills") == all_months, "money is kept for ever"
    noted = rig.rows("SELECT table_name, month FROM tradetape.dropped_months ORDER BY month")
    assert [(row["table_name"], row["month"]) for row in noted] == [("market_conditions", m) for m in all_months[:2]]

    assert run_command("history", "retain", "--months", "2", "--apply") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.usefixtures("rig")
@pytest.mark.parametrize("table", ["fills", "trades", "sink_offsets", "no_such"])
def test_what_is_kept_for_ever_is_refused(table: str) -> None:
    with pytest.raises(UsageError, match=f"{table} is kept for ever"):
        run_command("history", "retain", "--months", "2", "--table", table, "--apply")


@pytest.mark.parametrize(
    ("table", "month", "problem"),
    [
        ("fills", months_ago(4), "kept for ever"),
        ("market_conditions", months_ago(0), "too young"),
        ("market_conditions", months_ago(1), "too young"),
        ("market_conditions; DROP TABLE x", months_ago(4), "kept for ever"),
    ],
)
def test_the_function_itself_refuses_what_the_command_would_not_ask(
    rig: HistoryRig, table: str, month: datetime, problem: str
) -> None:
    with (
        psycopg.connect(rig.dsn) as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege, match=problem),
    ):
        connection.execute("SELECT tradetape.drop_month(%s, %s)", [table, month.date()])


def test_a_long_query_keeps_its_month_and_holds_nobody_up_for_long(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    emit_months(rig, 4)
    rig.store()
    monkeypatch.setattr(retention, "ATTEMPTS", 2)
    with psycopg.connect(rig.dsn) as reader, psycopg.connect(rig.dsn, autocommit=True) as connection:
        reader.execute("SELECT count(*) FROM tradetape.market_conditions")
        (oldest,) = retention.expired(connection, keep_months=2)
        with pytest.raises(DatabaseUnavailable, match="in use by a long query"):
            retention.drop(connection, oldest)
        assert len(kept(rig)) == 4
        reader.rollback()
        assert retention.drop(connection, oldest)
        assert not retention.drop(connection, oldest)


def test_a_sink_that_writes_meanwhile_loses_nothing_and_has_no_dead_letter(rig: HistoryRig) -> None:
    """Late events of the dropped months go on coming: each is stored, in a month that is made again."""
    emit_months(rig, 6)
    letters = MemoryDeadLetters()
    sink = rig.sink(dead_letters=letters)
    over = threading.Event()
    late: list[Any] = []

    def emit_late() -> None:
        with rig.producer() as tape:
            while not over.is_set():
                for number in range(6):
                    at = months_ago(number) + timedelta(microseconds=len(late) + 1)
                    late.append(tape.emit(condition(at, name="late")))
                over.wait(0.01)

    def has_late_months() -> bool:
        rows = rig.rows("SELECT DISTINCT date_trunc('month', event_time, 'UTC') FROM tradetape.market_conditions")
        return len(rows) == 6 or engine.failure is not None

    thread = threading.Thread(target=emit_late)
    dropped = 0
    with rig.working(sink, max_batch_records=50) as engine:
        thread.start()
        with psycopg.connect(rig.dsn, autocommit=True) as connection:
            for _ in range(ROUNDS):
                eventually("all months have rows", has_late_months)
                found = retention.expired(connection, keep_months=1)
                dropped += sum(retention.drop(connection, one) for one in found)
        over.set()
        thread.join()
        after = rig.ends()
        eventually("the sink catches up", lambda: rig.has_come_to(after) or engine.failure is not None)

    assert dropped == 4 * ROUNDS, "the months were made again for late events, and dropped again"
    assert letters.letters == []
    young = {one.event_id for one in late if one.event_time >= months_ago(1)}
    rows = rig.rows("SELECT event_id::text FROM tradetape.market_conditions WHERE condition = 'late'")
    assert {row["event_id"] for row in rows} >= young
    assert sink.counts["stored"] == sum(rig.ends().values()), "what was dropped had been stored before"
