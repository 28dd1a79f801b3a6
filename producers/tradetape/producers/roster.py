"""The producers of this process, for whoever counts: who is open, and what those that were closed had counted.

So a count of a source never goes back when its producer is closed and another one takes its place.
"""

from __future__ import annotations

import threading
import weakref
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tradetape.producers.producer import Health, Producer


Counts = Counter[tuple[str, str]]
"""What only rises: emitted, delivered, hooks_missed, and dropped with its reason."""


def counts_of(health: Health) -> Counts:
    """Those of one producer."""
    totals = {"emitted": health.emitted, "delivered": health.delivered, "hooks_missed": health.hooks_missed}
    dropped = {("dropped", reason): count for reason, count in health.dropped.items()}
    return Counter({(name, ""): count for name, count in totals.items()} | dropped)


class Roster:
    """Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._open: weakref.WeakSet[Producer] = weakref.WeakSet()
        self._closed: dict[str, Counts] = {}

    def opened(self, producer: Producer) -> None:
        """One more."""
        with self._lock:
            self._open.add(producer)

    def closed(self, producer: Producer, last: Health) -> None:
        """One less; what it counted stays."""
        with self._lock:
            self._open.discard(producer)
            self._closed[producer.source] = self._closed.get(producer.source, Counter()) + counts_of(last)

    def read(self) -> tuple[list[Producer], dict[str, Counts]]:
        """Who is open, and what those closed had counted, by source: each producer is in one of them."""
        with self._lock:
            return list(self._open), dict(self._closed)

    def leave_to_the_parent(self) -> list[Producer]:
        """In a forked child: begin anew, also with a lock that may have been held; those who are the parent's."""
        theirs = list(self._open)
        self._lock = threading.Lock()
        self._open.clear()
        self._closed.clear()
        return theirs


ROSTER = Roster()
