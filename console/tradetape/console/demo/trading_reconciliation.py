"""The proof for what was traded: every order has one end, every position that is over has one close, and its sums add up.

Pure functions over what `trading` derived from the tape. Sums are integers, units of 10**-18: they are equal or they differ.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from decimal import Decimal

import msgspec

from tradetape.console.demo.reconciliation import Fault, faults_of
from tradetape.console.demo.trading import Plain, Position, Trading
from tradetape.schemas import decimals


class TradingLine(msgspec.Struct, frozen=True, kw_only=True):
    """Trading's part of the final table: positions, how many of them are closed, and what these came to after fees."""

    positions: int
    closed: int
    pnl_quote: Decimal
    fees_quote: Decimal
    difference: int
    faults: tuple[str, ...]


def reconcile_trading(trading: Trading, *, update_ids: Collection[str], made: Collection[str]) -> TradingLine:
    """Compare decisions, trades, dispatches, fills and closes with each other, as far as somebody makes them.

    `update_ids` are the indicator updates on the tape, `made` the records that somebody at work makes.
    """
    unanswered = _not_answered_once(trading) if "SignalDecision" in made else ()
    unended = _not_ended_once(trading) if "TradeDispatch" in made else ()
    faults = [
        *faults_of(unanswered, "a signal without exactly one decision"),
        *faults_of(unended, "an order without exactly one outcome"),
        *faults_of(_without_cause(trading, set(update_ids)), "closed, but not to be walked back to indicator values"),
        *_sums(trading),
    ]
    closes = trading.closes.values()
    return TradingLine(
        positions=len(trading.positions),
        closed=len(trading.closes),
        pnl_quote=_sum(closes, "pnl_quote"),
        fees_quote=_sum(closes, "fees_quote"),
        difference=sum(fault.times for fault in faults),
        faults=tuple(fault.sentence for fault in faults),
    )


def _not_answered_once(trading: Trading) -> set[str]:
    answered = [one["signal_id"] for one in trading.decisions.values()]
    return {one for one in trading.signals if answered.count(one) != 1}


def _not_ended_once(trading: Trading) -> set[str]:
    ends = trading.ends()
    return {f"{trade_id}:{leg}" for trade_id, leg in trading.orders if len(ends[trade_id, leg]) != 1}


def _without_cause(trading: Trading, update_ids: set[str]) -> set[str]:
    """Closed positions of which a trade names a signal, or that one an input, that is not on the tape."""
    return {
        closed["trade_id"]
        for closed in trading.closes.values()
        if not all(_rests_on(trading, update_ids, trade) for trade in _trades_of(trading, closed["trade_id"]))
        or closed["trade_id"] not in trading.trades
    }


def _trades_of(trading: Trading, position_id: str) -> list[Plain]:
    return [one for one in trading.trades.values() if position_id in (one["trade_id"], one["position_ref"])]


def _rests_on(trading: Trading, update_ids: set[str], trade: Plain) -> bool:
    """Whether ids alone lead from a trade to the decision, the signal and the values that it rests on."""
    signal = trading.signals.get(trade["signal_id"])
    is_decided = any(one["trade_id"] == trade["trade_id"] for one in trading.passed)
    return is_decided and signal is not None and bool(inputs := signal["input_event_ids"]) and update_ids >= set(inputs)


def _sums(trading: Trading) -> Iterator[Fault]:
    """Where a close says something else than its fills."""
    positions = {one.trade["trade_id"]: one for one in trading.positions}
    for closed in trading.closes.values():
        if (position := positions.get(closed["trade_id"])) is None:
            continue
        yield from faults_of(
            {one["fill_id"] for one in position.fills} ^ set(closed["fill_ids"]),
            f"fills in which position {closed['trade_id']} and its close differ",
        )
        for name, wanted in _sums_of(position).items():
            if (found := decimals.unscaled(closed[name])) != wanted:
                told, by_fills = decimals.from_unscaled(found), decimals.from_unscaled(wanted)
                yield Fault(1, f"close of {closed['trade_id']}: {name} is {told:f}, its fills say {by_fills:f}")


def _sums_of(position: Position) -> dict[str, int]:
    """What the close of a position has to say, by its field."""
    cost = position.amount("amount_quote", of_entries=True)
    value = position.amount("amount_quote", of_entries=False)
    fees = sum(decimals.unscaled(one["fee"]) for one in position.fills)
    gained = value - cost if position.trade["direction"] == "LONG" else cost - value
    return {
        # The largest that was held: the bot enters a position once.
        "quantity": position.amount("quantity", of_entries=True),
        "entry_cost_quote": cost,
        "exit_value_quote": value,
        "fees_quote": fees,
        "pnl_quote": gained - fees,
    }


def _sum(events: Collection[Plain], name: str) -> Decimal:
    return decimals.from_unscaled(sum(decimals.unscaled(one[name]) for one in events))
