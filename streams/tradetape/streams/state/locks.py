"""A lock in Redis, which its holder may lose: it expires, so that a holder that died does not keep it.

redis-py's own lock waits, extends and releases, each by the holder's token; taking it is ours, since it gives a fence as
well. A holder that was paused for longer than the lock lives cannot know that in time. Where two at once do harm,
whatever is guarded compares the fence and refuses one that is smaller than it has seen.
"""

from __future__ import annotations

import logging
import time
from types import TracebackType
from typing import Any, Self

import redis
from redis.commands.core import Script
from redis.exceptions import LockError
from redis.lock import Lock as RedisLock

from tradetape.streams.errors import LockBusy, LockLost
from tradetape.streams.state.connection import mapped_errors, unavailable
from tradetape.streams.state.declared import Lock, milliseconds

logger = logging.getLogger("tradetape.streams")

RETRY_INTERVAL_S = 0.05
DRIFT_RATIO = 0.01
"""How much faster Redis' clock may run than ours."""
FENCE_KEPT_MS = 86_400_000


class HeldLock:
    """A lock that was taken. `fence` is greater than that of every holder before."""

    def __init__(self, lock: _Taken, declared: Lock, what: str) -> None:
        self._lock = lock
        self._what = what
        self._lives_s = declared.expires_after.total_seconds() * (1 - DRIFT_RATIO)
        self._held_until = lock.asked_at + self._lives_s
        self.fence: int = lock.fence

    @property
    def is_held(self) -> bool:
        """Whether it cannot have expired yet; by this process' clock, without asking Redis."""
        return time.monotonic() < self._held_until

    def extend(self) -> None:
        """Let it live for its whole time again from now on. Raises LockLost, StateUnavailable."""
        asked_at = time.monotonic()
        try:
            self._lock.reacquire()
        except LockError as error:
            raise self._lost() from error
        except redis.RedisError as error:
            raise unavailable(error) from error
        self._held_until = asked_at + self._lives_s

    def release(self) -> None:
        """Let go of it. Raises LockLost where it had expired; where Redis is away, it will."""
        try:
            self._lock.release()
        except LockError as error:
            raise self._lost() from error
        except redis.RedisError as error:
            logger.warning("%s was not released, and will expire: %s", self._what, error, extra={"action": "lock"})
        finally:
            self._held_until = 0.0

    def _lost(self) -> LockLost:
        return LockLost(f"{self._what} was held longer than it lives; somebody else may have taken it meanwhile")

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        try:
            self.release()
        except LockLost:
            if kind is None:
                raise
            logger.warning("%s was lost before an error came out of its work", self._what, extra={"action": "lock"})


def acquire(
    client: redis.Redis, script: Script, declared: Lock, *, keys: tuple[str, str], timeout_s: float
) -> HeldLock:
    """Take the lock of these two keys, its own and its fence's. Raises LockBusy, StateUnavailable."""
    lock = _Taken(client, script, keys, milliseconds(declared.expires_after))
    with mapped_errors():
        is_taken = lock.acquire(blocking_timeout=timeout_s)
    if not is_taken:
        raise LockBusy(f"{declared.name} was not free within {timeout_s:g} s")
    return HeldLock(lock, declared, f"the lock {declared.name}")


class _Taken(RedisLock):
    """redis-py's lock, taken by our script."""

    def __init__(self, client: redis.Redis, script: Script, keys: tuple[str, str], expires_ms: int) -> None:
        super().__init__(client, keys[0], timeout=expires_ms / 1_000, sleep=RETRY_INTERVAL_S, thread_local=False)
        self._script = script
        self._keys = keys
        self._expires_ms = expires_ms
        self.asked_at = 0.0
        self.fence = 0

    def do_acquire(self, token: Any) -> bool:
        self.asked_at = time.monotonic()
        fence = self._script(keys=list(self._keys), args=[token, self._expires_ms, FENCE_KEPT_MS])
        if fence is None:
            return False
        self.fence = int(fence)
        return True
