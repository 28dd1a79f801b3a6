"""Tells the next owner of a partition whether its last one came to an end in order, or died over its work.

The mark is the metadata of the offset that Kafka keeps for the group: "open" from the first batch on, nothing after an
orderly end. So it needs no service of its own, is fenced with the offsets, and rides on commits that are made anyway:
taking a partition costs one question and one commit more, a batch costs nothing.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterable, Mapping, Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tradetape.streams.processor import Partition
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.streams")

OPEN = "open"
_MARK = {"action": "mark"}
ANSWER_TIMEOUT_S = 10.0
SUSPECT_RECORDS = 100_000
"""How many records of a partition are suspect after a death at most: more than a worker reads between two commits.

Were it too few, the next death would be further on, and the next look would begin there.
"""


class OpenMarks:
    """The marks of one consumer's partitions, and what is suspect in them. Used by one thread."""

    def __init__(self, consumer: Consumer) -> None:
        self._consumer = consumer
        self._unmarked: set[Partition] = set()
        self._next_offsets: dict[Partition, int] = {}
        """Of each partition that is marked as open."""
        self._suspect_until: dict[Partition, int] = {}
        """The offset behind the last suspect record of each partition."""

    def taken(self, partitions: Sequence[TopicPartition]) -> dict[Partition, int]:
        """Partitions were assigned, to be read from their offset or the committed one: find out how their last owner ended.

        The offset from which each is read, of those that have one.
        """
        if not partitions:
            return {}
        self._unmarked.update(Partition(one.topic, one.partition) for one in partitions)
        starts = {Partition(one.topic, one.partition): one.offset for one in partitions if one.offset >= 0}
        try:
            for given, found in zip(partitions, self._committed(partitions), strict=True):
                place = Partition(given.topic, given.partition)
                if found.offset >= 0:
                    starts.setdefault(place, found.offset)
                if found.metadata == OPEN:
                    self._suspect(place, given.offset, found.offset)
        except KafkaException as error:
            logger.warning("it is not known how the last owner ended: %s", error.args[0].str(), extra=_MARK)
        return starts

    def _committed(self, partitions: Sequence[TopicPartition]) -> list[TopicPartition]:
        asked = [TopicPartition(one.topic, one.partition) for one in partitions]
        return self._consumer.committed(asked, timeout=ANSWER_TIMEOUT_S)

    def _suspect(self, one: Partition, given: int, committed: int) -> None:
        """What was there when its owner died; a dead one has read nothing that came later."""
        low, high = self._consumer.get_watermark_offsets(TopicPartition(*one), timeout=ANSWER_TIMEOUT_S)
        start = next((offset for offset in (given, committed) if offset >= 0), low)
        self._suspect_until[one] = min(high, start + SUSPECT_RECORDS)
        logger.warning(
            "the last owner of %s[%d] died; looking at its records from %d before they are decoded", *one, start,
            extra=_MARK,
        )  # fmt: skip

    def open(self, batch: Sequence[Record]) -> None:
        """Before the first batch of a partition: mark it, at the offset where it begins."""
        if not self._unmarked:
            return
        firsts: dict[Partition, int] = {}
        for record in batch:
            if (record.topic, record.partition) in self._unmarked:
                firsts.setdefault(Partition(record.topic, record.partition), record.offset)
        if not firsts:
            return
        try:
            self._consumer.commit(offsets=self.offsets(firsts), asynchronous=False)
        except KafkaException as error:
            # The next commit of this partition carries the mark as well; until then a death leaves no trace.
            logger.warning("partitions were not marked: %s", error.args[0].str(), extra=_MARK)

    def offsets(self, next_offsets: Mapping[Partition, int]) -> list[TopicPartition]:
        """Offsets to commit, with the mark."""
        self._unmarked -= next_offsets.keys()
        self._next_offsets |= next_offsets
        return [TopicPartition(*one, offset, OPEN) for one, offset in next_offsets.items()]

    def closing(self, partitions: Iterable[Partition]) -> list[TopicPartition]:
        """Offsets to commit that take the mark off again; it stays where not all that is suspect was looked at."""
        return [
            TopicPartition(*one, self._next_offsets[one], OPEN if one in self._suspect_until else "")
            for one in partitions
            if one in self._next_offsets
        ]

    def suspects(self, batch: Sequence[Record]) -> list[Record]:
        """The records of a batch that the last owner may have died of. Each is given once."""
        if not self._suspect_until:
            return []
        found = []
        for record in batch:
            place = Partition(record.topic, record.partition)
            if record.offset < self._suspect_until.get(place, 0):
                found.append(record)
            if record.offset + 1 >= self._suspect_until.get(place, sys.maxsize):
                del self._suspect_until[place]
        return found

    def forget(self, partitions: Iterable[Partition]) -> None:
        """They are somebody else's now."""
        for one in partitions:
            self._unmarked.discard(one)
            self._next_offsets.pop(one, None)
            self._suspect_until.pop(one, None)
