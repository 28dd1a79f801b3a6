"""What a Redis holds as current state, so that two ways of filling it can be compared field by field."""

from __future__ import annotations

from typing import Any

import redis

from tradetape.streams.state.keys import Keys

Snapshot = dict[bytes, dict[bytes, bytes]]
SCAN_COUNT = 1_000
NO_EXPIRY = -1


def snapshot(client: redis.Redis) -> Snapshot:
    """Every hash; the marker that says that the Redis was filled is none."""
    keys = sorted(set(client.scan_iter(count=SCAN_COUNT)) - {Keys().layout().encode()})
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.hgetall(key)
    return dict(zip(keys, pipeline.execute(), strict=True))


def differing(one: Snapshot, other: Snapshot) -> int:
    """How many hashes are not the same in both."""
    return sum(one.get(key) != other.get(key) for key in one.keys() | other.keys())


def without_expiry(client: redis.Redis) -> int:
    """How many keys would stay for ever."""
    keys: list[Any] = list(client.scan_iter(count=SCAN_COUNT))
    pipeline = client.pipeline(transaction=False)
    for key in keys:
        pipeline.pttl(key)
    return sum(left == NO_EXPIRY for left in pipeline.execute())
