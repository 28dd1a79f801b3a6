"""Records come in one order of time, whatever fits into memory, and the same one each time."""

from __future__ import annotations

import random
import tempfile
from typing import IO, Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradetape.streams import time_order
from tradetape.streams.record import Record
from tradetape.streams.time_order import Timed, in_time_order


def timed(time_us: int, partition: int, offset: int, value: bytes | None = b"x") -> Timed:
    return Timed(time_us, Record("t", partition, offset, b"k", value, (("h", None), ("h", b"1")), 7))


ENTRIES = st.lists(
    st.tuples(st.integers(-(2**40), 2**52), st.integers(0, 3), st.integers(0, 2**40), st.binary(max_size=20)),
    max_size=60,
)


@given(ENTRIES, st.integers(1, 5_000))
def test_any_entries_come_out_sorted_with_nothing_lost_or_altered(
    entries: list[tuple[int, int, int, bytes]], run_bytes: int
) -> None:
    given_entries = [timed(*entry) for entry in entries]
    found = list(in_time_order(given_entries, run_bytes=run_bytes))
    assert [one.order for one in found] == sorted(one.order for one in given_entries)
    assert sorted(map(repr, found)) == sorted(map(repr, given_entries))


def test_equal_times_go_by_partition_and_offset() -> None:
    entries = [timed(5, partition, offset) for partition in range(3) for offset in range(5)]
    shuffled = random.Random(1).sample(entries, len(entries))
    assert list(in_time_order(shuffled, run_bytes=1_000)) == entries


def test_a_record_without_a_value_survives_the_spill() -> None:
    entries = [timed(2, 0, 0, None), timed(1, 0, 1, None)]
    assert [one.record.value for one in in_time_order(entries, run_bytes=1)] == [None, None]


def test_however_many_runs_there_are_few_files_are_open_and_none_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    entries = [timed(7 * number % 5_003, 0, number) for number in range(5_000)]
    opened: list[IO[bytes]] = []
    most = 0

    def counted(**options: Any) -> IO[bytes]:
        nonlocal most
        file: IO[bytes] = make(**options)
        opened.append(file)
        most = max(most, sum(not one.closed for one in opened))
        return file

    make: Any = tempfile.TemporaryFile
    monkeypatch.setattr(tempfile, "TemporaryFile", counted)
    ordered = in_time_order(entries, run_bytes=1)
    assert [one.order for one in ordered] == sorted(one.order for one in entries)
    assert len(opened) > 5_000
    assert most <= 3 * time_order.MAX_RUNS
    assert all(one.closed for one in opened)
