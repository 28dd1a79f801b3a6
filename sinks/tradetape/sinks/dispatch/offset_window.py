"""Which offsets of one partition are accepted and which are done: orders end in any order, an offset moves in one."""

from __future__ import annotations

from collections import OrderedDict


class OffsetWindow:
    """Used under its owner's lock. Nothing in it touches Kafka or a database."""

    def __init__(self, start: int) -> None:
        self.accepted = start
        """The first offset that was not accepted yet."""
        self.end = start
        """Everything before it is done."""
        self._waiting: OrderedDict[int, int] = OrderedDict()

    def accept(self, offset: int, *, parts: int) -> None:
        """A record with so many parts to be done; none for one that is done already."""
        self.accepted = offset + 1
        self._waiting[offset] = parts
        self._move()

    def done(self, offset: int) -> None:
        """One part of it is done."""
        self._waiting[offset] -= 1
        self._move()

    def _move(self) -> None:
        while self._waiting:
            offset, parts = next(iter(self._waiting.items()))
            if parts > 0:
                self.end = offset
                return
            del self._waiting[offset]
            self.end = offset + 1
