"""Remembers the answers of a function, as many as a limit allows: a dict look-up costs a third of lru_cache's call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

_LONGEST = 256
"""A longer key is answered and forgotten: it would hardly come again."""


class Remembered(dict[Any, Any]):
    """The answers by what was asked, given as an item; all are forgotten when there are `limit`."""

    def __init__(self, answer: Callable[[Any], Any], *, limit: int) -> None:
        self._answer = answer
        self._limit = limit

    def __missing__(self, asked: Any) -> Any:
        found = self._answer(asked)
        if isinstance(asked, int) or len(asked) <= _LONGEST:
            if len(self) >= self._limit:
                self.clear()
            self[asked] = found
        return found
