"""The views and the shipped queries say of real trades what decimal arithmetic over the files says.

The data is what the replaced system left: 450 closed trades, 248 with the signal behind them, and 255 exported deals.
They go onto the tape as events through a producer and the sink, and are asked with `tradetape history query`.
"""

from __future__ import annotations

import csv
import gzip
import io
import json
import os
from collections import defaultdict
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import psycopg
import pytest

from console_rig import run_command, tradetape
from history_rig import HistoryRig
from tradetape.console.errors import UsageError
from tradetape.schemas import (
    Action,
    CloseStatus,
    DecisionOutcome,
    Direction,
    DispatchOutcome,
    Fill,
    IndicatorUpdate,
    Side,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
)
from tradetape.sinks.history import reports
from tradetape.streams.dead_letters import MemoryDeadLetters

VENUE = "3commas-paper"
STATUS = {
    "completed": CloseStatus.COMPLETED, "panic_sold": CloseStatus.FORCED, "cancelled": CloseStatus.CANCELLED,
}  # fmt: skip


def lines(file: Path) -> list[dict[str, Any]]:
    """Numbers stay the text of the file: a Decimal each."""
    with gzip.open(file, "rt", encoding="utf-8") as text:
        return [json.loads(line, parse_float=Decimal) for line in text]


@pytest.fixture(scope="module")
def trades(market_data: Path) -> list[dict[str, Any]]:
    return lines(market_data / "legacy" / "legacy_merged_trades.jsonl.gz")


@pytest.fixture(scope="module")
def deals(market_data: Path) -> list[dict[str, Any]]:
    return lines(market_data / "legacy" / "legacy_paper_deals.jsonl.gz")


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> HistoryRig:
    monkeypatch.setenv("DATABASE_URL", postgres)
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


@pytest.fixture
def ask(capsys: pytest.CaptureFixture[str]) -> Any:
    """Asks a report as a program does; its rows, decimals as text."""

    def ask(name: str, *options: str) -> list[dict[str, Any]]:
        capsys.readouterr()
        assert run_command("history", "query", name, "--json", *options) == 0
        return [json.loads(line) for line in capsys.readouterr().out.splitlines()]

    return ask


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


class Emitted(NamedTuple):
    """The ids of what was made of one trade of the file."""

    trade: dict[str, Any]
    signal: TradeSignal | None
    update: IndicatorUpdate | None
    approved: Trade | None
    fills: list[Fill]
    closed: TradeClosed


