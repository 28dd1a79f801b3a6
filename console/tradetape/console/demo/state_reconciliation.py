"""The proof for Redis: every series of the run holds its newest event, small and with its expiry, and nothing else is there.

Pure functions over what `hashes` derived from the tape and read from Redis.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from decimal import InvalidOperation

import msgspec

from tradetape.console.demo.hashes import ExpectedHash, FoundHash, FoundState, Value

COMPACT = ("listpack", "ziplist")
"""How Redis stores a small hash: the first from version 7 on, the second before."""
EXPIRY_TOLERANCE_MS = 2_000


class StateLine(msgspec.Struct, frozen=True, kw_only=True):
    """Redis' part of the final table. Counts series, but `difference` counts faults."""

    series: int
    equal: int
    expired: int
    without_expiry: int
    not_compact: int
    difference: int
    faults: tuple[str, ...]


def reconcile_state(expected: Mapping[str, ExpectedHash], found: FoundState) -> StateLine:
    """Compare every series' newest event with its hash."""
    current = {key for key, hash_ in expected.items() if hash_.expires_at_ms > found.now_ms}
    faults = {key: list(_faults(expected[key], found.hashes.get(key), found.now_ms)) for key in current}
    faults |= {key: ["is there, but no current event on the tape says so"] for key in found.hashes.keys() - current}
    told = [f"{key}: {fault}" for key, listed in sorted(faults.items()) for fault in listed]
    return StateLine(
        series=len(expected),
        equal=sum(not faults[key] for key in current),
        expired=len(expected) - len(current),
        without_expiry=sum(one.ttl_ms < 0 for one in found.hashes.values()),
        not_compact=sum(one.encoding not in COMPACT for one in found.hashes.values()),
        difference=len(told),
        faults=tuple(told),
    )


def _faults(expected: ExpectedHash, found: FoundHash | None, now_ms: int) -> Iterator[str]:
    if found is None:
        yield "is missing"
        return
    for name in sorted(expected.fields.keys() | found.fields.keys()):
        wanted, text = expected.fields.get(name), found.fields.get(name)
        if wanted is None or text is None or not _says(text, wanted):
            yield f"{name} is {text}, the tape says {wanted}"
    if found.ttl_ms < 0:
        yield "has no expiry"
    elif abs(now_ms + found.ttl_ms - expected.expires_at_ms) > EXPIRY_TOLERANCE_MS:
        yield f"expires in {found.ttl_ms} ms instead of {expected.expires_at_ms - now_ms} ms"
    if found.encoding not in COMPACT:
        yield f"is stored as {found.encoding} instead of {COMPACT[0]}"


def _says(text: str, value: Value) -> bool:
    """Whether a field's text is the value, as its own type compares: a price 1.10 is 1.1."""
    try:
        return bool(type(value)(text) == value)
    except (ValueError, InvalidOperation):
        return False
