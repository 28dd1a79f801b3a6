"""What a watch over series knows when it starts: the conditions that were told, and where the bars of the last hours begin."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Protocol

from tradetape.schemas.stamping import wall_clock_us
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record
from tradetape.streams.topic_reader import TopicReader


class Past(Protocol):
    """Asked whenever partitions are taken."""

    def conditions(self, numbers: Collection[int]) -> Iterable[Record]:
        """The market conditions of these partitions, each partition in its order. Raises Transient."""

    def starts(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """From which offset on the bars of each partition are read. Raises Transient."""


class KafkaPast:
    """Reads the topics themselves."""

    def __init__(
        self,
        reader: TopicReader,
        *,
        conditions_topic: str,
        lookback_us: int,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> None:
        """A series that fell silent while no worker ran is noticed where its last bar is no older than `lookback_us`."""
        self._reader = reader
        self._topic = conditions_topic
        self._lookback_us = lookback_us
        self._now_us = now_us

    def conditions(self, numbers: Collection[int]) -> Iterable[Record]:
        """From the first that retention has left to the last there is now."""
        partitions = [Partition(self._topic, one) for one in sorted(numbers)]
        return self._reader.read(self._reader.begins(partitions), self._reader.ends(partitions))

    def starts(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """By when records were emitted."""
        return dict(self._reader.offsets_at(partitions, (self._now_us() - self._lookback_us) // 1_000))


class NoPast:
    """Begins with what it is fed: for tests and backtests."""

    def conditions(self, numbers: Collection[int]) -> Iterable[Record]:
        """None."""
        return ()

    def starts(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """All that there is."""
        return dict.fromkeys(partitions)
