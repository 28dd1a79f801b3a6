"""Who carries an order out: the protocol of executors, what they are given, and what they may say.

An executor of one's own is a class with `name`, `is_idempotent` and `submit`, named on the command line as
package.module:Class. Whatever `submit` raises but OrderNotTaken means that nobody knows whether the order was taken.
"""

from __future__ import annotations

import importlib
from decimal import Decimal
from typing import Any, NamedTuple, Protocol, runtime_checkable

import msgspec

from tradetape.schemas import DispatchOutcome, Leg, Trade
from tradetape.sinks.errors import ExecutorUnusable


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """One leg of a trade, as it is handed over. Leg 0 is the trade's own order, also where `legs` does not list it."""

    trade: Trade
    leg_index: int
    partition: int
    """Of the trade's topic."""
    value: bytes
    """The trade as it lies on the tape."""

    @property
    def key(self) -> str:
        """The idempotency key: the same for every attempt."""
        return f"{self.trade.idempotency_key}:{self.leg_index}"

    @property
    def leg(self) -> Leg | None:
        """What the trade plans for this leg, None where it plans nothing of its own."""
        return next((leg for leg in self.trade.legs if leg.leg_index == self.leg_index), None)

    @property
    def amount_quote(self) -> Decimal | None:
        """The leg's size in quote currency, else the trade's; None when unknown."""
        leg = self.leg
        return leg.amount_quote if leg is not None and leg.amount_quote is not None else self.trade.amount_quote


def orders_of(trade: Trade, *, partition: int, value: bytes) -> list[Order]:
    """A trade's orders by leg: its own, and one for each further leg."""
    indexes = sorted({0, *(leg.leg_index for leg in trade.legs)})
    return [Order(trade=trade, leg_index=index, partition=partition, value=value) for index in indexes]


class Answer(NamedTuple):
    """What the far side said: ACKED, SENT (taken, not looked at yet) or REJECTED, its id of the order, and why."""

    outcome: DispatchOutcome = DispatchOutcome.ACKED
    external_id: str | None = None
    error: str | None = None


class OrderNotTaken(Exception):
    """The order was certainly not taken, and may be sent again after `retry_after_s`.

    `is_away` says that nobody was there to refuse it: that is waited for without limit, a refusal is not.
    """

    def __init__(self, why: str, *, retry_after_s: float = 0.0, is_away: bool = False) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s
        self.is_away = is_away


class Executor(Protocol):
    """Takes orders. Called by several threads at once, by one for each symbol."""

    name: str
    """What the tape calls it."""
    is_idempotent: bool
    """Whether a repeat under the same key is no second order. Only then is anything ever sent twice."""

    def submit(self, order: Order) -> Answer:
        """Hand an order over under `order.key`, within a few seconds.

        Raises OrderNotTaken where it certainly was not taken; anything else leaves it in doubt.
        """


@runtime_checkable
class Lookup(Protocol):
    """An executor that can be asked what became of an order."""

    def lookup(self, order: Order) -> Answer | None:
        """What the far side knows under `order.key`; None where it knows nothing, which proves nothing."""


@runtime_checkable
class Following(Protocol):
    """An executor with a memory of its own for each partition."""

    def taken(self, partitions: list[int]) -> None:
        """These partitions are ours: take up their orders again. Raises Transient."""

    def released(self, partitions: list[int]) -> None:
        """They are somebody else's now."""

    def resume(self, order: Order) -> None:
        """It was acknowledged before, as the tape says; take it up again where the memory of it was lost."""


def load(name: str) -> Executor:
    """The executor that package.module:name names: an object, or what a class or function makes. Raises ExecutorUnusable."""
    module, colon, attribute = name.partition(":")
    if not (module and colon and attribute):
        raise ExecutorUnusable(f"{name!r} names no executor: paper, webhook or package.module:name")
    try:
        found: Any = getattr(importlib.import_module(module), attribute)
    except (ImportError, AttributeError) as error:
        raise ExecutorUnusable(f"{name}: {error}") from error
    made = found() if isinstance(found, type) or not hasattr(found, "submit") else found
    missing = [one for one in ("name", "is_idempotent", "submit") if not hasattr(made, one)]
    if missing:
        raise ExecutorUnusable(f"{name} has no {', '.join(missing)}")
    executor: Executor = made
    return executor
