"""How candles fill an order that only exists on paper: pure arithmetic, so that the same tape gives the same fills.

A market order takes the open of the first candle that opens at or after the trade's time; one with a price waits for a
candle that reaches it, and takes the open where the market has already passed it. No candle gives more than a share of
its volume: the rest is filled by the next ones.
"""

from __future__ import annotations

from decimal import ROUND_DOWN, ROUND_HALF_EVEN, Context, Decimal

import msgspec

from tradetape.schemas import Action, Candle, Direction, Fill, Liquidity, OrderType, Side, names
from tradetape.sinks.dispatch.executor import Order

QUANTITY_UNIT = Decimal("1e-8")
"""To what a quantity is rounded that an amount of quote currency or a share of a volume gives."""
MONEY_UNIT = Decimal("1e-18")
_WIDE = Context(prec=80)
_STOPS = (OrderType.STOP, OrderType.STOP_LIMIT)
CLOSING = (Action.REDUCE, Action.EXIT)


class PaperTerms(msgspec.Struct, frozen=True, kw_only=True):
    """What trading on paper costs, and how much of a candle it may take; fractions, 0.001 is 0.1 %."""

    fee_ratio: Decimal = Decimal("0.001")
    volume_ratio: Decimal = Decimal(1)


class PaperOrder(msgspec.Struct, frozen=True, kw_only=True):
    """An order and how far it is filled; `size` is None until a price, or the position, says it."""

    order: Order
    position_id: str
    side: Side
    is_opening: bool
    size: Decimal | None
    filled_quantity: Decimal = Decimal(0)
    fills: int = 0
    candle_offset: int = -1
    is_done: bool = False


class CannotPlace(Exception):
    """Why the paper executor refuses an order, in words."""


def placed(order: Order) -> PaperOrder:
    """A trade's order as the paper executor takes it. Raises CannotPlace."""
    trade, leg = order.trade, order.leg
    is_closing = trade.action in CLOSING
    size = trade.quantity if order.leg_index == 0 and (leg is None or leg.amount_quote is None) else None
    amount = order.amount_quote if order.leg_index == 0 else leg and leg.amount_quote
    if size is None and amount is None and not is_closing:
        raise CannotPlace("it has neither a quantity nor an amount")
    if is_closing and trade.position_ref is None and size is None and amount is None:
        raise CannotPlace("it names neither a position nor a size")
    if trade.order_type is not OrderType.MARKET and order.leg_index == 0 and trade.planned_entry_price is None:
        raise CannotPlace(f"a {trade.order_type.value} order needs planned_entry_price")
    return PaperOrder(
        order=order, position_id=trade.position_ref or str(trade.trade_id), side=side_of(trade.action, trade.direction),
        is_opening=not is_closing, size=size,
    )  # fmt: skip


def side_of(action: Action, direction: Direction) -> Side:
    """What a trade's orders do. Raises CannotPlace."""
    if direction not in (Direction.LONG, Direction.SHORT):
        raise CannotPlace(f"direction {direction.value} says neither buy nor sell")
    return Side.BUY if (direction is Direction.LONG) == (action not in CLOSING) else Side.SELL


def price_in(paper: PaperOrder, candle: Candle) -> Decimal | None:
    """At what price a candle fills the order; None where it does not."""
    trade = paper.order.trade
    assert trade.event_time is not None
    if candle.open_time < trade.event_time:
        return None
    wanted = _wanted_price(paper.order)
    if wanted is None:
        return candle.open
    is_from_above = (paper.side is Side.BUY) != (paper.order.leg_index == 0 and trade.order_type in _STOPS)
    if is_from_above:
        return min(candle.open, wanted) if candle.low <= wanted else None
    return max(candle.open, wanted) if candle.high >= wanted else None


def _wanted_price(order: Order) -> Decimal | None:
    """The price that the order waits for; None for at once."""
    trade, leg = order.trade, order.leg
    if leg is not None and leg.trigger_price is not None:
        return leg.trigger_price
    if order.leg_index > 0:
        if leg is None or leg.deviation_ratio is None or trade.planned_entry_price is None:
            return None
        return _WIDE.multiply(trade.planned_entry_price, 1 + Decimal(repr(leg.deviation_ratio))).quantize(
            MONEY_UNIT, context=_WIDE
        )
    return None if trade.order_type is OrderType.MARKET else trade.planned_entry_price


def filled(
    paper: PaperOrder, candle: Candle, offset: int, price: Decimal, terms: PaperTerms, *, held: Decimal | None = None
) -> tuple[PaperOrder, Fill | None]:
    """What a candle that reaches an order's price does to it. `held` is what its position holds, for one that closes it."""
    size = paper.size
    if size is None:
        amount = paper.order.amount_quote
        size = (
            held if amount is None else _WIDE.divide(amount, price).quantize(QUANTITY_UNIT, ROUND_DOWN, context=_WIDE)
        )
    if size is None:
        # Its position is not known any more, and it says no size of its own.
        return msgspec.structs.replace(paper, is_done=True), None
    if held is not None and paper.fills == 0:
        size = min(size, held)
    paper = msgspec.structs.replace(paper, size=size)
    most = _WIDE.multiply(candle.volume, terms.volume_ratio).quantize(QUANTITY_UNIT, ROUND_DOWN, context=_WIDE)
    quantity = min(size - paper.filled_quantity, most)
    if quantity <= 0:
        return msgspec.structs.replace(paper, is_done=size <= paper.filled_quantity), None
    total = paper.filled_quantity + quantity
    paper = msgspec.structs.replace(
        paper, filled_quantity=total, fills=paper.fills + 1, candle_offset=offset, is_done=total >= size
    )
    return paper, _fill(paper, candle, price, quantity, terms)


def _fill(paper: PaperOrder, candle: Candle, price: Decimal, quantity: Decimal, terms: PaperTerms) -> Fill:
    order, trade = paper.order, paper.order.trade
    amount = amount_of(price, quantity)
    is_resting = _wanted_price(order) is not None and trade.order_type not in _STOPS
    return Fill(
        venue=trade.venue, symbol=trade.symbol, run_mode=trade.run_mode, correlation_id=trade.correlation_id,
        causation_id=trade.event_id, event_time=candle.open_time if price == candle.open else candle.close_time,
        trade_id=trade.trade_id, leg_index=order.leg_index, account_id=trade.account_id, client_order_id=order.key,
        venue_order_id=order_id(order), venue_trade_id=str(paper.fills), strategy_id=trade.strategy_id,
        position_ref=paper.position_id, side=paper.side, price=price, quantity=quantity, amount_quote=amount,
        fee=_money(_WIDE.multiply(amount, terms.fee_ratio)), fee_asset=names.quote_asset(trade.symbol),
        liquidity=Liquidity.MAKER if is_resting else Liquidity.TAKER,
    )  # fmt: skip


def order_id(order: Order) -> str:
    """The id that the paper executor gives an order: always the same."""
    return f"paper-{order.trade.trade_id}-{order.leg_index}"


def amount_of(price: Decimal, quantity: Decimal) -> Decimal:
    """Their product, rounded to what the tape can hold."""
    return _money(_WIDE.multiply(price, quantity))


def _money(value: Decimal) -> Decimal:
    return value.quantize(MONEY_UNIT, ROUND_HALF_EVEN, context=_WIDE)
