"""A person says what became of an order in doubt: first in the table, then on the tape, then that the tape has it.

Where the person knows of a fill it goes onto the tape before the outcome, so that no outcome stands there without it.

A crash in between is mended by the same command again, or by the tape itself when the partition is next taken.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import msgspec
import psycopg
from psycopg.rows import dict_row

from tradetape.schemas import DispatchOutcome, Event
from tradetape.sinks.dispatch.dispatcher import event_of
from tradetape.sinks.dispatch.intents import statement
from tradetape.sinks.dispatch.job import Attempt
from tradetape.sinks.errors import NotInDoubt
from tradetape.sinks.history.connection import passing_errors

MEANINGS = {
    "filled": DispatchOutcome.ACKED,
    "accepted": DispatchOutcome.ACKED,
    "failed": DispatchOutcome.REJECTED,
    "expired": DispatchOutcome.EXPIRED,
}
"""What a person may say, and the outcome that it is: the executor has the order, or it will never have it."""


def resolve(
    connection: psycopg.Connection,
    tell: Callable[[Event], None],
    *,
    trade_id: str,
    leg_index: int,
    meaning: str,
    why: str,
    external_id: str | None = None,
    fill_of: Callable[[Attempt], Event] | None = None,
) -> Attempt:
    """Give an order in doubt its outcome; what is known of it then. `fill_of` makes the fill that the person tells of.

    Raises NotInDoubt, DatabaseUnavailable, EffectsRefused.
    """
    order = {"trade_id": trade_id, "leg_index": leg_index}
    with passing_errors():
        connection.execute(statement("durable"))
        known = _row(connection, "last_attempt", order)
        if known is None:
            raise NotInDoubt(f"no order of trade {trade_id} leg {leg_index} was ever dispatched")
        given = {"outcome": MEANINGS[meaning].value, "external_id": external_id, "why": why}
        resolved = _row(connection, "resolve", {**order, "attempt": known.attempt, **given})
        if resolved is None:
            state = known.outcome.value if known.outcome else "still open: its dispatcher goes on with it"
            raise NotInDoubt(f"trade {trade_id} leg {leg_index} is not in doubt: {state}")
        if fill_of is not None:
            tell(fill_of(resolved))
        tell(event_of(resolved))
        connection.execute(statement("on_tape"), {
            "trade_ids": [trade_id], "leg_indexes": [leg_index], "attempts": [resolved.attempt],
            "outcomes": [given["outcome"]],
        })  # fmt: skip
    return msgspec.structs.replace(resolved, is_on_tape=True)


def _row(connection: psycopg.Connection, name: str, parameters: dict[str, Any]) -> Attempt | None:
    with connection.cursor(row_factory=dict_row) as cursor:
        row = cursor.execute(statement(name), parameters).fetchone()
    return None if row is None else msgspec.convert(row, Attempt)
