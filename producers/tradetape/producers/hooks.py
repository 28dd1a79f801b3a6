"""The host's own functions, called in a thread of their own: a hook that raises or is slow breaks nothing of ours."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable
from typing import Any, NamedTuple

logger = logging.getLogger("tradetape.producers")

WAITING_CALLS = 10_000


class Delivered(NamedTuple):
    """A decision is on the tape."""

    topic: str
    event_id: str


class Dropped(NamedTuple):
    """A market update will not be on the tape. `reason`: overflow, closed, or librdkafka's name of an error."""

    topic: str
    event_id: str
    reason: str


OnDelivery = Callable[[Delivered], object]
OnDrop = Callable[[Dropped], object]


class Hooks:
    """Calls the hooks that were given. `missed` counts calls for which there was no room."""

    def __init__(self, *, on_delivery: OnDelivery | None, on_drop: OnDrop | None) -> None:
        self.missed = 0
        self._on_delivery = on_delivery
        self._on_drop = on_drop
        self._calls: queue.Queue[tuple[Callable[[Any], object], Delivered | Dropped] | None] = queue.Queue(
            WAITING_CALLS
        )
        self._thread = threading.Thread(target=self._run, name="tradetape-hooks", daemon=True)
        self._starting = threading.Lock()
        self._is_running = False

    def delivered(self, topic: str, event_id: str) -> None:
        """Call on_delivery soon."""
        if self._on_delivery is not None:
            self._put(self._on_delivery, Delivered(topic, event_id))

    def dropped(self, topic: str, event_id: str, reason: str) -> None:
        """Call on_drop soon."""
        if self._on_drop is not None:
            self._put(self._on_drop, Dropped(topic, event_id, reason))

    def stop(self, timeout_s: float) -> None:
        """Let the calls that wait end, for so long."""
        if self._is_running:
            try:
                self._calls.put(None, timeout=timeout_s)
            except queue.Full:
                return
            self._thread.join(timeout_s)

    def _put(self, hook: Callable[[Any], object], about: Delivered | Dropped) -> None:
        with self._starting:
            if not self._is_running:
                self._is_running = True
                self._thread.start()
        try:
            self._calls.put_nowait((hook, about))
        except queue.Full:
            self.missed += 1

    def _run(self) -> None:
        while (call := self._calls.get()) is not None:
            hook, about = call
            try:
                hook(about)
            except Exception:  # it is the host's code, and may raise anything
                logger.exception("a hook raised on %s", about)
