"""Replays into nothing: counts what would be written, by topic."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from tradetape.sinks.replay.targets.target import Difference
from tradetape.streams.record import Record


class DryTarget:
    """Takes every record and writes none."""

    begins_anew = False

    def __init__(self) -> None:
        self.counts: Counter[str] = Counter()

    def check(self) -> None:
        """Nothing can be harmed."""

    def open(self) -> None:
        """Nothing is made."""

    def write(self, records: Sequence[Record], stream_time_us: int) -> None:
        """Count them."""
        self.counts["would_write"] += len(records)
        self.counts.update(f"would_write.{one.topic}" for one in records)

    def finish(self) -> list[Difference]:
        """Nothing to compare."""
        return []

    def close(self) -> None:
        """Nothing is open."""
