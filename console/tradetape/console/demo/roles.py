"""Which workers a run meets: in which consumer group each reads, what it reads, and what it makes of that.

The groups are those that `tradetape work` takes by default.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

from tradetape.schemas import Catalogue
from tradetape.streams.processors.current_state import RECORDS


class Role(NamedTuple):
    """One worker. `options` are those with which the demo starts its own; `reads` is None for every record there is."""

    name: str
    options: tuple[str, ...] = ()
    reads: tuple[str, ...] | None = None
    makes: tuple[str, ...] = ()

    @property
    def group(self) -> str:
        """Its consumer group."""
        return f"tradetape-{self.name}"

    def topics(self, catalogue: Catalogue) -> set[str]:
        """The topics that it reads."""
        records = self.reads or tuple(one.record for one in catalogue)
        return {catalogue.topic_name(catalogue.by_record(record)) for record in records}


STATE = Role("state", reads=tuple(RECORDS))
HISTORY = Role("history")
APPROVAL = Role(
    "approval", ("--engine", "kafka"), ("TradeSignal", "TradeClosed", "TradeDispatch"), ("SignalDecision", "Trade")
)
DISPATCH = Role("dispatch", ("--executor", "paper"), ("Trade",), ("TradeDispatch", "Fill"))
POSITIONS = Role("positions", ("--engine", "kafka"), ("Trade", "TradeDispatch", "Fill"), ("TradeClosed",))
NEEDED = (STATE, HISTORY)
TRADING = (APPROVAL, DISPATCH, POSITIONS)
"""Those that a run on somebody else's services can do without; what they would make is not expected then."""


def made_by(roles: Iterable[Role]) -> frozenset[str]:
    """The records that these make."""
    return frozenset(record for role in roles for record in role.makes)
