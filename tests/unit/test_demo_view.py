"""What a run shows fits a terminal of 80 columns, and says what differs."""

from __future__ import annotations

import io
from datetime import UTC, datetime
from decimal import Decimal

from rich.console import Console, RenderableType

from tradetape.console.demo import view
from tradetape.console.demo.gauges import Snapshot, WorkerGauge
from tradetape.console.demo.proof import Proof
from tradetape.console.demo.reconciliation import RecordLine
from tradetape.console.demo.rows import Journal
from tradetape.console.demo.run import Outcome
from tradetape.console.demo.state_reconciliation import StateLine

AT = datetime(2026, 5, 4, 12, 30, tzinfo=UTC)
JOURNAL = Journal(
    "5e1f", "rsi-dip", "XRPUSDT", "ENTER", "LONG", AT, Decimal("2.2124000"), ["RSI rose"], "a9e7", "1m",
    35.367, 2.21896, 2.21197, "3978", AT, Decimal("2.2124000"), Decimal(1),
)  # fmt: skip


def shown(what: RenderableType) -> str:
    out = io.StringIO()
    Console(file=out, width=80, no_color=True).print(what)
    return out.getvalue()


def outcome(*faults: str, journal: Journal | None = JOURNAL) -> Outcome:
    line = RecordLine(
        record="IndicatorUpdate", emitted=17_564, on_topic=17_564, undecodable=0, in_postgres=17_564 - len(faults),
        dead_letters=0, difference=len(faults), faults=faults,
    )  # fmt: skip
    state = StateLine(series=3, equal=2, expired=1, without_expiry=0, not_compact=0, difference=0, faults=())
    proof = Proof(records=(line,), state=state, journal=journal)
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


def test_the_journal_walks_from_the_signal_to_its_candle() -> None:
    text = shown(view.outcome(outcome()))
    assert text.index("5e1f") < text.index("a9e7") < text.index("3978")
    assert "ENTER LONG XRPUSDT at 2.2124" in text
    assert "walked back" not in shown(view.outcome(outcome(journal=None)))


def test_one_look_at_a_run_shows_rates_and_lag_as_a_table_and_as_a_line() -> None:
    worker = WorkerGauge(lag=1_200, per_second=950.0)
    snapshot = Snapshot(
        minutes=120, of_minutes=4_320, emitted=5_000, emitted_per_second=1_500.0,
        workers={"history": worker}, latencies_s={"Redis": 0.004},
    )  # fmt: skip
    assert "1,200 behind" in shown(view.live(snapshot))
    assert view.line(snapshot) == "  2/72 h: 5,000 events at 1,500/s; history 1,200 behind"