class Import:
    """The files as events, as far as they go: nothing is invented but the quantity, which they do not have."""

    def __init__(self, tape: Any) -> None:
        self._tape = tape

    def trade(self, one: dict[str, Any]) -> Emitted:
        trade = one["trade"]
        if one["fork"] is None:
            return Emitted(one, None, None, None, [], self._closed(trade, f"legacy-{trade['trade_id']}", None, []))
        signal, update = self._signal(one["fork"], trade["symbol"])
        assert signal.event_id
        self._decide(signal, "fork_score_filter", passed=one["fork"]["passed"])
        self._decide(signal, "approval", passed=True)
        approved = self._approved(trade, signal)
        assert approved.event_id
        for outcome in (DispatchOutcome.INTENDED, DispatchOutcome.ACKED):
            self._emit(
                TradeDispatch, trade, at(trade["entry_time"]), trade_id=approved.event_id, leg_index=0, attempt=1,
                outcome=outcome, executor="3commas", external_id=str(trade["trade_id"]),
            )  # fmt: skip
        fills = [self._fill(trade, approved.event_id, side) for side in (Side.BUY, Side.SELL)]
        closed = self._closed(trade, approved.event_id, signal.event_id, [str(fill.event_id) for fill in fills])
        return Emitted(one, signal, update, approved, fills, closed)

    def deal(self, one: dict[str, Any]) -> None:
        bought, sold = (round(Decimal(one[f"{side}_average_price"]), 18) for side in ("bought", "sold"))
        self._emit(
            TradeClosed, {"symbol": one["pair"]}, at(one["closed_at"]), trade_id=f"deal-{one['id']}", strategy_id="deals",
            direction=Direction.LONG, opened_at=at(one["created_at"]), closed_at=at(one["closed_at"]), quantity=1,
            entry_price_avg=bought, exit_price_avg=sold, entry_cost_quote=bought, exit_value_quote=sold, fees_quote=0,
            pnl_quote=one["actual_profit"], legs_filled=1, legs_max=1, close_status=STATUS[one["status"]],
        )  # fmt: skip

    def _emit(self, kind: Any, trade: dict[str, Any], time: datetime, **fields: Any) -> Any:
        return self._tape.emit(kind(venue=VENUE, symbol=trade["symbol"], event_time=time, **fields))

    def _signal(self, fork: dict[str, Any], symbol: str) -> tuple[TradeSignal, IndicatorUpdate]:
        # `ts_iso` is a naive UTC time that was read in some other zone: the milliseconds are right.
        time = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(milliseconds=fork["timestamp"])
        values = {"rsi_14": float(fork["raw_indicators"]["rsi"]), "stoch_slope": float(fork["score"])}
        update = self._tape.emit(
            IndicatorUpdate(venue=VENUE, symbol=symbol, timeframe="1h", bar_close_time=time, values=values)
        )
        signal = self._emit(
            TradeSignal, {"symbol": symbol}, time, strategy_id="fork", timeframe="1h", action=Action.ENTER,
            direction=Direction.LONG, score=float(fork["score"]), reference_price=fork["entry_price"] or None,
            input_event_ids=[update.event_id],
        )  # fmt: skip
        return signal, update

    def _decide(self, signal: TradeSignal, stage: str, *, passed: bool) -> None:
        outcome = DecisionOutcome.PASSED if passed else DecisionOutcome.REJECTED
        reasons = [] if passed else ["score"]
        self._emit(
            SignalDecision, {"symbol": signal.symbol}, signal.event_time, signal_id=signal.event_id, stage=stage,
            outcome=outcome, reasons=reasons,
        )  # fmt: skip

    def _approved(self, trade: dict[str, Any], signal: TradeSignal) -> Trade:
        approved: Trade = self._emit(
            Trade, trade, signal.event_time, signal_id=signal.event_id, strategy_id="fork", action=Action.ENTER,
            direction=Direction.LONG, approved_at=at(trade["entry_time"]), approved_by="legacy",
            idempotency_key=str(trade["trade_id"]), planned_entry_price=signal.reference_price,
        )  # fmt: skip
        return approved

    def _fill(self, trade: dict[str, Any], trade_id: str, side: Side) -> Fill:
        moment, price = ("entry_time", "entry_price") if side is Side.BUY else ("exit_time", "exit_price")
        fill: Fill = self._emit(
            Fill, trade, at(trade[moment]), trade_id=trade_id, venue_order_id=str(trade["trade_id"]),
            venue_trade_id=side.value, side=side, price=trade[price], quantity=2, amount_quote=2 * Decimal(trade[price]),
        )  # fmt: skip
        return fill

    def _closed(self, trade: dict[str, Any], trade_id: str, signal_id: str | None, fills: list[str]) -> TradeClosed:
        bought, sold = Decimal(trade["entry_price"]), Decimal(trade["exit_price"])
        closed: TradeClosed = self._emit(
            TradeClosed, trade, at(trade["exit_time"]), trade_id=trade_id, signal_id=signal_id, strategy_id="fork",
            direction=Direction.LONG, opened_at=at(trade["entry_time"]), closed_at=at(trade["exit_time"]),
            entry_price_avg=bought, exit_price_avg=sold, quantity=1, entry_cost_quote=bought, exit_value_quote=sold,
            fees_quote=0, pnl_quote=trade["usd_profit"], legs_filled=1, legs_max=1, fill_ids=fills,
            close_status=STATUS[trade["status"]],
        )  # fmt: skip
        return closed


def bring(rig: HistoryRig, trades: list[dict[str, Any]], deals: list[dict[str, Any]]) -> list[Emitted]:
    with rig.producer() as tape:
        found = [Import(tape).trade(one) for one in trades]
        for one in deals:
            Import(tape).deal(one)
    letters = MemoryDeadLetters()
    rig.store(rig.sink(dead_letters=letters))
    assert letters.letters == []
    return found


