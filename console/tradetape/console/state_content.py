"""What Redis holds of current state: every key under the prefix with its pattern, age, expiry and size.

An audit, and what `state show` and `state stats` print: it goes by the registry of keys, and says which keys nobody
declared and which would never expire.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from datetime import datetime
from itertools import islice
from typing import Any

import msgspec
import redis

from tradetape.schemas import names, times
from tradetape.streams.state.connection import mapped_errors
from tradetape.streams.state.keys import Keys

SCAN_COUNT = 1_000
UNDECLARED = "undeclared"


class KeyContent(msgspec.Struct, frozen=True, kw_only=True):
    """One key: its declared kind, when its event was true, when it expires (seconds from now), and its fields as text."""

    key: str
    kind: str
    event_time: datetime | None
    age_s: float | None
    expires_in_s: float | None
    fields: dict[str, str]


class KindTotal(msgspec.Struct, kw_only=True):
    """All keys of one kind."""

    kind: str
    keys: int = 0
    bytes: int = 0
    without_expiry: int = 0
    not_compact: int = 0


class StateContent:
    """Reads one Redis under one prefix."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self._client = client
        self._keys = keys

    def of(self, venue: str, symbol: str, timeframe: str | None = None) -> list[KeyContent]:
        """The keys of a symbol, or of one of its timeframes. Raises StateUnavailable, NameRefused."""
        venue, symbol = names.normalise_venue(venue), names.normalise_symbol(symbol)
        wanted = names.normalise_timeframe(timeframe) if timeframe else None
        with mapped_errors():
            found = self._scan(f"{_escaped(self._keys.root)}*{_escaped(f'{{{venue}:{symbol}}}')}*")
            listed = [self._content(one) for one in sorted(found)]
        return [one for one in listed if one and (wanted is None or wanted in one.key.rpartition("}")[2].split(":"))]

    def totals(self) -> list[KindTotal]:
        """Every kind of key with how many there are and what they weigh. Raises StateUnavailable."""
        totals: dict[str, KindTotal] = {}
        with mapped_errors():
            for batch in _batches(self._scan(f"{_escaped(self._keys.root)}*")):
                for key, ttl_ms, encoding, size in self._weighed(batch):
                    kind = self._kind(key)
                    total = totals.setdefault(kind, KindTotal(kind=kind))
                    total.keys += 1
                    total.bytes += size or 0
                    total.without_expiry += ttl_ms == -1
                    total.not_compact += encoding == b"hashtable"
        return sorted(totals.values(), key=lambda one: one.kind)

    def subjects(self, kind: str) -> list[str]:
        """Of every key of a kind, what stands in its braces, each once. Raises StateUnavailable."""
        with mapped_errors():
            found = self._scan(f"{_escaped(self._keys.root + kind)}:{{*}}*")
            return sorted({one.partition("{")[2].rpartition("}")[0] for one in found})

    def _scan(self, pattern: str) -> Iterator[str]:
        seen = set()
        for key in self._client.scan_iter(match=pattern, count=SCAN_COUNT):
            if key not in seen:
                seen.add(key)
                yield key.decode(errors="replace")

    def _content(self, key: str) -> KeyContent | None:
        """None for a key that has expired meanwhile, or is no hash."""
        if self._client.type(key) != b"hash":
            return None
        with self._client.pipeline(transaction=True) as pipeline:
            pipeline.time()
            pipeline.hgetall(key)
            pipeline.pttl(key)
            (seconds, micros), fields, ttl_ms = pipeline.execute()
        if not fields:
            return None
        text = {name.decode(): value.decode() for name, value in fields.items()}
        event_time_us = int(text["_t"]) if "_t" in text else None
        return KeyContent(
            key=key,
            kind=self._kind(key),
            event_time=None if event_time_us is None else times.to_datetime(event_time_us),
            age_s=None if event_time_us is None else seconds + (micros - event_time_us) / 1_000_000,
            expires_in_s=None if ttl_ms < 0 else ttl_ms / 1_000,
            fields=text,
        )

    def _weighed(self, keys: Sequence[str]) -> list[tuple[str, int, bytes, int | None]]:
        with self._client.pipeline(transaction=False) as pipeline:
            for key in keys:
                pipeline.pttl(key)
                pipeline.object("encoding", key)
                pipeline.memory_usage(key)
            answers: list[Any] = pipeline.execute(raise_on_error=False)
        found = zip(keys, answers[0::3], answers[1::3], answers[2::3], strict=True)
        # A key may expire between two questions: then there is nothing to weigh.
        return [one for one in found if not any(isinstance(answer, Exception) for answer in one[1:]) and one[1] != -2]

    def _kind(self, key: str) -> str:
        pattern = self._keys.pattern_of(key)
        return pattern.kind if pattern else UNDECLARED


def _batches(keys: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(keys)
    while batch := list(islice(rest, SCAN_COUNT)):
        yield batch


def _escaped(text: str) -> str:
    """Text as a literal part of a SCAN pattern."""
    return "".join(f"\\{one}" if one in "*?[]\\^" else one for one in text)
