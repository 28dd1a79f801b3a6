"""Waiting in tests: on a condition, with a deadline, never for a time."""

from __future__ import annotations

import time
from collections.abc import Callable

DEADLINE_S = 60.0
STEP_S = 0.02


def eventually(what: str, condition: Callable[[], bool], *, timeout_s: float = DEADLINE_S) -> None:
    """Wait until the condition holds; an AssertionError that says `what` did not happen otherwise."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline, f"not within {timeout_s:.0f} s: {what}"
        time.sleep(STEP_S)
