"""Which fill belongs to which position of one symbol, and which positions have come to their end.

The result must not depend on which topic is read first, so a fill waits until the trade that it names is known, and the
fills behind it wait with it: a position is closed by the same fill whichever way the topics are interleaved. The
waiting has an end, measured in emitted_at and never by a clock: a fill whose trade is not on the tape holds nobody up.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any, NamedTuple

from tradetape.schemas import CloseStatus, TradeClosed, times
from tradetape.schemas.names import record_key
from tradetape.streams.positions.position import Plain, Position, money
from tradetape.streams.positions.price_range import Life, PriceRange

PATIENCE_US = 60 * times.SECOND_US
"""How much later than a fill another one may have been emitted to wait behind it."""
MAX_WAITING_FILLS = 10_000
"""Of one symbol; past it the oldest are given up, and counted."""
MAX_REMEMBERED = 10_000
"""Of one symbol: trades of positions that are over, so that a late fill is known for one; and dispatches of unknown trades."""
FAILURES = {"REJECTED": CloseStatus.FAILED, "EXPIRED": CloseStatus.EXPIRED}
"""The outcomes after which nobody has an order, and none will follow."""
STOPS = ("STOP", "STOP_LIMIT")


class Closing(NamedTuple):
    """A position at its end: what ended it, and how."""

    position: Position
    cause: Plain
    """The fill or the dispatch whose event_time is the close's."""
    status: CloseStatus
    exit_reason: str | None = None

    @property
    def trade_id(self) -> str:
        """The position's id."""
        return str(self.position.trade["trade_id"])

    @property
    def key(self) -> bytes:
        """The key of its records."""
        return record_key(self.position.trade["venue"], self.position.trade["symbol"])

    @property
    def life(self) -> Life | None:
        """From the first fill to the closing one; None where nothing was filled."""
        position = self.position
        if position.opened_at_us is None or position.fill_prices is None:
            return None
        return Life(position.opened_at_us, self.cause["event_time"], position.fill_prices)

    def event(self, prices: PriceRange | None) -> TradeClosed:
        """What goes onto the tape."""
        trade, result = self.position.trade, self.position.result()
        opened_at = self.position.opened_at_us
        return TradeClosed(
            run_mode=trade["run_mode"],
            correlation_id=trade["correlation_id"],
            causation_id=self.cause["event_id"],
            venue=trade["venue"],
            symbol=trade["symbol"],
            trade_id=self.trade_id,
            signal_id=trade["signal_id"],
            strategy_id=trade["strategy_id"],
            direction=trade["direction"],
            leverage=trade["leverage"],
            opened_at=None if opened_at is None else times.to_datetime(opened_at),
            closed_at=times.to_datetime(self.cause["event_time"]),
            min_price=None if prices is None else money(prices[0]),
            max_price=None if prices is None else money(prices[1]),
            close_status=self.status,
            exit_reason=self.exit_reason,
            **result,
        )


