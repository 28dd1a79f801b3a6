"""What the system is busy with, as current state tells it: decisions by minute, last scans, trades in flight.

Types, and how they are read from what Redis answers; reader.py asks.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

import msgspec

from tradetape.schemas import times

OUTCOMES = ("PASSED", "REJECTED", "SKIPPED", "ERROR", "UNKNOWN")
_CLOSED = "CLOSED"

Hash = Mapping[bytes, bytes]


class DecisionCounts(msgspec.Struct, frozen=True, kw_only=True):
    """How many decisions a stage made in the minute that begins at `minute`, by outcome, each decision once."""

    stage: str
    minute: datetime
    by_outcome: dict[str, int]

    @property
    def total(self) -> int:
        """How many signals it looked at."""
        return sum(self.by_outcome.values())

    @property
    def passed(self) -> int:
        """How many of them went on."""
        return self.by_outcome.get("PASSED", 0)


class LastScan(msgspec.Struct, frozen=True, kw_only=True):
    """The newest decision of a stage, or signal of a strategy: `what` is its outcome, or action."""

    event_time: datetime
    event_id: str
    age: timedelta
    venue: str
    symbol: str
    what: str


class TradeInFlight(msgspec.Struct, frozen=True, kw_only=True):
    """A trade that was approved and whose position is not closed. `dispatched` is the newest outcome, None before any."""

    trade_id: str
    event_time: datetime
    age: timedelta
    action: str
    direction: str
    strategy_id: str | None
    position_ref: str | None
    planned_entry_price: Decimal | None
    dispatched: str | None


def decision_counts(stage: str, minute_us: int, sizes: Sequence[int]) -> DecisionCounts | None:
    """The counts of one minute, given one for each of OUTCOMES; None where there is none."""
    by_outcome = {outcome: size for outcome, size in zip(OUTCOMES, sizes, strict=True) if size}
    if not by_outcome:
        return None
    return DecisionCounts(stage=stage, minute=times.to_datetime(minute_us), by_outcome=by_outcome)


def last_scan(found: Hash, now_us: int) -> LastScan:
    """What a hash of the kind `scan` says."""
    event_time_us = int(found[b"_t"])
    return LastScan(
        event_time=times.to_datetime(event_time_us),
        event_id=found[b"_id"].decode(),
        age=timedelta(microseconds=now_us - event_time_us),
        **{name: found.get(name.encode(), b"").decode() for name in ("venue", "symbol", "what")},
    )


def trades_in_flight(found: Hash, now_us: int) -> list[TradeInFlight]:
    """The trades of a symbol's hash that are known and not closed, nor the position that they belong to; the oldest first."""
    text = {name.decode(): value.decode() for name, value in found.items()}
    current = {name: value for name, value in text.items() if ":" not in name and not _has_expired(value, now_us)}
    closed = {trade_id for trade_id, value in current.items() if value.startswith(_CLOSED)}
    flying = (
        _in_flight(trade_id, value, text, now_us)
        for trade_id, value in current.items()
        if not closed & {trade_id, text.get(f"{trade_id}:position_ref")}
    )
    return sorted(flying, key=lambda one: (one.event_time, one.trade_id))


def _has_expired(value: str, now_us: int) -> bool:
    return int(value.rpartition(" ")[2]) * 1_000 <= now_us


def _in_flight(trade_id: str, value: str, text: Mapping[str, str], now_us: int) -> TradeInFlight:
    action, direction, event_time, _, _ = value.split()
    price, dispatch = text.get(f"{trade_id}:planned_entry_price"), text.get(f"{trade_id}:dispatch")
    return TradeInFlight(
        trade_id=trade_id,
        event_time=times.to_datetime(int(event_time)),
        age=timedelta(microseconds=now_us - int(event_time)),
        action=action,
        direction=direction,
        strategy_id=text.get(f"{trade_id}:strategy_id"),
        position_ref=text.get(f"{trade_id}:position_ref"),
        planned_entry_price=Decimal(price) if price else None,
        dispatched=dispatch.split()[0] if dispatch else None,
    )


def minutes_until(now_us: int, count: int) -> Iterator[int]:
    """The beginnings of the last minutes, the one at hand included, the oldest first."""
    current_us = now_us // times.MINUTE_US * times.MINUTE_US
    yield from range(current_us - (count - 1) * times.MINUTE_US, current_us + 1, times.MINUTE_US)
