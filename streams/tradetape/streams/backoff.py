"""How long to wait before the same batch is tried again: longer each time, never in step with others, never for ever long."""

from __future__ import annotations

import random

FIRST_S = 0.1
LONGEST_S = 5.0


class Backoff:
    """Waiting times of one run of failures: full jitter over a doubling, capped range."""

    def __init__(self, *, first_s: float = FIRST_S, longest_s: float = LONGEST_S) -> None:
        self._first_s = first_s
        self._longest_s = longest_s
        self.attempts = 0

    def next_s(self) -> float:
        """Seconds to wait now."""
        ceiling = min(self._longest_s, self._first_s * 2 ** min(self.attempts, 16))
        self.attempts += 1
        return random.uniform(self._first_s / 2, ceiling)
