"""The table of intents, as the owner of the partitions: every write finds its own epoch, or writes nothing.

One session, used by one thread at a time. What is committed here survives the server (synchronous_commit = on), and
whoever takes a partition ends this session first: it then reads everything that was ever committed here.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row
from psycopg.sql import SQL

from tradetape.producers.sql_blocks import sql_blocks
from tradetape.schemas import DispatchOutcome, TradeDispatch
from tradetape.sinks.dispatch.executor import Order
from tradetape.sinks.dispatch.job import Attempt
from tradetape.sinks.errors import DatabaseUnavailable, Fenced
from tradetape.sinks.history.connection import connect, passing_errors
from tradetape.sinks.history.offsets import Offsets
from tradetape.streams.processor import Partition

WHY = "resolved_why"
"""The tag in which the tape says why a person gave an outcome."""
_STATEMENTS = Path(__file__).with_name("dispatch.sql")


def statement(name: str) -> SQL:
    """One statement of dispatch.sql."""
    return SQL(sql_blocks(_STATEMENTS)[name])


class Intents:
    """The intents of one sink. Thread-safe. Everything raises DatabaseUnavailable, and Fenced where it writes."""

    def __init__(self, *, dsn: str, sink: str, trades_topic: str, topic_uuid: Callable[[str], str]) -> None:
        self._dsn = dsn
        self._sink = sink
        self._trades_topic = trades_topic
        self._offsets = Offsets(sink, topic_uuid)
        self._lock = threading.RLock()
        self._connection: psycopg.Connection | None = None

    @contextmanager
    def session(self) -> Iterator[psycopg.Connection]:
        """The session, made anew after a loss; what we hold is taken again before anything is written."""
        with self._lock:
            try:
                with passing_errors():
                    if self._connection is None:
                        self._connection = self._connected()
                    yield self._connection
            except DatabaseUnavailable:
                self.close()
                raise

    def _connected(self) -> psycopg.Connection:
        connection = connect(self._dsn, application=f"tradetape-{self._sink}")
        try:
            connection.execute(statement("durable"))
            self._offsets.retake(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def close(self) -> None:
        """Close the session; the next use makes another."""
        with self._lock:
            if self._connection is not None:
                self._connection.close()
                self._connection = None

    def claim(self, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Take partitions from whoever held them; where to go on in each."""
        with self.session() as connection:
            return self._offsets.claim(connection, partitions)

    def release(self, partitions: Sequence[Partition]) -> None:
        """Forget partitions that belong to somebody else now."""
        with self._lock:
            self._offsets.release(partitions)

    def complete(self, place: Partition, events: Sequence[TradeDispatch], end: int) -> None:
        """Take in what the tape says of intents, up to an offset of their topic."""
        with self.session() as connection, connection.transaction():
            for event in events:
                connection.execute(statement("complete"), _told(event))
            self._offsets.advance(connection, {place: end})
        self._offsets.advanced({place: end})

    def intend(
        self, order: Order, *, attempt: int, executor: str, at: datetime, expired: str | None = None
    ) -> tuple[Attempt, bool]:
        """Write an attempt down, already EXPIRED where `expired` says why; the attempt, and whether it was not known.

        One that is known is the newest of its leg, whoever made it.
        """
        trade = order.trade
        values: dict[str, Any] = {
            "trade_id": trade.trade_id, "leg_index": order.leg_index, "attempt": attempt, "intended_at": at,
            "executor": executor, "outcome": DispatchOutcome.EXPIRED.value if expired else None, "error": expired,
            "run_mode": trade.run_mode.value, "correlation_id": trade.correlation_id, "venue": trade.venue,
            "symbol": trade.symbol,
        }  # fmt: skip
        with self.session() as connection:
            made = self._one(connection, "intend", order, values)
            if made is not None:
                return made, True
            known = self._one(connection, "last_attempt", order, {})
            if known is None or known.attempt < attempt:
                raise self._fenced(order)
            # A COMMIT whose answer was lost: nobody else writes this very microsecond as the owner.
            return known, known.attempt == attempt and known.intended_at == at and known.outcome is None

    def intend_again(self, order: Order, attempt: Attempt) -> Attempt:
        """An attempt that was certainly not taken is to be sent once more."""
        with self.session() as connection:
            made = self._one(connection, "intend_again", order, {"attempt": attempt.attempt})
            return made or self._unchanged(connection, order, lambda row: row.outcome is None and not row.is_refused)

    def note(
        self,
        order: Order,
        attempt: Attempt,
        outcome: DispatchOutcome | None,
        *,
        external_id: str | None = None,
        error: str | None = None,
    ) -> Attempt:
        """What became of an attempt; None for one that was certainly not taken and will be sent again."""
        values = {
            "attempt": attempt.attempt, "outcome": outcome and outcome.value, "external_id": external_id, "error": error,
            "is_refused": outcome is None,
        }  # fmt: skip
        with self.session() as connection:
            made = self._one(connection, "note", order, values)
            return made or self._unchanged(connection, order, lambda row: row.outcome is not None)

    def _unchanged(
        self, connection: psycopg.Connection, order: Order, is_settled: Callable[[Attempt], bool]
    ) -> Attempt:
        """A write found nothing to do: an earlier try of it was committed after all, or it is not ours to do."""
        known = self._one(connection, "last_attempt", order, {})
        if known is not None and is_settled(known) and self._is_owned(connection, order):
            return known
        raise self._fenced(order)

    def settle(self, ends: Mapping[Partition, int], told: Sequence[Attempt]) -> None:
        """Move the offsets, and remember which outcomes the tape has."""
        moved = {one: end for one, end in ends.items() if self._is_ahead(one, end)}
        if not moved and not told:
            return
        columns = {
            "trade_ids": [one.trade_id for one in told],
            "leg_indexes": [one.leg_index for one in told],
            "attempts": [one.attempt for one in told],
            "outcomes": [one.outcome and one.outcome.value for one in told],
        }
        with self.session() as connection, connection.transaction():
            connection.execute(statement("on_tape"), columns)
            if moved:
                self._offsets.advance(connection, moved)
        self._offsets.advanced(moved)

    def in_doubt(self) -> int:
        """How many orders wait for a person."""
        with self.session() as connection:
            row = connection.execute(statement("in_doubt")).fetchone()
            assert row is not None
            return int(row[0])

    def _is_ahead(self, place: Partition, end: int) -> bool:
        held = self._offsets.held.get(place)
        return held is not None and (held.next_offset or 0) < end

    def _fence(self, order: Order) -> dict[str, Any]:
        held = self._offsets.held.get(Partition(self._trades_topic, order.partition))
        if held is None:
            raise self._fenced(order)
        return {"sink": self._sink, "uuid": held.uuid, "partition": order.partition, "epoch": held.epoch}

    def _is_owned(self, connection: psycopg.Connection, order: Order) -> bool:
        return connection.execute(statement("owned"), self._fence(order)).fetchone() is not None

    def _fenced(self, order: Order) -> Fenced:
        return Fenced(f"{self._trades_topic}[{order.partition}] was taken over by another dispatcher")

    def _one(
        self, connection: psycopg.Connection, name: str, order: Order, values: Mapping[str, Any]
    ) -> Attempt | None:
        identity = {"trade_id": order.trade.trade_id, "leg_index": order.leg_index}
        with connection.cursor(row_factory=dict_row) as cursor:
            row = cursor.execute(statement(name), {**identity, **self._fence(order), **values}).fetchone()
        return None if row is None else msgspec.convert(row, Attempt)


def _told(event: TradeDispatch) -> dict[str, Any]:
    """A dispatch event as parameters of `complete`. An outcome of a newer version is one that we cannot judge."""
    outcome: str | None = event.outcome.value
    if event.outcome is DispatchOutcome.UNKNOWN:
        outcome = DispatchOutcome.IN_DOUBT.value
    elif event.outcome is DispatchOutcome.INTENDED:
        outcome = None
    return {
        "trade_id": event.trade_id, "leg_index": event.leg_index, "attempt": event.attempt,
        "event_time": event.event_time, "executor": event.executor, "outcome": outcome,
        "external_id": event.external_id, "error": event.error, "why": event.tags.get(WHY), "run_mode": event.run_mode.value,
        "correlation_id": event.correlation_id, "venue": event.venue, "symbol": event.symbol,
    }  # fmt: skip
