"""Redis: current state as small hashes that expire by event time and never go back in time (I2, I3), and what trading
code shares beside it for a while.

Its names are loaded when they are asked for: who reads state needs no locks.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tradetape.streams.state.declared import Counter, Flag, Lock, RateLimit
    from tradetape.streams.state.reader import StateReader
    from tradetape.streams.state.shared import SharedState

__all__ = ["Counter", "Flag", "Lock", "RateLimit", "SharedState", "StateReader"]
_HOMES = {"SharedState": "shared", "StateReader": "reader"}


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        return getattr(importlib.import_module(f"{__name__}.{_HOMES.get(name, 'declared')}"), name)
    except ModuleNotFoundError as error:
        if error.name == "redis":
            raise ModuleNotFoundError("state needs Redis' client: install tradetape[state]", name="redis") from error
        raise
