"""Each recipe runs as a user runs it, says nothing, and puts exactly its events on the tape and into the history."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest

from examples_rig import EXAMPLES, assert_signals_rest_on_their_bars, emitted, event_id, ids, run, signal_id, update_id
from history_rig import HistoryRig
from tradetape.schemas import IndicatorUpdate

MINUTE = timedelta(minutes=1)
AT_EIGHT = datetime(2025, 5, 5, 8, tzinfo=UTC)


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def run_quietly(rig: HistoryRig, name: str) -> None:
    done = run(rig, EXAMPLES / name)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_plain_loop_emits_each_bar_and_each_change_of_mind(rig: HistoryRig) -> None:
    run_quietly(rig, "plain_loop.py")
    events = emitted(rig)
    closes = [AT_EIGHT + (12 + number) * MINUTE for number in range(8)]
    # By hand: the averages from the third bar on are 94600.93, 94604.87, 94613.17, 94623.60, 94629.30, 94624.97.
    minds = [(2, "ENTER"), (3, "EXIT"), (4, "ENTER"), (6, "EXIT")]
    assert ids(events) == {
        ("IndicatorUpdate", "BTCUSDT"): [update_id("binance-usdm", "BTCUSDT", "1m", at, "plain-loop") for at in closes],
        ("TradeSignal", "BTCUSDT"): [
            signal_id("above-average", "binance-usdm", "BTCUSDT", "1m", closes[bar], action) for bar, action in minds
        ],
    }  # fmt: skip
    assert_signals_rest_on_their_bars(events)
    updates = [one for one in events if isinstance(one, IndicatorUpdate)]
    assert [one.invalid for one in updates] == [("sma_3",)] * 2 + [()] * 6
    assert [round(one.values["sma_3"], 2) for one in updates[2:]] == [
        94600.93, 94604.87, 94613.17, 94623.60, 94629.30, 94624.97,
    ]  # fmt: skip


def test_tasks_of_asyncio_share_a_producer(rig: HistoryRig) -> None:
    run_quietly(rig, "asyncio_bot.py")
    events = emitted(rig)
    updates = {
        ("IndicatorUpdate", symbol): [
            update_id("binance", symbol, "1m", AT_EIGHT + number * MINUTE, "asyncio-bot") for number in range(4)
        ]
        for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT")
    }
    assert ids(events) == {
        **updates,
        ("TradeSignal", "BTCUSDT"): [
            signal_id("oversold", "binance", "BTCUSDT", "1m", AT_EIGHT + 2 * MINUTE, "ENTER")
        ],
        ("TradeSignal", "ETHUSDT"): [signal_id("oversold", "binance", "ETHUSDT", "1m", AT_EIGHT, "ENTER")],
    }  # fmt: skip
    assert_signals_rest_on_their_bars(events)
    assert sorted(one.producer_seq for one in events) == list(range(1, 15))


def test_forked_and_spawned_processes_each_have_a_producer(rig: HistoryRig) -> None:
    run_quietly(rig, "multiprocessing_bot.py")
    events = emitted(rig)
    symbols = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
    closes = [AT_EIGHT + number * MINUTE for number in range(3)]
    assert ids(events) == {
        ("MarketCondition", "MARKET"): [event_id("MarketCondition", "btc", "binance", "MARKET", "bullish", AT_EIGHT)],
        **{
            ("IndicatorUpdate", symbol): [
                update_id("binance", symbol, "1m", at, f"worker-{symbol.lower()}") for at in closes
            ]
            for symbol in symbols
        },
        **{
            ("TradeSignal", symbol): [signal_id("oversold", "binance", symbol, "1m", closes[-1], "ENTER")]
            for symbol in symbols
        },
    }  # fmt: skip
    assert_signals_rest_on_their_bars(events)
    runs = {one.producer_run_id: one.producer for one in events}
    assert sorted(runs.values()) == ["parent", *sorted(f"worker-{symbol.lower()}" for symbol in symbols)]


def test_without_pandas_its_recipe_says_what_to_install(rig: HistoryRig) -> None:
    script = "import runpy, sys; sys.modules['pandas'] = None; runpy.run_path(sys.argv[1], run_name='__main__')"
    done = run(rig, "-c", script, EXAMPLES / "pandas_rows.py")
    assert (done.returncode, done.stdout, done.stderr) == (1, "", "this example needs pandas: pip install pandas\n")