class Book:
    """The positions of one symbol at one venue. Fed record by record; everything may come twice."""

    def __init__(self, counts: Counter[str]) -> None:
        """`counts` is told what is passed over, by reason."""
        self._counts = counts
        self.closings: dict[str, Closing] = {}
        """By position, until `closed` says that it is on the tape."""
        self._positions: dict[str, Position] = {}
        self._trades: dict[str, Plain] = {}
        """The trades that change positions, by trade_id."""
        self._changes: defaultdict[str, list[Plain]] = defaultdict(list)
        """The same by the position that they name."""
        self._over: dict[str, None] = {}
        """Positions that are closed on the tape, and the trades of them."""
        self._dispatches: dict[str, dict[int, Plain]] = {}
        """The newest dispatch of each leg, by trade."""
        self._waiting: dict[str, Plain] = {}
        """Fills, by id, in the order of their topic."""
        self._newest_emit_us = 0

    @property
    def open_positions(self) -> int:
        """How many are not over."""
        return len(self._positions)

    def was_closed(self, position_id: str) -> None:
        """It is closed on the tape, which is known before anything else of it."""
        self._is_over(position_id)

    def closed(self, position_id: str) -> None:
        """It is closed on the tape now: nothing of it is remembered but that it is over."""
        del self.closings[position_id], self._positions[position_id]
        self._is_over(position_id)
        for trade in self._changes.pop(position_id, ()):
            del self._trades[trade["trade_id"]]
            self._is_over(trade["trade_id"])
        _forget_oldest(self._over, MAX_REMEMBERED)

    def trade(self, trade: Plain) -> None:
        """A trade that opens a position, or changes one."""
        trade_id, position_ref = trade["trade_id"], trade["position_ref"]
        if trade_id in self._positions or trade_id in self._trades or trade_id in self._over:
            return
        if position_ref in self._over:
            self._is_over(trade_id)
        elif trade["action"] != "ENTER":
            self._trades[trade_id] = trade
            self._changes[position_ref].append(trade)
        elif trade["direction"] in ("LONG", "SHORT"):
            self._positions[trade_id] = Position(trade)
        else:
            self._counts["no_direction"] += 1
            self._is_over(trade_id)
        self._newest_emit_us = max(self._newest_emit_us, trade["emitted_at"])
        self._drain()

    def dispatch(self, dispatch: Plain) -> None:
        """What became of an order."""
        if dispatch["trade_id"] in self._over:
            return
        legs = self._dispatches.setdefault(dispatch["trade_id"], {})
        held = legs.get(dispatch["leg_index"])
        if held is None or _rank(held) <= _rank(dispatch):
            legs[dispatch["leg_index"]] = dispatch
        _forget_oldest(self._dispatches, MAX_REMEMBERED)

    def fill(self, fill: Plain) -> None:
        """An execution."""
        if fill["trade_id"] is None and fill["position_ref"] is None:
            self._counts["fill_names_nothing"] += 1
        elif fill["side"] not in ("BUY", "SELL"):
            self._counts["fill_without_side"] += 1
        else:
            self._waiting.setdefault(fill["event_id"], fill)
            self._newest_emit_us = max(self._newest_emit_us, fill["emitted_at"])
            self._drain()
            self._counts["waited_too_long"] += _forget_oldest(self._waiting, MAX_WAITING_FILLS)

    def lacks_trade_of(self, fill: Plain) -> bool:
        """Whether a fill that comes now would have to wait."""
        return self._found(fill, patiently=True) is None

    def could_end_unfilled(self) -> bool:
        """Whether `end_unfilled` would close anything."""
        return any(True for _ in self._unfilled())

    def end_unfilled(self) -> None:
        """Close what can never be filled, so that it blocks its symbol no longer.

        To be called where all fills are known that are on the tape: a fill proves an order that its dispatch denies.
        """
        for closing in list(self._unfilled()):
            closing.position.is_closed = True
            self.closings[closing.trade_id] = closing

    def _unfilled(self) -> Iterable[Closing]:
        if self._waiting:
            return
        for position_id, position in self._positions.items():
            if position.fill_ids or position.is_closed:
                continue
            cause = _failed(self._dispatches.get(position_id, {}), position.planned_legs)
            if cause is not None:
                yield Closing(position, cause, FAILURES[cause["outcome"]], cause["error"])
            elif (cause := self._cancelled(position_id)) is not None:
                yield Closing(position, cause, CloseStatus.CANCELLED)

    def _cancelled(self, position_id: str) -> Plain | None:
        for trade in self._changes.get(position_id, ()):
            if trade["action"] == "CANCEL":
                for dispatch in self._dispatches.get(trade["trade_id"], {}).values():
                    if dispatch["outcome"] == "ACKED":
                        return dispatch
        return None

    def _drain(self) -> None:
        """Give each waiting fill to its position, in their order."""
        is_blocked = False
        for fill in list(self._waiting.values()):
            patiently = self._newest_emit_us - fill["emitted_at"] <= PATIENCE_US
            found = self._found(fill, patiently=patiently)
            if found is None:
                is_blocked = is_blocked or patiently
            elif not is_blocked:
                del self._waiting[fill["event_id"]]
                self._apply(fill, found)

    def _found(self, fill: Plain, *, patiently: bool) -> Position | str | None:
        """The position of a fill; why there is none and never will be; None while that is not known.

        The trade says more of a fill than the position, so it is waited for even where both are named.
        """
        trade_id, position_id = fill["trade_id"], fill["position_ref"]
        trade = self._trades.get(trade_id)
        if trade_id in self._positions:
            position_id = trade_id
        elif trade is not None:
            position_id = trade["position_ref"] or position_id
        elif trade_id is not None and trade_id not in self._over and patiently:
            return None
        if trade_id in self._over or position_id in self._over:
            return "late_fill"
        if position_id is None and trade is not None:
            return "trade_names_no_position"
        return self._positions.get(position_id)

    def _apply(self, fill: Plain, found: Position | str) -> None:
        if isinstance(found, str):
            self._counts[found] += 1
        elif found.is_closed:
            self._counts["late_fill"] += 1
        elif found.apply(fill):
            closing = self._closing(found, fill)
            self.closings[closing.trade_id] = closing

    def _closing(self, position: Position, fill: Plain) -> Closing:
        trade = self._trades.get(fill["trade_id"])
        told: dict[str, str] = {**(trade["tags"] if trade else {}), **fill["tags"]}
        return Closing(position, fill, _status(position, fill, trade, told), told.get("exit_reason"))

    def _is_over(self, trade_id: str) -> None:
        self._over[trade_id] = None
        self._dispatches.pop(trade_id, None)


def _rank(dispatch: Plain) -> tuple[int, bool]:
    """A result stands above the intent of its attempt, which may be repeated after it."""
    return dispatch["attempt"], dispatch["outcome"] != "INTENDED"


def _failed(legs: dict[int, Plain], planned: Iterable[int]) -> Plain | None:
    """The dispatch by which the last of the planned legs lost its order; None while one has an order, or may have."""
    dispatches: list[Plain] = [legs[leg] for leg in planned if leg in legs and legs[leg]["outcome"] in FAILURES]
    if len(dispatches) < len(set(planned)):
        return None
    return max(dispatches, key=lambda one: (one["event_time"], one["leg_index"]))


def _status(position: Position, fill: Plain, trade: Plain | None, told: dict[str, str]) -> CloseStatus:
    """As the strategy says it in the tag `close_status`; else a stop where a stop order, or its price, ended it."""
    name = told.get("close_status", "")
    if name in CloseStatus.__members__:
        return CloseStatus[name]
    if trade is not None:
        return CloseStatus.STOPPED if trade["order_type"] in STOPS else CloseStatus.COMPLETED
    return CloseStatus.STOPPED if position.is_beyond_stop(fill) else CloseStatus.COMPLETED


def _forget_oldest(kept: dict[str, Any], limit: int) -> int:
    """Keep the newest only; how many were forgotten."""
    too_many = max(0, len(kept) - limit)
    for name in list(kept)[:too_many]:
        del kept[name]
    return too_many
