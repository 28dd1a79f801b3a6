"""How candles fill orders on paper, worked out by hand."""

from __future__ import annotations

from decimal import Decimal
from typing import Any

import pytest

from dispatch_rig import NOON, bar, trade
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import Action, Candle, Direction, Fill, Leg, OrderType
from tradetape.sinks.dispatch.executor import orders_of
from tradetape.sinks.dispatch.paper_fills import CannotPlace, PaperOrder, PaperTerms, filled, placed, price_in

TERMS = PaperTerms(fee_ratio=Decimal("0.001"), volume_ratio=Decimal("0.5"))


def order(leg: int = 0, **more: Any) -> PaperOrder:
    (stamped,) = [RecordingProducer().emit(trade(**more))]
    return placed(orders_of(stamped, partition=0, value=b"")[leg])


def candle(minute: int = 0, **more: Any) -> Candle:
    return RecordingProducer().emit(bar(minute, **more))


def fill_at(paper: PaperOrder, on: Candle, offset: int = 7, **more: Any) -> tuple[PaperOrder, Fill | None]:
    price = price_in(paper, on)
    assert price is not None
    return filled(paper, on, offset, price, TERMS, **more)


def test_a_candle_that_opened_before_the_trade_fills_nothing_and_one_that_opens_with_it_does() -> None:
    paper = order()
    assert price_in(paper, candle(-1)) is None
    assert price_in(paper, candle(0, open="101")) == 101


@pytest.mark.parametrize(
    ("kind", "direction", "wanted", "price"),
    [
        ("LIMIT", "LONG", "95", "95"),  # reached on the way down
        ("LIMIT", "LONG", "103", "100"),  # already better at the open
        ("LIMIT", "LONG", "89", None),
        ("LIMIT", "SHORT", "108", "108"),
        ("LIMIT", "SHORT", "97", "100"),
        ("LIMIT", "SHORT", "111", None),
        ("STOP", "LONG", "108", "108"),
        ("STOP", "LONG", "97", "100"),  # the market opened behind it
        ("STOP", "SHORT", "95", "95"),
        ("STOP", "SHORT", "89", None),
    ],
)
def test_an_order_with_a_price_waits_for_a_candle_that_reaches_it(
    kind: str, direction: str, wanted: str, price: str | None
) -> None:
    paper = order(order_type=OrderType(kind), direction=Direction(direction), planned_entry_price=wanted)
    on = candle(open="100", high="110", low="90", close="105")
    assert price_in(paper, on) == (None if price is None else Decimal(price))


def test_no_candle_gives_more_than_its_share_of_volume() -> None:
    paper, first = fill_at(order(quantity="25"), candle(0, volume="30"), 7)
    assert first is not None
    assert (first.quantity, paper.is_done, paper.candle_offset) == (Decimal(15), False, 7)
    paper, second = fill_at(paper, candle(1, volume="30"), 8)
    assert second is not None
    assert (second.quantity, paper.is_done) == (Decimal(10), True)
    assert (first.venue_trade_id, second.venue_trade_id) == ("1", "2")


def test_an_amount_of_quote_currency_is_a_quantity_at_the_first_price_and_fees_are_a_part_of_it() -> None:
    paper, fill = fill_at(order(quantity=None, amount_quote="100"), candle(open="96", low="90", volume="50"))
    assert fill is not None
    assert (fill.quantity, fill.price) == (Decimal("1.04166666"), Decimal(96))
    assert fill.amount_quote == Decimal("99.99999936")
    assert fill.fee == Decimal("0.09999999936")
    assert paper.is_done


def test_a_closing_order_sells_no_more_than_its_position_holds() -> None:
    closing: dict[str, Any] = {"action": Action.EXIT, "position_ref": "p", "quantity": None}
    _, fill = fill_at(order(**closing), candle(), held=Decimal("1.5"))
    assert fill is not None
    assert (fill.side.value, fill.quantity, fill.position_ref) == ("SELL", Decimal("1.5"), "p")
    paper, none = fill_at(order(**(closing | {"quantity": "3"})), candle(), held=Decimal(0))
    assert (paper.is_done, none) == (True, None)


def test_a_leg_waits_for_its_trigger_with_a_size_of_its_own() -> None:
    paper = order(1, legs=[Leg(leg_index=1, trigger_price="95", amount_quote="190")])
    assert price_in(paper, candle(low="96")) is None
    _, fill = fill_at(paper, candle(low="94"))
    assert fill is not None
    assert (fill.price, fill.quantity, fill.leg_index) == (Decimal(95), Decimal(2), 1)
    assert fill.event_time == NOON.replace(minute=1)


@pytest.mark.parametrize(
    "more",
    [
        {"quantity": None},
        {"direction": Direction.FLAT},
        {"order_type": OrderType.LIMIT},
        {"action": Action.EXIT, "quantity": None},
    ],
)
def test_an_order_that_says_too_little_is_refused(more: dict[str, Any]) -> None:
    with pytest.raises(CannotPlace):
        order(**more)
