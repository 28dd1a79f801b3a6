"""One tape for several threads: events go out one call after the other, each acknowledged before its call returns."""

from __future__ import annotations

import threading

from tradetape.schemas import Event
from tradetape.streams.effects import KafkaEffects


class Telling:
    """Thread-safe over effects that are not."""

    def __init__(self, effects: KafkaEffects) -> None:
        self._effects = effects
        self._lock = threading.Lock()

    def tell(self, event: Event) -> None:
        """Put an event on the tape, and wait until Kafka has it. Raises EffectsRefused."""
        with self._lock:
            self._effects.emit([event])

    def close(self) -> None:
        """Let go of the client, unless an event is on its way that outlasts the process' patience."""
        if self._lock.acquire(blocking=False):
            try:
                self._effects.close()
            finally:
                self._lock.release()
