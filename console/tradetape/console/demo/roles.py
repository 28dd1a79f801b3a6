"""Which workers a run has: under what command each starts, in which consumer group it reads, and what.

The groups are those that `tradetape work` takes by default.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from tradetape.schemas import Catalogue
from tradetape.streams.processors.current_state import RECORDS


class Role(NamedTuple):
    """One worker. `records` are those that it reads, None for all that there are."""

    name: str
    group: str
    words: tuple[str, ...]
    records: tuple[str, ...] | None

    def topics(self, catalogue: Catalogue) -> set[str]:
        """The topics that it reads."""
        records = self.records or tuple(one.record for one in catalogue)
        return {catalogue.topic_name(catalogue.by_record(record)) for record in records}


def roles(*, state_engine: str = "faust") -> Sequence[Role]:
    """All of a run; only current state shows what Faust does, the others run on the engine that starts sooner."""
    return (
        _role("state", "--engine", state_engine, records=tuple(RECORDS)),
        _role("history"),
        _role("approval", "--engine", "kafka", records=("TradeSignal", "TradeClosed", "TradeDispatch")),
        _role("dispatch", "--executor", "paper", records=("Trade",)),
        _role("positions", "--engine", "kafka", records=("Trade", "TradeDispatch", "Fill")),
    )


def _role(name: str, *options: str, records: tuple[str, ...] | None = None) -> Role:
    return Role(name, f"tradetape-{name}", ("work", name, *options), records)
