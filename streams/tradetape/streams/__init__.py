"""Reading the tape: processors and the engines that feed them, current state, dead letters, the tape itself.

The two names that trading code uses are loaded when they are asked for, so that a bot that reads state needs neither
Faust nor a metrics library.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from tradetape.streams.state.reader import StateReader
    from tradetape.streams.tape import Tape

__all__ = ["StateReader", "Tape"]
_HOMES = {"StateReader": "tradetape.streams.state.reader", "Tape": "tradetape.streams.tape"}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    import importlib

    try:
        return getattr(importlib.import_module(_HOMES[name]), name)
    except ModuleNotFoundError as error:
        if error.name == "redis":
            raise ModuleNotFoundError(
                "reading state needs Redis' client: install tradetape[state]", name="redis"
            ) from error
        raise
