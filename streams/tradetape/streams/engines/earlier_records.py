"""Which records the last worker may have died of, where no mark tells how it ended: those that lay there when we began.

Whoever died has read nothing that came later, so what arrives while we work needs no look, which costs milliseconds.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from tradetape.streams.processor import Partition
from tradetape.streams.record import Record


class EarlierRecords:
    """Knows the end of each partition as it was when its first record came. Used by one thread."""

    def __init__(self, limit: int) -> None:
        """`limit` is how many records are suspect at most after each assignment of partitions."""
        self._limit = self._left = limit
        self._ends: dict[Partition, int | None] = {}

    def forget(self) -> None:
        """Partitions were given away or taken: others may have died over them in between."""
        self._left = self._limit
        self._ends.clear()

    def among(self, batch: Sequence[Record], end: Callable[[Partition], int | None]) -> list[Record]:
        """The suspect ones of a batch; `end` is the offset behind a partition's last record, None while nobody knows it."""
        found = [record for record in batch if self._is_earlier(record, end)][: self._left]
        self._left -= len(found)
        return found

    def _is_earlier(self, record: Record, end: Callable[[Partition], int | None]) -> bool:
        place = Partition(record.topic, record.partition)
        if (until := self._ends.get(place)) is None:
            until = self._ends[place] = end(place)
        return until is None or record.offset < until