def pnl_of_files(
    trades: list[dict[str, Any]], deals: list[dict[str, Any]]
) -> dict[tuple[str, str, str], list[Decimal]]:
    """Profits by UTC day, symbol and strategy, straight from the files."""
    found: dict[tuple[str, str, str], list[Decimal]] = defaultdict(list)
    for one in trades:
        trade = one["trade"]
        found[trade["exit_time"][:10], trade["symbol"], "fork"].append(Decimal(trade["usd_profit"]))
    for one in deals:
        symbol = one["pair"].removeprefix("USDT_") + "USDT"
        found[one["closed_at"][:10], symbol, "deals"].append(Decimal(one["actual_profit"]))
    return found


def test_daily_pnl_adds_up_to_the_cent_of_the_files(
    rig: HistoryRig, trades: list[dict[str, Any]], deals: list[dict[str, Any]], ask: Any
) -> None:
    bring(rig, trades, deals)
    expected = pnl_of_files(trades, deals)

    found = {(row["day"], row["symbol"], row["strategy_id"]): row for row in ask("daily_pnl")}

    assert found.keys() == expected.keys()
    for key, profits in expected.items():
        row = found[key]
        assert Decimal(row["pnl_quote"]) == sum(profits), key
        assert row["trades"] == len(profits)
        assert (row["wins"], row["losses"]) == (sum(p > 0 for p in profits), sum(p < 0 for p in profits))
    assert sum(row["trades"] for row in found.values()) == 705
    may_ninth = ask("daily_pnl", "--from", "2025-05-09T00:00Z", "--to", "2025-05-10T00:00Z")
    assert {row["day"] for row in may_ninth} == {"2025-05-09"}
    assert len(may_ninth) == sum(day == "2025-05-09" for day, _, _ in expected)


def test_the_journal_walks_every_trade_by_its_ids(rig: HistoryRig, trades: list[dict[str, Any]], ask: Any) -> None:
    emitted = bring(rig, trades, [])

    rows = ask("trade_journal")

    assert len(rows) == len(trades)
    by_close = {row["close_id"]: row for row in rows}
    for one in emitted:
        row, trade = by_close[one.closed.event_id], one.trade["trade"]
        assert Decimal(row["pnl_quote"]) == Decimal(trade["usd_profit"])
        assert at(row["closed_at"]) == at(trade["exit_time"])
        if one.signal is None:
            assert (row["signal_id"], row["decisions"], row["dispatches"], row["fills"]) == (None, None, None, 0)
            continue
        assert one.approved
        assert one.update
        assert row["signal_id"] == one.signal.event_id
        assert row["trade_id"] == row["position_id"] == one.approved.event_id
        assert row["input_event_ids"] == [one.update.event_id]
        assert {d["stage"]: d["outcome"] for d in row["decisions"]} == {
            "fork_score_filter": "REJECTED", "approval": "PASSED",
        }  # fmt: skip
        assert [d["outcome"] for d in row["dispatches"]] == ["INTENDED", "ACKED"]
        assert {d["external_id"] for d in row["dispatches"]} == {str(trade["trade_id"])}
        assert row["fill_ids"] == [fill.event_id for fill in one.fills]
        both = 2 * (Decimal(trade["entry_price"]) + Decimal(trade["exit_price"]))
        assert (Decimal(row["filled_quantity"]), Decimal(row["filled_quote"])) == (Decimal(4), both)
    assert sum(one.signal is not None for one in emitted) == 248


def test_a_signal_that_became_nothing_and_a_trade_without_its_signal_are_in_the_journal(
    rig: HistoryRig, trades: list[dict[str, Any]], ask: Any
) -> None:
    forked = next(one for one in trades if one["fork"])
    with rig.producer() as tape:
        importer = Import(tape)
        signal, _ = importer._signal(forked["fork"], forked["trade"]["symbol"])
        importer._decide(signal, "approval", passed=False)
        orphan = tape.emit(
            Trade(
                venue=VENUE, symbol="BTCUSDT", event_time=signal.event_time, signal_id="gone", strategy_id="s",
                action=Action.EXIT, direction=Direction.LONG, approved_at=signal.event_time, approved_by="x",
                idempotency_key="k", position_ref="the-position",
            )
        )  # fmt: skip
    rig.store()

    rows = {row["signal_id"]: row for row in ask("trade_journal")}

    assert set(rows) == {signal.event_id, "gone"}
    assert rows[signal.event_id]["trade_id"] is None
    assert rows[signal.event_id]["decisions"][0]["reasons"] == ["score"]
    assert (rows["gone"]["trade_id"], rows["gone"]["position_id"]) == (orphan.event_id, "the-position")
    assert rows["gone"]["decisions"] is None


