"""Real trades, replayed as trades and fills, come out with the profit that their own records state."""

from __future__ import annotations

import csv
import gzip
import json
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import ROUND_HALF_EVEN, Decimal
from pathlib import Path
from typing import Any

import pytest

from positions_rig import WIDE, Story, closes_of
from tradetape.schemas import Action, CloseStatus, Side, TradeClosed

STATUS = {"completed": CloseStatus.COMPLETED, "panic_sold": CloseStatus.FORCED}
CONTRADICTING = {2348635733: "cancelled with a profit of 0 at an exit price of 0, which would be a loss of all"}
"""Trades whose own numbers cannot all be true, and why."""
CENT, TICK = Decimal("0.01"), Decimal("1e-18")


def at(text: str) -> datetime:
    return datetime.fromisoformat(text)


@pytest.fixture(scope="module")
def legacy(market_data: Path) -> list[dict[str, Any]]:
    """What the replaced system left, numbers as Decimals of their own digits."""
    with gzip.open(market_data / "legacy" / "legacy_merged_trades.jsonl.gz", "rt", encoding="utf-8") as text:
        return [json.loads(line, parse_float=Decimal)["trade"] for line in text]


def replay(story: Story, trade: dict[str, Any]) -> None:
    """One trade as a signal's trade, an entry, an exit and two fills.

    The file has no quantity: of all that give the stated dollars it is one that gives them to the cent.
    """
    story.symbol = trade["symbol"]
    gain = trade["exit_price"] - trade["entry_price"]
    quantity = rounded(WIDE.divide(Decimal(trade["usd_profit"]), gain), Decimal("1e-8")) if gain else Decimal(1)
    entry, exit_ = at(trade["entry_time"]), at(trade["exit_time"])
    enter = story.trade(signal_id=str(trade["trade_id"]), event_time=entry, approved_at=entry)
    told = {"close_status": STATUS[trade["status"]].value}
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id, event_time=exit_, approved_at=exit_, tags=told)
    for of, side, name, time in ((enter, Side.BUY, "entry_price", entry), (leave, Side.SELL, "exit_price", exit_)):
        price = rounded(trade[name], TICK)
        amount = rounded(WIDE.multiply(quantity, price), TICK)
        story.fill(of, side, f"{quantity:f}", f"{price:f}", event_time=time, amount_quote=amount)


def rounded(amount: Decimal, step: Decimal) -> Decimal:
    return amount.quantize(step, ROUND_HALF_EVEN, WIDE)


def is_within_rounding(exact: Decimal, shown: Decimal) -> bool:
    """Whether a number of two decimals can stand for an exact one, whichever way a tie is rounded."""
    return abs(exact - shown) <= CENT / 2 + Decimal("1e-9")


def test_the_450_trades_of_the_replaced_system_have_the_profit_that_they_state(legacy: list[dict[str, Any]]) -> None:
    assert len(legacy) == 450
    told = {str(trade["trade_id"]): trade for trade in legacy if trade["trade_id"] not in CONTRADICTING}
    story = Story()
    for trade in told.values():
        replay(story, trade)
    closes = {closed.signal_id: closed for closed in closes_of(story)}
    assert closes.keys() == told.keys()
    for signal_id, trade in told.items():
        closed = closes[signal_id]
        assert closed.pnl_ratio is not None
        assert is_within_rounding(closed.pnl_quote, Decimal(trade["usd_profit"])), trade
        assert is_within_rounding(Decimal(closed.pnl_ratio) * 100, Decimal(trade["pnl_pct"])), trade
        assert closed.close_status == STATUS[trade["status"]]
        assert (closed.opened_at, closed.closed_at) == (at(trade["entry_time"]), at(trade["exit_time"]))


def test_the_trades_that_contradict_themselves_are_those_that_are_named(legacy: list[dict[str, Any]]) -> None:
    """A profit in percent is what its prices say, or the trade is in the list."""
    found = {
        trade["trade_id"]
        for trade in legacy
        if not is_within_rounding((trade["exit_price"] / trade["entry_price"] - 1) * 100, Decimal(trade["pnl_pct"]))
    }
    assert found == CONTRADICTING.keys()


