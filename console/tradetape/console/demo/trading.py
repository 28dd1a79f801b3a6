"""One venue's trading as the tape tells it: what must follow from each signal, and what is still to come of it.

Derived from plain events, as the documentation says it and not by the code that emits them; only the rule that makes an
id of what an event is about is the catalogue's. The one thing that the tape does not say, how often a candle filled an
order, is the venue's to tell: on paper that is the executor's table.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

from tradetape.console.demo.topic_content import TopicContent
from tradetape.schemas import Catalogue, decimals

STAGE = "approval"
PAPER = "paper"
INTENDED, TIMEOUT, ACKED = "INTENDED", "TIMEOUT", "ACKED"
NEVER_TAKEN = ("EXPIRED", "REJECTED")
"""The outcomes after which nobody has the order."""
RECORDS = ("TradeSignal", "SignalDecision", "Trade", "TradeDispatch", "Fill", "TradeClosed")

Plain = Mapping[str, Any]
Order = tuple[str, int]
"""A leg of a trade: trade_id and leg_index."""


class PaperOrder(NamedTuple):
    """What the venue says of an order: how many fills it gave, and whether it will give more."""

    fills: int
    is_done: bool


Book = Mapping[Order, PaperOrder]


class Position(NamedTuple):
    """An ENTER trade, and the fills of it and of the trades that name it, in the order of their time."""

    trade: Plain
    fills: Sequence[Plain]

    @property
    def held(self) -> int:
        """What is left of it, in units of 10**-18."""
        return self.amount("quantity", of_entries=True) - self.amount("quantity", of_entries=False)

    def amount(self, name: str, *, of_entries: bool) -> int:
        """The sum of a decimal field over the fills that made it larger, or smaller; in units of 10**-18."""
        enters = "BUY" if self.trade["direction"] == "LONG" else "SELL"
        return sum(decimals.unscaled(one[name]) for one in self.fills if (one["side"] == enters) == of_entries)


class Trading(NamedTuple):
    """The events of each record by their id, as plain fields; the names are the records' own, of RECORDS."""

    signals: Mapping[str, Plain]
    decisions: Mapping[str, Plain]
    trades: Mapping[str, Plain]
    dispatches: Mapping[str, Plain]
    fills: Mapping[str, Plain]
    closes: Mapping[str, Plain]

    @classmethod
    def of(cls, contents: Mapping[str, TopicContent], catalogue: Catalogue) -> Trading:
        """What the topics hold."""
        return cls(*(contents[catalogue.topic_name(catalogue.by_record(record))].events for record in RECORDS))

    @property
    def passed(self) -> list[Plain]:
        """The decisions that let a signal pass."""
        return [one for one in self.decisions.values() if one["outcome"] == "PASSED"]

    @property
    def orders(self) -> list[Order]:
        """The legs that are to be dispatched: the trade's own order is leg 0."""
        return [
            (trade_id, leg)
            for trade_id, trade in self.trades.items()
            for leg in sorted({0, *(one["leg_index"] for one in trade["legs"])})
        ]

    @property
    def positions(self) -> list[Position]:
        """Every one that was opened, or was to be."""
        fills: defaultdict[str, list[Plain]] = defaultdict(list)
        for fill in sorted(self.fills.values(), key=lambda one: (one["event_time"], one["event_id"])):
            fills[fill["position_ref"] or fill["trade_id"]].append(fill)
        return [Position(one, fills[trade_id]) for trade_id, one in self.trades.items() if one["action"] == "ENTER"]

    def ends(self) -> dict[Order, list[Plain]]:
        """The outcomes that are the last word on an order: there should be one."""
        found: defaultdict[Order, list[Plain]] = defaultdict(list)
        for one in self.dispatches.values():
            if one["outcome"] not in (INTENDED, TIMEOUT):
                found[one["trade_id"], one["leg_index"]].append(one)
        return found

    def is_on_paper(self, fill: Plain) -> bool:
        """Whether the order of a fill went to the paper executor."""
        ends = self.ends().get((fill["trade_id"], fill["leg_index"]), ())
        return all(one["executor"] == PAPER for one in ends)

    def over(self) -> list[Position]:
        """The positions that have to be closed: nothing is held any more, or nothing ever will be."""
        ends = self.ends()
        unfilled = {
            trade_id
            for (trade_id, leg) in self.orders
            if all(one["outcome"] in NEVER_TAKEN for one in ends[trade_id, leg]) and ends[trade_id, leg]
        }
        return [
            one
            for one in self.positions
            if (one.fills and one.held == 0) or (not one.fills and one.trade["trade_id"] in unfilled)
        ]


