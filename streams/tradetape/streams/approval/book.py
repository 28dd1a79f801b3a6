"""What approval knows of its account: open trades, and each symbol's last one. No I/O, and no clock.

Whatever order events come in, the book that they make is the same: it may be written along the way or be made anew
from the tape, by two workers at once. What is newest goes by event time and id, and what is closed stays closed.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from decimal import Decimal

import msgspec

from tradetape.schemas import (
    Action,
    DispatchOutcome,
    Event,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
)
from tradetape.streams.approval.policy import Facts, Policy, recorded


class OpenTrade(msgspec.Struct, frozen=True):
    """A trade that was approved, and has neither been closed nor expired before it was sent."""

    series: str
    """VENUE:SYMBOL."""
    legs: tuple[int, ...]
    """Those that have not expired."""


class Last(msgspec.Struct, frozen=True):
    """The last opening and the last close of one symbol."""

    opened_at: datetime | None = None
    trade_id: str = ""
    """Which opening that was."""
    price: Decimal | None = None
    closed_at: datetime | None = None

    def newer(self, other: Last) -> Last:
        """Of each part the newer one."""
        opening = max(self, other, key=_opening)
        closes = [at for at in (self.closed_at, other.closed_at) if at is not None]
        return msgspec.structs.replace(opening, closed_at=max(closes, default=None))


def _opening(last: Last) -> tuple[bool, datetime | None, str]:
    # Only where one is None and the other not does the first part decide, so a time meets no None.
    return last.opened_at is not None, last.opened_at, last.trade_id


NOTHING = Last()


def ends_a_leg(dispatch: TradeDispatch) -> bool:
    """Whether it changes the book of whoever is told of it: most only say how an order gets on."""
    return dispatch.outcome == DispatchOutcome.EXPIRED


class Book:
    """The book of one account, with those symbols that are needed; what has changed is told apart.

    `ended` and what has expired are known of what this book was told itself, and are not written: it may be told of a
    trade after it was told of its end.
    """

    def __init__(self, trades: Mapping[str, OpenTrade] | None = None, last: Mapping[str, Last] | None = None) -> None:
        self.trades = dict(trades or {})
        self.last = dict(last or {})
        self.ended: set[str] = set()
        self.changed_trades: set[str] = set()
        """Opened, changed or ended."""
        self.changed_series: set[str] = set()
        self._expired: dict[str, set[int]] = {}

    @property
    def has_changed(self) -> bool:
        """Whether there is anything to write."""
        return bool(self.changed_trades or self.changed_series)

    def facts(self, signal: TradeSignal, policy: Policy) -> Facts:
        """What a signal is judged by."""
        series = series_of(signal)
        last = self.last.get(series, NOTHING)
        return Facts(
            is_opening=signal.action == Action.ENTER,
            price=price_of(signal),
            open_trades=len(self.trades),
            open_trades_of_symbol=sum(one.series == series for one in self.trades.values()),
            last_price=last.price,
            last_opened_at=last.opened_at,
            last_closed_at=last.closed_at,
            is_symbol_allowed=policy.allows(signal.venue, signal.symbol),
        )

    def approved(self, trade: Trade) -> None:
        """A trade was approved; one that opens a position is open from now on."""
        if trade.action == Action.ENTER:
            series = series_of(trade)
            self._open(trade.trade_id, OpenTrade(series, legs_of(trade)))
            opening = Last(opened_at=trade.event_time, trade_id=trade.trade_id, price=trade.planned_entry_price)
            self._set_last(series, opening)

    def decided(self, decision: SignalDecision) -> None:
        """A signal passed whose trade may not be on the tape yet: it will be, for nobody takes the decision anew."""
        if decision.trade_id is not None and (facts := recorded(decision.facts)[0]).is_opening:
            series = series_of(decision)
            if decision.trade_id not in self.trades:
                self._open(decision.trade_id, OpenTrade(series, FIRST_LEG))
            self._set_last(series, Last(opened_at=decision.event_time, trade_id=decision.trade_id, price=facts.price))

    def refused(self, trade_id: str) -> None:
        """There is no such trade, whatever another decision said. When its symbol was traded last stays as that said."""
        if self.trades.pop(trade_id, None) is not None:
            self.changed_trades.add(trade_id)

    def closed(self, closed: TradeClosed) -> None:
        """A position has ended."""
        self._end(closed.trade_id)
        self._set_last(series_of(closed), Last(closed_at=closed.event_time))

    def dispatched(self, dispatch: TradeDispatch) -> None:
        """A leg that expired was never sent, and never will be: a trade without any other leg is over.

        A refused or doubtful leg is not: it may be tried again, and only its close says that it was not.
        """
        if ends_a_leg(dispatch):
            self._expired.setdefault(dispatch.trade_id, set()).add(dispatch.leg_index)
            if (trade := self.trades.get(dispatch.trade_id)) is not None:
                self._open(dispatch.trade_id, trade)

    def merge(self, tape: Book) -> None:
        """Learn what the tape says; what this book knows besides is on its way there."""
        for trade_id in self.trades.keys() & tape.ended:
            self._end(trade_id)
        for trade_id, trade in tape.trades.items():
            self._open(trade_id, trade)
        for series, last in tape.last.items():
            self._set_last(series, last)

    def _open(self, trade_id: str, trade: OpenTrade) -> None:
        legs = tuple(leg for leg in trade.legs if leg not in self._expired.get(trade_id, ()))
        if trade_id in self.ended or not legs:
            self._end(trade_id)
        elif self.trades.get(trade_id) != (left := OpenTrade(trade.series, legs)):
            self.trades[trade_id] = left
            self.changed_trades.add(trade_id)

    def _end(self, trade_id: str) -> None:
        self.ended.add(trade_id)
        if self.trades.pop(trade_id, None) is not None:
            self.changed_trades.add(trade_id)

    def _set_last(self, series: str, last: Last) -> None:
        held = self.last.get(series, NOTHING)
        newer = held.newer(last)
        if newer != held:
            self.last[series] = newer
            self.changed_series.add(series)


def series_of(event: Event) -> str:
    """What openings are limited by: a symbol of a venue."""
    return f"{event.venue}:{event.symbol}"


def price_of(signal: TradeSignal) -> Decimal | None:
    """The price at which it would be traded: its limit or trigger price, else the one it was decided at."""
    return signal.reference_price if signal.entry_price is None else signal.entry_price


FIRST_LEG = (0,)


def legs_of(trade: Trade) -> tuple[int, ...]:
    """The legs that are dispatched of a trade: the first, and the further ones that it plans."""
    return tuple(sorted({*FIRST_LEG, *(leg.leg_index for leg in trade.legs)}))