@pytest.fixture(scope="module")
def backtest(market_data: Path) -> list[dict[str, str]]:
    """The closed trades of a freqtrade backtest: amounts, rates, and fees as fractions."""
    with gzip.open(market_data / "legacy" / "freqtrade_backtest_closed_trades.csv.gz", "rt", encoding="utf-8") as text:
        return list(csv.DictReader(text))


def test_the_trades_of_a_backtest_have_its_profit_before_and_after_fees(backtest: list[dict[str, str]]) -> None:
    """Its profit_abs is before fees; its profit_ratio is after them, of the cost with the fee of the entry."""
    assert len(backtest) == 179
    for row in backtest:
        assert (row["is_short"], row["leverage"]) == ("false", "1")
        closed = of_backtest(Story(row["pair"].replace("/", "")), row)
        assert closed.pnl_quote + closed.fees_quote == pytest.approx(
            Decimal(row["profit_abs"]), abs=Decimal("1e-15")
        ), row
        paid = closed.entry_cost_quote * (1 + Decimal(row["fee_open"]))
        assert closed.pnl_quote / paid == pytest.approx(Decimal(row["profit_ratio"]), abs=Decimal("6e-9")), row


def of_backtest(story: Story, row: dict[str, str]) -> TradeClosed:
    quote = row["pair"].partition("/")[2]
    opened, ended = (from_ms(row[f"{name}_timestamp"]) for name in ("open", "close"))
    enter = story.trade(event_time=opened, approved_at=opened)
    leave = story.trade(Action.EXIT, position_ref=enter.trade_id, event_time=ended, approved_at=ended)
    for of, side, name, time in ((enter, Side.BUY, "open", opened), (leave, Side.SELL, "close", ended)):
        price = rounded(Decimal(row[f"{name}_rate"]), TICK)
        amount = rounded(WIDE.multiply(Decimal(row["amount"]), price), TICK)
        fee = rounded(WIDE.multiply(amount, Decimal(row[f"fee_{name}"])), TICK)
        story.fill(
            of, side, row["amount"], f"{price:f}", event_time=time, amount_quote=amount, fee=fee, fee_asset=quote
        )
    (closed,) = closes_of(story)
    return closed


def from_ms(text: str) -> datetime:
    return datetime.fromisoformat("1970-01-01T00:00:00+00:00") + timedelta(milliseconds=int(text))


@pytest.fixture(scope="module")
def candles(market_data: Path) -> dict[datetime, tuple[str, str]]:
    """Low and high of each 5-minute candle of ADABTC, by its opening time."""
    with gzip.open(market_data / "klines" / "gappy_ADABTC_5m.csv.gz", "rt", encoding="utf-8") as text:
        return {from_ms(row["open_time_ms"]): (row["low"], row["high"]) for row in csv.DictReader(text)}


def test_the_prices_seen_are_those_of_the_real_candles_of_its_life(
    backtest: list[dict[str, str]], candles: dict[datetime, tuple[str, str]]
) -> None:
    checked = missing = 0
    for row in backtest:
        if row["pair"] != "ADA/BTC":
            continue
        story, lived = Story("ADABTC"), list(slots(row))
        for opens in [lived[0] - 5 * MINUTE, *lived, lived[-1] + 5 * MINUTE, lived[-1] + 10 * MINUTE]:
            if opens in candles:
                low, high = candles[opens]
                story.candle(0, low, high, timeframe="5m", open_time=opens, close_time=opens + 5 * MINUTE)
        closed = of_backtest(story, row)
        if any(opens not in candles for opens in lived):
            assert (closed.min_price, closed.max_price) == (None, None)
            missing += 1
            continue
        prices = [rounded(Decimal(row[name]), TICK) for name in ("open_rate", "close_rate")]
        assert closed.min_price == min(prices + [Decimal(candles[opens][0]) for opens in lived])
        assert closed.max_price == max(prices + [Decimal(candles[opens][1]) for opens in lived])
        checked += 1
    assert checked > 10
    assert missing < checked


MINUTE = timedelta(minutes=1)


def slots(row: dict[str, str]) -> Iterator[datetime]:
    """When the candles opened that lie within a position's life."""
    opens = from_ms(row["open_timestamp"])
    while opens + 5 * MINUTE <= from_ms(row["close_timestamp"]):
        yield opens
        opens += 5 * MINUTE
