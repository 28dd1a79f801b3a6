"""An order on its way: how far this process has brought it, so that it goes on where a dependency failed it."""

from __future__ import annotations

import threading
from datetime import datetime

import msgspec

from tradetape.schemas import DispatchOutcome, RunMode
from tradetape.sinks.dispatch.executor import Answer, Order

FINAL = frozenset(
    (
        DispatchOutcome.SENT,
        DispatchOutcome.ACKED,
        DispatchOutcome.REJECTED,
        DispatchOutcome.EXPIRED,
        DispatchOutcome.SKIPPED_DUPLICATE,
        DispatchOutcome.IN_DOUBT,
    )
)
"""The outcomes after which nothing more is sent. A TIMEOUT is followed by another attempt, or by IN_DOUBT."""


class Attempt(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table of intents; `outcome` is None while nobody knows what became of it."""

    trade_id: str
    leg_index: int
    attempt: int
    intended_at: datetime
    executor: str
    outcome: DispatchOutcome | None
    external_id: str | None
    error: str | None
    is_refused: bool
    is_on_tape: bool
    resolved_why: str | None
    run_mode: RunMode
    correlation_id: str
    venue: str
    symbol: str

    @property
    def is_final(self) -> bool:
        """Whether nothing more is to be sent for this leg."""
        return self.outcome in FINAL


class Job:
    """One order. Used by one lane."""

    def __init__(self, order: Order, *, offset: int) -> None:
        self.order = order
        self.offset = offset
        self.lane = f"{order.trade.venue}:{order.trade.symbol}"
        self.dropped = threading.Event()
        """Set when its partition is somebody else's."""
        self.attempt: Attempt | None = None
        self.is_uncalled = False
        """Whether the attempt is this process' own and the executor was certainly not called for it."""
        self.is_told = False
        """Whether the tape knows of the intent."""
        self.answer: Answer | None = None
        """What the executor said, until it is written down."""
        self.refusals = 0
