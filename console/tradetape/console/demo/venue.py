"""A venue of its own for each run, so that the ids of two runs never meet: demo1, demo2, …

A run claims its venue by being the first to create its log in the home's folder of logs, which lives as long as the
local stack's data; what an older run left in the history counts as claimed too.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import count
from pathlib import Path

PREFIX = "demo"
_NUMBERED = re.compile(rf"{PREFIX}([0-9]+)")


def claim(logs: Path, *, used: Iterable[str]) -> str:
    """The next venue that no run has used. `used` names venues that the history knows."""
    seen = [*used, *(log.name.partition("-")[0] for log in logs.glob(f"{PREFIX}*-bot.log"))]
    highest = max((int(found[1]) for name in seen if (found := _NUMBERED.fullmatch(name))), default=0)
    for number in count(highest + 1):
        try:
            log_of(logs, f"{PREFIX}{number}", "bot").touch(exist_ok=False)
        except FileExistsError:
            continue
        return f"{PREFIX}{number}"
    raise AssertionError("unreachable: numbers do not end")


def log_of(logs: Path, venue: str, part: str) -> Path:
    """The log of one part of a run: its bot, or one of its workers."""
    return logs / f"{venue}-{part}.log"
