"""What a worker does at its start while a service that it needs is not there: it asks again, for a while.

Services and workers start together, and a worker that ends at once costs its supervisor a restart with a longer pause each
time. Later on the engines wait by themselves.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import TypeVar

from tradetape.streams.backoff import Backoff
from tradetape.streams.errors import Transient

logger = logging.getLogger("tradetape.streams")

PATIENCE_S = 60.0
T = TypeVar("T")


def awaited(ask: Callable[[], T], *, patience_s: float = PATIENCE_S) -> T:
    """What `ask` answers; while a service is away it is asked again. Raises what it raised last, when patience is over."""
    backoff, deadline = Backoff(), time.monotonic() + patience_s
    while True:
        try:
            return ask()
        except Transient as error:
            wait_s = backoff.next_s()
            if time.monotonic() + wait_s > deadline:
                raise
            logger.warning("waiting: %s", error, extra={"action": "start"})
            time.sleep(wait_s)
