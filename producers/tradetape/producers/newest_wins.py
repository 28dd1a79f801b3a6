"""A bounded queue of market updates: past its bounds the newest of each series stays, and older ones make room.

Pure bookkeeping: no clock, no thread, no I/O. Each call takes constant time, also while the queue is full.
"""

from __future__ import annotations

from collections import OrderedDict, deque
from typing import Any

import msgspec

RECORD_OVERHEAD_BYTES = 512
"""What a record takes in memory besides its payload, about."""

Series = tuple[Any, ...]
"""Of whom an update tells, as the values of the fields that name it."""


class Update(msgspec.Struct, frozen=True, gc=False):
    """A market update, encoded. `series` says of whom on its topic it is the successor."""

    topic: str
    series: Series
    event_id: str
    key: bytes
    payload: bytes
    timestamp_ms: int


class NewestWins:
    """First in, first out, until it is full."""

    def __init__(self, *, max_events: int, max_bytes: int) -> None:
        self.bytes = 0
        """What the queue takes in memory, about: 0 only when it is empty."""
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._number = 0
        self._queue: OrderedDict[int, Update] = OrderedDict()
        self._newest: dict[tuple[str, Series], int] = {}
        self._superseded: deque[int] = deque()

    def __len__(self) -> int:
        return len(self._queue)

    def has_room_for(self, update: Update) -> bool:
        """Whether it would fit without dropping another."""
        return len(self._queue) < self._max_events and self.bytes + _size(update) <= self._max_bytes

    def put(self, update: Update) -> list[Update]:
        """Queue an update; those that were dropped for it, the oldest first."""
        dropped = []
        while self._queue and not self.has_room_for(update):
            dropped.append(self._drop_one(update))
        self._number += 1
        series = update.topic, update.series
        previous = self._newest.get(series)
        if previous is not None:
            self._superseded.append(previous)
        self._newest[series] = self._number
        self._queue[self._number] = update
        self.bytes += _size(update)
        if len(self._superseded) > 2 * self._max_events:
            self._superseded = deque(one for one in self._superseded if one in self._queue)
        return dropped

    def first(self) -> Update | None:
        """The update that has waited longest."""
        return next(iter(self._queue.values()), None)

    def pop_first(self) -> Update:
        """Take out the update that has waited longest. Raises KeyError when there is none."""
        return self._forget(*self._queue.popitem(last=False))

    def _drop_one(self, coming: Update) -> Update:
        """One that has a successor; else the one whose successor is coming; else the oldest of all."""
        while self._superseded:
            number = self._superseded.popleft()
            if number in self._queue:
                return self._forget(number, self._queue.pop(number))
        number = self._newest.get((coming.topic, coming.series)) or next(iter(self._queue))
        return self._forget(number, self._queue.pop(number))

    def _forget(self, number: int, update: Update) -> Update:
        self.bytes -= _size(update)
        series = update.topic, update.series
        if self._newest.get(series) == number:
            del self._newest[series]
        return update


def _size(update: Update) -> int:
    return len(update.payload) + RECORD_OVERHEAD_BYTES