def expected_ids(trading: Trading, signal_ids: Iterable[str], book: Book, catalogue: Catalogue) -> dict[str, set[str]]:
    """By record, the ids of all that has to follow from the signals that the bot emitted, step by step.

    The fills of another venue than the one on paper are what they are.
    """
    ids = _Ids(catalogue)
    return {
        "SignalDecision": {ids.of("SignalDecision", signal_id=one, stage=STAGE) for one in signal_ids},
        "Trade": {ids.of("Trade", signal_id=one["signal_id"], account_id=None) for one in trading.passed},
        "TradeDispatch": {
            ids.of("TradeDispatch", trade_id=trade_id, leg_index=leg, attempt=attempt, outcome=outcome)
            for trade_id, leg in trading.orders
            for attempt, outcome in _attempts(trading, (trade_id, leg))
        },
        "Fill": {
            ids.of("Fill", venue=trading.trades[trade_id]["venue"], account_id=None,
                   venue_order_id=f"paper-{trade_id}-{leg}", venue_trade_id=str(number + 1))
            for trade_id, leg in trading.orders if (trade_id, leg) in book
            for number in range(book[trade_id, leg].fills)
        } | {fill_id for fill_id, fill in trading.fills.items() if not trading.is_on_paper(fill)},
        "TradeClosed": {ids.of("TradeClosed", trade_id=one.trade["trade_id"]) for one in trading.over()},
    }  # fmt: skip


def _attempts(trading: Trading, order: Order) -> list[tuple[int, str]]:
    """What has to be told of an order: each attempt is intended, and answered; only the last one's answer is final."""
    told = [one for one in trading.dispatches.values() if (one["trade_id"], one["leg_index"]) == order]
    last = max((one["attempt"] for one in told), default=1)
    final = next((one["outcome"] for one in trading.ends().get(order, ())), ACKED)
    steps = [(attempt, outcome) for attempt in range(1, last) for outcome in (INTENDED, TIMEOUT)]
    return [*steps, (last, final)] if final == "EXPIRED" else [*steps, (last, INTENDED), (last, final)]


class _Ids:
    def __init__(self, catalogue: Catalogue) -> None:
        self._catalogue = catalogue

    def of(self, record: str, **parts: Any) -> str:
        derive = self._catalogue.by_record(record).derive_id
        assert derive is not None
        return derive(parts)


def still_to_come(trading: Trading, book: Book, *, made: Collection[str], market_end_us: int) -> Counter[str]:
    """How many of each record have to follow, of those that are `made` by somebody; nothing when the run has settled.

    The market's last bar closed at its end.
    """
    decided = {one["signal_id"] for one in trading.decisions.values()}
    closed = {one["trade_id"] for one in trading.closes.values()}
    missing = {
        "SignalDecision": len(trading.signals.keys() - decided),
        "Trade": sum(one["trade_id"] not in trading.trades for one in trading.passed),
        "TradeDispatch": len(set(trading.orders) - trading.ends().keys()),
        "Fill": _fillable(trading, book, market_end_us),
        "TradeClosed": sum(one.trade["trade_id"] not in closed for one in trading.over()),
    }
    return +Counter({record: count for record, count in missing.items() if record in made})


def _fillable(trading: Trading, book: Book, market_end_us: int) -> int:
    """Open orders that a bar of the market can fill: one that opens at or after the trade's time."""
    still_open: Collection[str] = [trade_id for (trade_id, _), order in book.items() if not order.is_done]
    return sum(trading.trades[trade_id]["event_time"] < market_end_us for trade_id in still_open)
