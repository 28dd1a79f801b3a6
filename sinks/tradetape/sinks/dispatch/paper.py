"""The paper executor: takes orders as a venue would, and fills them from the candles of the tape (paper_fills.py).

Orders stand in PostgreSQL and are known by trade and leg, so a repeat is no second order. A fill is on the tape before
the table says so: after a crash it is told again, under the same id.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Mapping
from decimal import Decimal
from typing import Any

import msgspec
from psycopg.rows import dict_row

from tradetape.schemas import Action, Codec, DispatchOutcome, Event, Side, Trade, times
from tradetape.schemas.names import record_key
from tradetape.sinks.dispatch.executor import Answer, Order
from tradetape.sinks.dispatch.intents import Intents, statement
from tradetape.sinks.dispatch.market_time import Bar, MarketTime
from tradetape.sinks.dispatch.paper_fills import CannotPlace, PaperOrder, PaperTerms, filled, order_id, placed, price_in


class PaperExecutor:
    """Executor, and listener of the market."""

    name = "paper"
    is_idempotent = True

    def __init__(
        self, *, intents: Intents, tell: Callable[[Event], None], market: MarketTime, codec: Codec, terms: PaperTerms
    ) -> None:
        self._intents = intents
        self._tell = tell
        self._market = market
        self._codec = codec
        self._topic = codec.catalogue.topic_name(codec.catalogue.by_class(Trade))
        self._terms = terms
        self._lock = threading.Lock()
        self._open: dict[tuple[str, int], PaperOrder] = {}
        self._coming: dict[tuple[str, int], PaperOrder] = {}
        """Taken, and open once the market tells its bars from the order's time on."""
        market.listen(self)

    def submit(self, order: Order) -> Answer:
        """Take an order; REJECTED for one that says too little."""
        if order.trade.action is Action.CANCEL:
            self._cancel(str(order.trade.position_ref))
            return Answer(DispatchOutcome.ACKED, order_id(order))
        try:
            paper = placed(order)
            if not (paper.is_opening or order.trade.quantity or order.amount_quote or self._position(paper)):
                raise CannotPlace(f"no order of position {paper.position_id} is known, and it names no size")
        except CannotPlace as why:
            return Answer(DispatchOutcome.REJECTED, None, str(why))
        self._take(paper)
        return Answer(DispatchOutcome.ACKED, order_id(order))

    def resume(self, order: Order) -> None:
        """Take it up again where the table was restored to a time before it."""
        self.submit(order)

    def _take(self, paper: PaperOrder) -> None:
        order, trade = paper.order, paper.order.trade
        with self._intents.session() as connection:
            row = connection.execute(statement("open_paper_order"), {
                "trade_id": trade.trade_id, "leg_index": order.leg_index, "partition": order.partition,
                "trade": order.value, "position_id": paper.position_id, "side": paper.side.value,
                "is_opening": paper.is_opening, "size": paper.size,
            }).fetchone()  # fmt: skip
        if row is None:
            # Known: it is open already, or it is filled.
            return
        self._follow(paper)

    def taken(self, partitions: list[int]) -> None:
        """Take up the open orders of these partitions."""
        with self._intents.session() as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows = cursor.execute(statement("open_paper_orders"), {"partitions": partitions}).fetchall()
        for row in rows:
            self._follow(self._from_row(row))

    def _follow(self, paper: PaperOrder) -> None:
        """Have it open before the first candle is told that can fill it: no later one may come first."""
        order, trade = paper.order, paper.order.trade
        with self._lock:
            self._coming[_id(paper)] = paper

        def ready() -> None:
            with self._lock:
                # Not when it was cancelled meanwhile, or its partition was somebody else's.
                if self._coming.get(_id(paper)) is paper:
                    self._open[_id(paper)] = self._coming.pop(_id(paper))

        if paper.candle_offset >= 0:
            self._market.tell_from_offset(order.partition, paper.candle_offset + 1, ready)
            return
        assert trade.event_time is not None
        key = record_key(trade.venue, trade.symbol)
        self._market.tell_from(order.partition, key, times.from_datetime(trade.event_time), ready)

    def released(self, partitions: list[int]) -> None:
        """Forget theirs."""
        with self._lock:
            for orders in (self._coming, self._open):
                for key in [key for key, one in orders.items() if one.order.partition in partitions]:
                    del orders[key]

    def wants(self, key: bytes) -> bool:
        """Whether an order of this market is open."""
        with self._lock:
            return any(record_key(one.order.trade.venue, one.order.trade.symbol) == key for one in self._open.values())

    def on_bar(self, bar: Bar) -> None:
        """Fill what this bar fills. Raises Transient, after which the same bar comes again."""
        with self._lock:
            for one in [*self._open.values()]:
                trade = one.order.trade
                if (trade.venue, trade.symbol) == (
                    bar.candle.venue,
                    bar.candle.symbol,
                ) and bar.offset > one.candle_offset:
                    self._match(one, bar)

    def _match(self, paper: PaperOrder, bar: Bar) -> None:
        # An order that closes a position may have ended this one on the same bar.
        price = price_in(paper, bar.candle) if _id(paper) in self._open else None
        if price is None:
            return
        held = None
        if not paper.is_opening and paper.fills == 0 and (position := self._position(paper)):
            held = _held(position)
            if paper.order.trade.action is Action.EXIT:
                self._end(one for one in self._open.values() if one.is_opening and one.position_id == paper.position_id)
        after, fill = filled(paper, bar.candle, bar.offset, price, self._terms, held=held)
        if fill is not None:
            self._tell(fill)
        if after != paper:
            self._keep(after)

    def _position(self, paper: PaperOrder) -> list[Mapping[str, Any]]:
        """The orders that the position of a closing one is made of; empty where it is not known here."""
        with self._intents.session() as connection, connection.cursor(row_factory=dict_row) as cursor:
            rows: list[Any] = cursor.execute(statement("paper_position"), {"position_id": paper.position_id}).fetchall()
        return rows if any(row["is_opening"] for row in rows) else []

    def _cancel(self, position_id: str) -> None:
        with self._lock:
            taken = [*self._coming.values(), *self._open.values()]
            self._end(one for one in taken if one.position_id == position_id)

    def _end(self, papers: Iterable[PaperOrder]) -> None:
        for one in [*papers]:
            self._keep(msgspec.structs.replace(one, is_done=True))

    def _keep(self, paper: PaperOrder) -> None:
        with self._intents.session() as connection:
            connection.execute(statement("fill_paper_order"), {
                "trade_id": paper.order.trade.trade_id, "leg_index": paper.order.leg_index, "size": paper.size,
                "filled_quantity": paper.filled_quantity, "fills": paper.fills, "candle_offset": paper.candle_offset,
                "is_done": paper.is_done,
            })  # fmt: skip
        if paper.is_done:
            self._coming.pop(_id(paper), None)
            self._open.pop(_id(paper), None)
        else:
            self._open[_id(paper)] = paper

    def _from_row(self, row: Mapping[str, Any]) -> PaperOrder:
        trade = self._codec.decode(self._topic, row["trade"])
        assert isinstance(trade, Trade)
        order = Order(trade=trade, leg_index=row["leg_index"], partition=row["partition"], value=row["trade"])
        return PaperOrder(
            order=order, position_id=row["position_id"], side=Side(row["side"]), is_opening=row["is_opening"],
            size=row["size"], filled_quantity=row["filled_quantity"], fills=row["fills"],
            candle_offset=row["candle_offset"],
        )  # fmt: skip


def _id(paper: PaperOrder) -> tuple[str, int]:
    return str(paper.order.trade.trade_id), paper.order.leg_index


def _held(position: Iterable[Mapping[str, Any]]) -> Decimal:
    """What is left of a position: what opened it less what closed it."""
    signed = (row["filled_quantity"] if row["is_opening"] else -row["filled_quantity"] for row in position)
    return max(sum(signed, Decimal(0)), Decimal(0))
