"""Replays into lines of text, one for each record."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

from tradetape.sinks.replay.targets.target import Difference
from tradetape.streams.record import Record


class LinesTarget:
    """Writes each record as `show` gives it; `write_text` takes whole lines and has them out of our hands on return."""

    begins_anew = False

    def __init__(self, *, show: Callable[[Record], str], write_text: Callable[[str], object]) -> None:
        self.counts: Counter[str] = Counter()
        self._show = show
        self._write_text = write_text

    def check(self) -> None:
        """Nothing can be harmed."""

    def open(self) -> None:
        """Nothing is to be made."""

    def write(self, records: Sequence[Record], stream_time_us: int) -> None:
        """Write them."""
        if records:
            self._write_text("".join(f"{self._show(one)}\n" for one in records))
        self.counts["written"] += len(records)

    def finish(self) -> list[Difference]:
        """Nothing to compare."""
        return []

    def close(self) -> None:
        """Nothing is open."""
