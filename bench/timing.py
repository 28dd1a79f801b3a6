"""Times single calls in their caller's thread, and what the machine adds to a call that does nothing."""

from __future__ import annotations

import math
import time
from array import array
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple, TypeVar

Item = TypeVar("Item")
Other = TypeVar("Other")
NS_PER_MS = 1_000_000
NS_PER_US = 1_000
SLICE_CALLS = 1_000


class Percentiles(NamedTuple):
    """Of single calls, in nanoseconds."""

    mean: float
    p50: float
    p99: float
    p999: float


def timed_calls(call: Callable[[Item], object], items: Sequence[Item], count: int) -> Percentiles:
    """Call `count` times in a tight loop, with the items in turn."""
    spent = array("q", bytes(8 * count))
    _time(call, items, spent, range(count))
    return percentiles(spent)


def timed_in_turns(
    first: tuple[Callable[[Item], object], Sequence[Item]],
    second: tuple[Callable[[Other], object], Sequence[Other]],
    count: int,
) -> tuple[Percentiles, Percentiles]:
    """Call each `count` times, a slice of the one after a slice of the other: a machine's swings fall on both alike."""
    spent = array("q", bytes(8 * count)), array("q", bytes(8 * count))
    for start in range(0, count, SLICE_CALLS):
        places = range(start, min(start + SLICE_CALLS, count))
        _time(*first, spent[0], places)
        _time(*second, spent[1], places)
    return percentiles(spent[0]), percentiles(spent[1])


def _time(call: Callable[[Item], object], items: Sequence[Item], spent: array[int], places: range) -> None:
    clock = time.perf_counter_ns
    for place in places:
        item = items[place % len(items)]
        began = clock()
        call(item)
        spent[place] = clock() - began


def paced(turns: int, turn_s: float, *, phase: float = 0.0) -> Iterator[int]:
    """Turn after turn at the times of a grid that all processes of a machine share, so much of a turn behind it.

    Whoever is late goes on at once.
    """
    first = math.floor(time.monotonic() / turn_s) + 1 + phase
    for turn in range(turns):
        time.sleep(max((first + turn) * turn_s - time.monotonic(), 0))
        yield turn


def percentiles(spent: Sequence[float]) -> Percentiles:
    """Of at least one sample."""
    ordered = sorted(spent)
    last = len(ordered) - 1
    p50, p99, p999 = (ordered[round(last * part)] for part in (0.5, 0.99, 0.999))
    return Percentiles(sum(ordered) / len(ordered), p50, p99, p999)


def noise_beyond_ns(length_ns: float, count: int) -> float:
    """By how much the p99.9 of calls that only wait for `length_ns` exceeds their median: the machine's own share."""
    clock = time.perf_counter_ns

    def wait(_: None) -> None:
        until = clock() + length_ns
        while clock() < until:
            pass

    found = timed_calls(wait, [None], count)
    return found.p999 - found.p50
