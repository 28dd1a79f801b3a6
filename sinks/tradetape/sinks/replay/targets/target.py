"""The contract of a replay's target."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple, Protocol

from tradetape.streams.record import Record


class Difference(NamedTuple):
    """What a copy of a table holds beside the live one, over what was replayed."""

    table: str
    same: int
    missing: int
    extra: int
    different: int

    @property
    def is_none(self) -> bool:
        """Whether they hold the same."""
        return not (self.missing or self.extra or self.different)


class Target(Protocol):
    """Takes records; what it cannot take it hands to the replay's refusals. May be given the last chunk again."""

    begins_anew: bool
    """Whether a resumed replay has to read everything again, because nothing is written before the end."""

    @property
    def counts(self) -> Counter[str]:
        """What became of the records, by name."""

    def check(self) -> None:
        """Writes nothing. Raises ReplayRefused where a new run, which is not yet in the book, would harm what is there."""

    def open(self) -> None:
        """Make what it writes to, where that is its own; harmless to repeat."""

    def write(self, records: Sequence[Record], stream_time_us: int) -> None:
        """Have them safe on return. The stream's time is the event time of the last one."""

    def finish(self) -> list[Difference]:
        """All is written; what it came to beside the live one, where there is something to compare."""

    def close(self) -> None:
        """Let go of connections."""
