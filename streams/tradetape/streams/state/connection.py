"""A client of Redis with bounds: so many connections, so long a wait, so many tries."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import hiredis
import redis
from redis.backoff import ExponentialWithJitterBackoff
from redis.exceptions import NoPermissionError
from redis.retry import Retry

from tradetape.producers.settings import unreadable
from tradetape.schemas.certificates import distrust
from tradetape.streams.errors import StateDenied, StateUnavailable

MAX_CONNECTIONS = 8
POOL_WAIT_S = 5.0
TIMEOUT_S = 5.0
CONNECT_TIMEOUT_S = 2.0
RETRIES = 2
_NO_PASSWORD = "NOAUTH"


def connect(url: str) -> redis.Redis:
    """A client whose answers are bytes. Raises SettingsError for what is no address of a Redis."""
    try:
        pool = redis.BlockingConnectionPool.from_url(
            url,
            max_connections=MAX_CONNECTIONS,
            timeout=POOL_WAIT_S,
            socket_timeout=TIMEOUT_S,
            socket_connect_timeout=CONNECT_TIMEOUT_S,
            retry=Retry(ExponentialWithJitterBackoff(cap=1.0, base=0.05), RETRIES),
            health_check_interval=30,
        )
    except ValueError:
        # Without its text, here and in what is raised: it may hold a password.
        raise unreadable("REDIS_URL") from None
    return redis.Redis.from_pool(pool)


def pack(*words: str | bytes) -> bytes:
    """A command as it goes over the line."""
    packed: bytes = hiredis.pack_command(words)  # type: ignore[arg-type]  # its stub says otherwise
    return packed


def exchange(client: redis.Redis, commands: Sequence[bytes]) -> list[Any]:
    """The raw answers to many packed commands, in one round trip.

    What the client's own pipeline does besides, for each command, takes twice as long as the exchange itself: that
    matters to a filter which scans hundreds of symbols. Raises what the client raises.
    """
    packed = [b"".join(commands)]
    pool = client.connection_pool
    connection: Any = pool.get_connection()

    def ask() -> list[Any]:
        connection.send_packed_command(packed)
        return [connection.read_response() for _ in commands]

    try:
        found: list[Any] = connection.retry.call_with_retry(ask, lambda _: connection.disconnect())
        return found
    except BaseException:
        # Answers may still be on their way: whoever came next would take them for theirs.
        connection.disconnect()
        raise
    finally:
        pool.release(connection)


@contextmanager
def mapped_errors() -> Iterator[None]:
    """Turn what the client raises into StateUnavailable: Redis is away, loading, busy, read-only, full, or denies us."""
    try:
        yield
    except redis.RedisError as error:
        raise unavailable(error) from error


def unavailable(error: Exception) -> StateUnavailable:
    """What an error of the client means."""
    if (why := distrust(error)) is not None:
        return StateDenied(f"Redis is not trusted: {why}; check TRADETAPE_CA_FILE and the host in REDIS_URL")
    if isinstance(error, redis.AuthenticationError) or str(error).startswith(_NO_PASSWORD):
        return StateDenied(
            "Redis does not let us in: wrong user or password; check REDIS_URL and TRADETAPE_REDIS_PASSWORD_FILE"
        )
    if isinstance(error, NoPermissionError):
        return StateDenied(f"Redis: {error}; `tradetape access apply` gives each role its rights")
    return StateUnavailable(f"Redis: {error}")