def test_decision_rates_and_reasons_count_what_the_files_say(
    rig: HistoryRig, trades: list[dict[str, Any]], ask: Any
) -> None:
    bring(rig, trades, [])
    expected: dict[tuple[str, str], int] = defaultdict(int)
    for one in trades:
        if one["fork"]:
            day = datetime.fromtimestamp(one["fork"]["timestamp"] // 1_000, UTC)
            expected[f"{day:%Y-%m-%d}", one["trade"]["symbol"]] += 1

    rates = ask("decision_rates")

    for stage, passed in (("fork_score_filter", 0), ("approval", 1)):
        found = {(row["day"], row["symbol"]): row for row in rates if row["stage"] == stage}
        assert {key: row["decisions"] for key, row in found.items()} == expected
        assert {row["passed_ratio"] for row in found.values()} == {passed}
    reasons = {(row["day"], row["symbol"]): row["decisions"] for row in ask("rejection_reasons")}
    assert reasons == expected


def test_latency_is_the_difference_of_the_clocks(rig: HistoryRig, trades: list[dict[str, Any]], ask: Any) -> None:
    emitted = [one for one in bring(rig, trades, []) if one.signal]
    rows = {row["signal_id"]: row for row in ask("signal_latency")}
    assert len(rows) == 248
    for one in emitted:
        assert one.signal
        assert one.approved
        row, signal = rows[one.signal.event_id], one.signal
        assert signal.emitted_at
        assert signal.event_time
        assert one.approved.emitted_at
        micros = timedelta(microseconds=1)
        for name, span in (
            ("event_to_signal_s", signal.emitted_at - signal.event_time),
            ("signal_to_trade_s", one.approved.emitted_at - signal.emitted_at),
            ("signal_to_fill_s", at(one.trade["trade"]["entry_time"]) - signal.emitted_at),
        ):
            assert Decimal(row[name]) * 1_000_000 == span // micros, name


def test_the_latest_indicators_hold_named_and_other_values(
    rig: HistoryRig, trades: list[dict[str, Any]], ask: Any
) -> None:
    bring(rig, trades, [])
    newest: dict[str, dict[str, Any]] = {}
    for one in trades:
        symbol = one["trade"]["symbol"]
        if one["fork"] and one["fork"]["timestamp"] > newest.get(symbol, {"timestamp": 0})["timestamp"]:
            newest[symbol] = one["fork"]

    rows = {row["symbol"]: row for row in ask("latest_indicators")}

    assert {symbol: row["values"] for symbol, row in rows.items()} == {
        symbol: {"rsi_14": float(fork["raw_indicators"]["rsi"]), "stoch_slope": float(fork["score"])}
        for symbol, fork in newest.items()
    }


def test_open_positions_and_slippage(rig: HistoryRig, trades: list[dict[str, Any]], ask: Any) -> None:
    emitted = bring(rig, trades, [])
    assert ask("open_positions") == []
    planned = {
        str(one.approved.event_id): (
            Decimal(one.trade["fork"]["entry_price"]),
            Decimal(one.trade["trade"]["entry_price"]),
        )
        for one in emitted
        if one.approved and one.trade["fork"]["entry_price"]
    }
    rows = {row["trade_id"]: row for row in ask("slippage")}
    assert rows.keys() == planned.keys()
    assert len(rows) == 248 - 152
    for trade_id, (wanted, paid) in planned.items():
        assert rows[trade_id]["slippage_ratio"] == pytest.approx(float(paid / wanted - 1), abs=1e-12)


def some_closes(rig: HistoryRig) -> None:
    """Closes around midnight UTC, when it is the evening before in New York."""
    with rig.producer() as tape:
        importer = Import(tape)
        for number, time in enumerate(("2025-05-08T23:59:59Z", "2025-05-09T00:00:00Z", "2025-05-09T03:59:59Z")):
            importer._closed(
                {
                    "trade_id": number, "symbol": f"COIN{number}USDT", "entry_time": time, "exit_time": time,
                    "entry_price": 3, "exit_price": 4, "usd_profit": "0.000000000000000001", "status": "completed",
                },
                f"t{number}", None, [],
            )  # fmt: skip
    rig.store()


@pytest.mark.parametrize("zone", ["UTC", "America/New_York"])
def test_days_and_times_are_utc_in_whatever_zone_the_host_is(rig: HistoryRig, zone: str) -> None:
    some_closes(rig)
    environment = {**os.environ, "TZ": zone, "PGTZ": zone, "DATABASE_URL": rig.dsn}

    pnl = tradetape("history", "query", "daily_pnl", environment=environment)
    journal = tradetape(
        "history", "query", "trade_journal", "--from", "2025-05-09T00:00Z", "--csv", environment=environment
    )

    days = [(row["day"], row["symbol"]) for row in csv.DictReader(io.StringIO(pnl.stdout))]
    assert sorted(days) == [("2025-05-08", "COIN0USDT"), ("2025-05-09", "COIN1USDT"), ("2025-05-09", "COIN2USDT")]
    rows = list(csv.DictReader(io.StringIO(journal.stdout)))
    assert [row["closed_at"] for row in rows] == ["2025-05-09T03:59:59Z", "2025-05-09T00:00:00Z"]
    assert {row["pnl_quote"] for row in rows} == {"0.000000000000000001"}


def test_filters_narrow_and_the_newest_come_first(rig: HistoryRig, ask: Any) -> None:
    some_closes(rig)
    assert [row["symbol"] for row in ask("trade_journal", "-n", "2")] == ["COIN2USDT", "COIN1USDT"]
    assert [row["symbol"] for row in ask("trade_journal", "--symbol", "COIN1USDT")] == ["COIN1USDT"]
    assert ask("trade_journal", "--venue", "elsewhere") == []
    assert [row["symbol"] for row in ask("trade_journal", "--to", "2025-05-09T00:00Z")] == ["COIN0USDT"]


def test_people_get_a_table(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    some_closes(rig)
    capsys.readouterr()
    monkeypatch.setattr("tradetape.console.table_text.is_for_people", lambda: True)
    assert run_command("history", "query", "daily_pnl") == 0
    head, *rows = capsys.readouterr().out.splitlines()
    assert head.split()[:5] == ["day", "run_mode", "venue", "symbol", "strategy_id"]
    assert len(rows) == 3
    assert {row.index("0.000000000000000001") + 20 for row in rows} == {head.index("pnl_quote") + 9}


@pytest.mark.usefixtures("rig")
def test_without_a_name_it_lists_what_there_is(capsys: pytest.CaptureFixture[str]) -> None:
    capsys.readouterr()
    assert run_command("history", "query") == 0
    found = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    views = {"trade_journal", "daily_pnl", "decision_rates", "signal_latency", "latest_indicators"}
    assert set(found) >= {*views, "open_positions", "rejection_reasons", "slippage", "candle_gaps"}
    assert all(found.values())


@pytest.mark.usefixtures("rig")
def test_an_unknown_name_is_refused_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="no view or query 'daily_pln'; did you mean daily_pnl"):
        run_command("history", "query", "daily_pln")


def test_a_view_of_the_users_own_is_asked_like_the_others(rig: HistoryRig, ask: Any) -> None:
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("CREATE VIEW tradetape.mine AS SELECT date '2025-05-09' AS day, 1.50::numeric AS price")
    assert ask("mine", "--from", "2025-05-09T00:00Z") == [{"day": "2025-05-09", "price": "1.5"}]
    assert ask("mine", "--from", "2025-05-09T00:01Z") == []
    with pytest.raises(UsageError, match="mine has no column for symbol; it has day, price"):
        run_command("history", "query", "mine", "--symbol", "X")


def test_a_query_changes_nothing(rig: HistoryRig) -> None:
    with reports.reading(rig.dsn) as connection, pytest.raises(psycopg.errors.ReadOnlySqlTransaction):
        connection.execute("DELETE FROM tradetape.closed_trades")
