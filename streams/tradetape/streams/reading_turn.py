"""How long a processor may read the past at one stretch. An engine that cannot poll for too long loses its partitions.

Past its turn a processor raises StillReading, keeps what it has read, and goes on where it was when its engine, which
has polled meanwhile, brings the batch again.
"""

from __future__ import annotations

import time

from tradetape.streams.errors import StillReading

LONGEST_S = 30.0
"""A tenth of what Kafka allows between two polls (max.poll.interval.ms)."""


class ReadingTurn:
    """One processor's turns, one for each time that it is called."""

    def __init__(self, longest_s: float = LONGEST_S) -> None:
        self._longest_s = longest_s
        self._until = 0.0

    def begin(self) -> None:
        """The engine has just polled."""
        self._until = time.monotonic() + self._longest_s

    def check(self, what: str) -> None:
        """Raises StillReading when the turn is over. To be called behind each record, once that is noted."""
        if time.monotonic() > self._until:
            raise StillReading(f"reading back {what}")
