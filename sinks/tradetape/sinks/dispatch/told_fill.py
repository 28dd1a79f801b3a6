"""The fill that a person found at the far side, of an order in doubt: what its executor would have led to."""

from __future__ import annotations

from datetime import datetime
from decimal import Decimal

import msgspec

from tradetape.schemas import Fill, Trade, names
from tradetape.sinks.dispatch.job import Attempt
from tradetape.sinks.dispatch.paper_fills import CannotPlace, amount_of, side_of
from tradetape.sinks.errors import NotInDoubt
from tradetape.streams.tape import Tape

TOLD = "resolved"
"""The venue's id of the execution: a person tells one for each order, and a second telling is the same fill."""


class ToldFill(msgspec.Struct, frozen=True, kw_only=True):
    """What is known of it: price in quote currency, quantity in base currency, and the fee in `fee_asset`."""

    price: Decimal
    quantity: Decimal
    fee: Decimal | None = None
    fee_asset: str | None = None
    """The quote currency where a fee is given without."""
    at: datetime | None = None
    """When it was filled; None for when the order was handed over."""


def find_trade(tape: Tape, trade_id: str) -> Trade:
    """The trade as it lies on the tape. Raises NotInDoubt where it does not, TopicMissing, BrokersUnreachable."""
    for trade in tape.read(Trade, order="tape"):
        if trade.trade_id == trade_id:
            return trade
    raise NotInDoubt(f"trade {trade_id} is not on the tape")


def fill_of(told: ToldFill, trade: Trade, attempt: Attempt) -> Fill:
    """The fill of this attempt's order. Raises NotInDoubt for a trade that neither buys nor sells."""
    try:
        side = side_of(trade.action, trade.direction)
    except CannotPlace as why:
        raise NotInDoubt(f"trade {trade.trade_id}: {why}") from None
    key = f"{trade.idempotency_key}:{attempt.leg_index}"
    fee_asset = told.fee_asset or names.quote_asset(trade.symbol)
    return Fill(
        venue=trade.venue, symbol=trade.symbol, run_mode=trade.run_mode, correlation_id=trade.correlation_id,
        causation_id=trade.event_id, event_time=told.at or attempt.intended_at, trade_id=trade.trade_id,
        leg_index=attempt.leg_index, account_id=trade.account_id, client_order_id=key,
        venue_order_id=attempt.external_id or key, venue_trade_id=TOLD, strategy_id=trade.strategy_id,
        position_ref=trade.position_ref or trade.trade_id, side=side, price=told.price, quantity=told.quantity,
        amount_quote=amount_of(told.price, told.quantity), fee=told.fee,
        fee_asset=None if told.fee is None else fee_asset,
    )  # fmt: skip
