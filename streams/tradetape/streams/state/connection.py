"""A client of Redis with bounds: so many connections, so long a wait, so many tries."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.retry import Retry

from tradetape.streams.errors import StateUnavailable

MAX_CONNECTIONS = 8
POOL_WAIT_S = 5.0
TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
RETRIES = 2


def connect(url: str) -> redis.Redis:
    """A client whose answers are bytes."""
    pool = redis.BlockingConnectionPool.from_url(
        url,
        max_connections=MAX_CONNECTIONS,
        timeout=POOL_WAIT_S,
        socket_timeout=TIMEOUT_S,
        socket_connect_timeout=CONNECT_TIMEOUT_S,
        retry=Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), RETRIES),
        health_check_interval=30,
    )
    return redis.Redis.from_pool(pool)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn what the client raises into StateUnavailable: Redis is away, loading, busy, read-only or full."""
    try:
        yield
    except redis.RedisError as error:
        raise StateUnavailable(f"Redis: {error}") from error
