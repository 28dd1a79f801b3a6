"""The result of one check: how it stands, and for what is not well the command or the step that mends it."""

from __future__ import annotations

from collections.abc import Sequence
from enum import StrEnum
from typing import NamedTuple


class State(StrEnum):
    """How a check ended; a warning is nothing that stops work."""

    OK = "ok"
    WARN = "warn"
    FAIL = "FAIL"


class Finding(NamedTuple):
    """One check's result. `unreachable` says that nothing answered, which is another exit code."""

    subject: str
    state: State
    detail: str
    mend: str = ""
    unreachable: bool = False


def away(subject: str, reason: str, variable: str) -> Finding:
    """A service that does not answer."""
    mend = f"check {variable}; for the local stack: tradetape up"
    return Finding(subject, State.FAIL, f"cannot be reached: {reason}", mend, unreachable=True)


def some(names: Sequence[str], limit: int = 3) -> str:
    """The first of many names."""
    return ", ".join(names[:limit]) + (", …" if len(names) > limit else "")
