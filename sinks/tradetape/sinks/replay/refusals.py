"""Counts the records that a replay could not bring to its target, by reason. They are on the tape still; nothing is sent."""

from __future__ import annotations

import logging
from collections import Counter

from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.sinks")

SHOWN = 10
"""So many are logged; the rest is only counted."""


class Refusals:
    """Stands where a worker has its dead letters."""

    def __init__(self) -> None:
        self.refused: Counter[str] = Counter()

    def send(self, record: Record, reason: str, error: BaseException, *, stage: str) -> None:
        """Count one."""
        if self.refused.total() < SHOWN:
            logger.warning("passed over %s: %s: %s", record.place, reason, error, extra={"action": stage})
        self.refused[reason] += 1

    def flush(self) -> None:
        """Nothing is on its way."""
