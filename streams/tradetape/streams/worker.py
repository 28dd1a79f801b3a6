"""A worker process from start to end: signals, health page, engine, exit code.

TERM and INT mean: finish the batch, commit, leave the group, exit 0, within ten seconds. What is cut off after that is
read again by the next owner, since offsets only follow what was acknowledged.
"""

from __future__ import annotations

import gc
import logging
import os
import signal
import threading
from collections.abc import Callable
from types import FrameType
from typing import Protocol

from tradetape.schemas.errors import SchemasError
from tradetape.streams.errors import BrokersUnreachable, StreamsError

logger = logging.getLogger("tradetape.streams")

EXIT_OK = 0
EXIT_FAILED = 1
EXIT_UNREACHABLE = 3
DRAIN_TIMEOUT_S = 10.0


class Engine(Protocol):
    """What feeds a processor until it is told to stop."""

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set."""


def run_worker(engine: Engine, *, name: str, close: Callable[[], None]) -> int:
    """Run the engine in this process' main thread; the exit code. `close` lets go of what the worker holds."""
    stop = threading.Event()
    _stop_on_signals(stop)
    # What is loaded by now stays to the end; looking through it again and again held up what was at hand for up to 80 ms.
    gc.collect()
    gc.freeze()
    try:
        engine.run(stop)
        return EXIT_OK
    except BrokersUnreachable as error:
        logger.error("%s ends: %s", name, error, extra={"action": "end"})
        return EXIT_UNREACHABLE
    except (StreamsError, SchemasError) as error:
        logger.error("%s ends: %s", name, error, extra={"action": "end"})
        return EXIT_FAILED
    except Exception:
        logger.exception("%s crashed", name, extra={"action": "crash"})
        return EXIT_FAILED
    finally:
        close()


def _stop_on_signals(stop: threading.Event) -> None:
    def asked(_: int, __: FrameType | None) -> None:
        if not stop.is_set():
            stop.set()
            limit = threading.Timer(DRAIN_TIMEOUT_S, os._exit, [EXIT_OK])
            limit.daemon = True
            limit.start()

    signal.signal(signal.SIGTERM, asked)
    signal.signal(signal.SIGINT, asked)
