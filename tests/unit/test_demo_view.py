"""What a run shows fits a terminal of 80 columns, and says what differs."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal

import msgspec
from rich.console import Console, RenderableType

from tradetape.console.demo import view
from tradetape.console.demo.gauges import Snapshot, WorkerGauge
from tradetape.console.demo.journal import Step
from tradetape.console.demo.proof import Proof
from tradetape.console.demo.reconciliation import RecordLine
from tradetape.console.demo.run import Outcome
from tradetape.console.demo.state_reconciliation import StateLine
from tradetape.console.demo.trading_reconciliation import TradingLine

AT = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
ENTRY = Step(
    close_id="c105", symbol="XRPUSDT", closed_at=AT, close_status="COMPLETED", exit_reason="overbought",
    entry_price_avg=Decimal("2.2123"), exit_price_avg=Decimal("2.2247"), fees_quote=Decimal("0.20056"),
    pnl_quote=Decimal("0.359941"), pnl_ratio=0.0036, min_price=Decimal("2.205"), max_price=Decimal("2.2247"),
    candle_id="3978", timeframe="1m", close=Decimal("2.2124000"), update_id="a9e7", rsi_14=35.367,
    signal_id="5e1f", event_time=AT, action="ENTER", direction="LONG", reasons=["RSI rose"],
    decision_id="dec1", outcome="PASSED", stage="approval", trade_id="7ade", planned_entry_price=Decimal("2.2124"),
    dispatch_id="d15b", dispatch_outcome="ACKED", executor="paper", fill_id="f111", side="BUY",
    quantity=Decimal("45.20182614"), price=Decimal("2.2123"),
)  # fmt: skip
EXIT = ENTRY._replace(signal_id="5e1e", action="EXIT", fill_id="f112", side="SELL", reasons=["RSI rose above 70"])


def shown(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=80, no_color=True).print(what)
    return out.getvalue()


def outcome(*faults: str, journal: tuple[Step, ...] = (ENTRY, EXIT)) -> Outcome:
    line = RecordLine(
        record="IndicatorUpdate", expected=17_564, on_topic=17_564, undecodable=0, in_postgres=17_564 - len(faults),
        dead_letters=0, difference=len(faults), faults=faults,
    )  # fmt: skip
    state = StateLine(series=3, equal=2, expired=1, without_expiry=0, not_compact=0, difference=0, faults=())
    trading = TradingLine(
        positions=15, closed=14, pnl_quote=Decimal("-8.0157"), fees_quote=Decimal("2.995"), difference=0, faults=()
    )
    proof = Proof(records=(line,), trading=trading, state=state, journal=journal)
    return Outcome("demo7", 17_564, 12.34, {"Redis": 0.0123, "PostgreSQL": None}, proof)


def test_a_run_without_a_difference_says_so() -> None:
    text = shown(view.outcome(outcome()))
    assert "IndicatorUpdate" in text
    assert text.count("17,564") >= 3
    assert "Nothing lost, nothing doubled, nothing altered." in text
    assert "Redis 12 ms, PostgreSQL unmeasured" in " ".join(text.split())
    assert "state show demo7 BTCUSDT 1h" in text


def test_every_difference_is_named() -> None:
    text = shown(view.outcome(outcome("1 on x, but neither in table y nor a dead letter: 5e1f")))
    assert "differs: 1 on x, but neither in table y nor a dead letter: 5e1f" in " ".join(text.split())
    assert "1 differences." in text
    assert "Nothing lost" not in text


def test_the_journal_walks_from_the_values_of_each_trade_to_its_profit() -> None:
    text = shown(view.outcome(outcome()))
    ids = ("3978", "a9e7", "5e1f", "dec1", "7ade", "d15b", "f111", "5e1e", "f112", "c105")
    places = [text.index(one) for one in ids]
    assert places == sorted(places)
    assert "ENTER LONG at 12:30Z" in text
    assert "BUY 45.2018 at 2.2123" in text
    assert "profit +0.359941 USDT (+0.36%), fees 0.20056" in text
    assert "by ids alone" not in shown(view.outcome(outcome(journal=())))


def test_the_trades_are_counted_and_their_profit_is_said_after_fees() -> None:
    assert "15 positions opened, 14 closed; -8.0157 USDT after 2.995 of fees" in shown(view.outcome(outcome()))


def test_one_look_at_a_run_shows_rates_and_lag_as_a_table_and_as_a_line() -> None:
    worker = WorkerGauge(lag=1_200, per_second=950.0)
    snapshot = Snapshot(
        minutes=120, of_minutes=4_320, emitted=5_000, emitted_per_second=1_500.0,
        workers={"history": worker}, latencies_s={"Redis": 0.004},
    )  # fmt: skip
    assert "1,200 behind" in shown(view.live(snapshot))
    assert view.line(snapshot) == "  2/72 h: 5,000 events at 1,500/s; history 1,200 behind"
    later = msgspec.structs.replace(snapshot, coming={"TradeClosed": 2})
    assert "2 TradeClosed" in shown(view.live(later))
    assert view.line(later).endswith("; still to come: 2 TradeClosed")
