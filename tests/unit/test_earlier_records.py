"""What a worker on Faust looks at more closely: what lay on the tape when it was given its partitions, and no more."""

from __future__ import annotations

from collections.abc import Callable

from tradetape.streams.engines.earlier_records import EarlierRecords
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record


def records(*offsets: int, partition: int = 0) -> list[Record]:
    return [Record("t", partition, offset, b"k", b"v", (), 0) for offset in offsets]


def end_at(offset: int | None) -> Callable[[Partition], int | None]:
    return lambda _: offset


def test_what_came_after_the_first_look_is_not_suspect() -> None:
    earlier = EarlierRecords(100)
    assert earlier.among(records(5, 6), end_at(8)) == records(5, 6)
    assert earlier.among(records(7, 8, 9), end_at(10)) == records(7)


def test_each_partition_has_an_end_of_its_own() -> None:
    earlier, ends = EarlierRecords(100), {0: 3, 1: 50}
    batch = records(3) + records(3, partition=1)
    assert earlier.among(batch, lambda one: ends[one.partition]) == records(3, partition=1)


def test_all_is_suspect_while_the_end_is_not_known() -> None:
    earlier = EarlierRecords(100)
    assert earlier.among(records(5), end_at(None)) == records(5)
    assert earlier.among(records(6), end_at(6)) == []


def test_another_assignment_makes_what_lies_there_suspect_again() -> None:
    earlier = EarlierRecords(2)
    assert earlier.among(records(0, 1, 2), end_at(3)) == records(0, 1)
    assert earlier.among(records(3), end_at(9)) == []
    earlier.forget()
    assert earlier.among(records(4, 5), end_at(6)) == records(4, 5)
