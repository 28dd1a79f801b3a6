"""What the processes of trading code share through Redis: rate limits, locks, flags, counters (I2).

Each is declared with its name and expiry, and has a key of the registry; what is not declared is refused. None of them
is on the tape: whatever must survive a lost Redis is an event, and whatever is owed to somebody is a topic.
"""

from __future__ import annotations

import time
from collections.abc import Iterable
from datetime import timedelta
from importlib import resources
from typing import Any, Self

import msgspec
import redis
from redis.commands.core import Script

from tradetape.producers.settings import Settings, load
from tradetape.streams.errors import DeclarationRefused, LimitReached, NotDeclared
from tradetape.streams.state.connection import connect, mapped_errors
from tradetape.streams.state.declared import (
    Counter,
    Declaration,
    Flag,
    Lock,
    RateLimit,
    check_subject,
    microseconds,
    milliseconds,
)
from tradetape.streams.state.keys import DEFAULT_PREFIX, Keys
from tradetape.streams.state.locks import HeldLock, acquire

MAX_NOTE_BYTES = 256


class Permit(msgspec.Struct, frozen=True):
    """Leave to make one call now. `asked_at` is in monotonic seconds."""

    asked_at: float
    start_within_s: float

    @property
    def is_fresh(self) -> bool:
        """Whether the call may still begin. One that begins later may be one too many."""
        return time.monotonic() - self.asked_at < self.start_within_s


class RaisedFlag(msgspec.Struct, frozen=True):
    """A flag that is up, why, and for how much longer."""

    note: str
    expires_in: timedelta


class SharedState:
    """Rate limits, locks, flags and counters of one Redis. Thread-safe. All methods raise StateUnavailable and NotDeclared.

    `of` names what a declaration is applied to, such as an account or "binance:BTCUSDT"; each has a state of its own.
    """

    def __init__(self, client: redis.Redis, declared: Iterable[Declaration], *, prefix: str = DEFAULT_PREFIX) -> None:
        """Raises DeclarationRefused for one name that is declared twice."""
        self._client = client
        self._keys = Keys(prefix)
        self._declared: dict[tuple[type, str], Declaration] = {}
        for one in declared:
            if self._declared.setdefault((type(one), one.name), one) != one:
                raise DeclarationRefused(f"{one.name} is declared twice, and differently")
        self._take, self._acquire, self._count = map(self._script, ("take.lua", "acquire.lua", "count.lua"))

    @classmethod
    def from_env(cls, *declared: Declaration, settings: Settings | None = None) -> Self:
        """As the environment says. Raises SettingsError, DeclarationRefused."""
        settings = settings or load()
        return cls(connect(settings.required("REDIS_URL")), declared, prefix=settings.redis_prefix)

    def permit(self, limit: RateLimit, of: str = "", *, weight: int = 1, timeout_s: float = 0.0) -> Permit:
        """Leave to make a call that counts for `weight`, waited for as long as that; whoever asks first need not get it first.

        A call that is given up, or whose answer is lost, counts. Raises LimitReached.
        """
        key = self._key("limit", limit, of)
        if not 1 <= weight <= limit.calls:
            raise DeclarationRefused(f"{limit.name}: a call must count for 1 to {limit.calls}, not {weight}")
        span_us = microseconds(limit.window + limit.start_within)
        until = time.monotonic() + timeout_s
        while True:
            asked_at = time.monotonic()
            with mapped_errors():
                wait_s = int(self._take(keys=[key], args=[limit.calls, span_us, weight])) / 1_000_000
            permit = Permit(asked_at, limit.start_within.total_seconds())
            if wait_s == 0 and permit.is_fresh:
                return permit
            if time.monotonic() + wait_s > until:
                raise LimitReached(limit.name, wait_s)
            time.sleep(wait_s)

    def lock(self, lock: Lock, of: str = "", *, timeout_s: float = 0.0) -> HeldLock:
        """Take a lock, waited for as long as that; leaving its `with` block releases it. Raises LockBusy."""
        keys = self._key("lock", lock, of), self._key("fence", lock, of)
        return acquire(self._client, self._acquire, lock, keys=keys, timeout_s=timeout_s)

    def raise_flag(self, flag: Flag, of: str = "", *, note: str = "") -> bool:
        """Raise it from now on, also where it is up already; whether it was down. Raises DeclarationRefused."""
        if len(note.encode()) > MAX_NOTE_BYTES:
            raise DeclarationRefused(f"{flag.name}: a note has at most {MAX_NOTE_BYTES} bytes")
        key = self._key("flag", flag, of)
        with mapped_errors(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.exists(key)
            pipeline.set(key, note, px=milliseconds(flag.expires_after))
            was_up, _ = pipeline.execute()
        return not was_up

    def lower_flag(self, flag: Flag, of: str = "") -> bool:
        """Lower it; whether it was up."""
        with mapped_errors():
            return bool(self._client.delete(self._key("flag", flag, of)))

    def flag(self, flag: Flag, of: str = "") -> RaisedFlag | None:
        """The flag where it is up, None where it is down."""
        return self.flags(flag, [of])[0]

    def flags(self, flag: Flag, of: Iterable[str]) -> list[RaisedFlag | None]:
        """The same for many, in one round trip and their order."""
        with mapped_errors(), self._client.pipeline(transaction=True) as pipeline:
            for one in of:
                key = self._key("flag", flag, one)
                pipeline.get(key)
                pipeline.pttl(key)
            answers: list[Any] = pipeline.execute()
        found = zip(answers[0::2], answers[1::2], strict=True)
        return [
            None if note is None else RaisedFlag(note.decode(), timedelta(milliseconds=left_ms))
            for note, left_ms in found
        ]

    def count(self, counter: Counter, of: str = "", *, by: int = 1) -> int:
        """Count up; the count. Where an answer is lost on its way, `by` may have been counted twice."""
        key = self._key("count", counter, of)
        with mapped_errors():
            return int(self._count(keys=[key], args=[by, milliseconds(counter.expires_after)]))

    def counted(self, counter: Counter, of: str = "") -> int:
        """The count as it is; 0 before the first, and after its expiry."""
        with mapped_errors():
            found: Any = self._client.get(self._key("count", counter, of))
        return int(found or 0)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _key(self, kind: str, declared: Declaration, of: str) -> str:
        if self._declared.get((type(declared), declared.name)) != declared:
            known = ", ".join(sorted(name for _, name in self._declared)) or "nothing"
            raise NotDeclared(f"{declared.name} was not declared so to this SharedState, which has {known}")
        check_subject(of)
        return self._keys.shared(kind, declared.name, of)

    def _script(self, name: str) -> Script:
        text = resources.files("tradetape.streams.state").joinpath(name).read_text(encoding="utf-8")
        return self._client.register_script(text)
