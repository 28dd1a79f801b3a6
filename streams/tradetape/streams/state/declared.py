"""What trading code shares through Redis, declared once: a name, and a time after which it is gone by itself.

Nothing here is a projection: it is not on the tape, and a lost Redis forgets it. What must not be forgotten is an event.
"""

from __future__ import annotations

import re
from datetime import timedelta

import msgspec

from tradetape.schemas.times import MICROSECOND
from tradetape.streams.errors import DeclarationRefused

MAX_EXPIRY = timedelta(days=31)
MAX_LOCK_EXPIRY = timedelta(hours=1)
"""So long everybody waits for a holder that died."""
MAX_WINDOW = timedelta(days=1)
MAX_CALLS = 10_000
"""A limit remembers so many instants at most, of some 10 bytes each."""
NAME = r"[a-z][a-z0-9-]{0,63}"
SUBJECT = r"[A-Za-z0-9._:/-]{1,128}"


class RateLimit(msgspec.Struct, frozen=True):
    """At most `calls` calls in any `window`, counted over all processes.

    A call has to begin within `start_within` of being asked for: what is granted now and begins late would meet those
    of the next window. The window is longer by so much for Redis.
    """

    name: str
    calls: int
    window: timedelta
    start_within: timedelta = timedelta(milliseconds=100)

    def __post_init__(self) -> None:
        """Raises DeclarationRefused."""
        _check_name(self.name)
        _check_time(self.name, "window", self.window, MAX_WINDOW)
        _check_time(self.name, "start_within", self.start_within, self.window)
        if not 1 <= self.calls <= MAX_CALLS:
            raise DeclarationRefused(f"{self.name}: calls must be from 1 to {MAX_CALLS:,}, not {self.calls}")


class Lock(msgspec.Struct, frozen=True):
    """One holder at a time, until it lets go or `expires_after` has passed since it took or extended the lock."""

    name: str
    expires_after: timedelta

    def __post_init__(self) -> None:
        """Raises DeclarationRefused."""
        _check_name(self.name)
        _check_time(self.name, "expires_after", self.expires_after, MAX_LOCK_EXPIRY)


class Flag(msgspec.Struct, frozen=True):
    """Something that holds for `expires_after`, or until it is lowered: a pause, a cool-down."""

    name: str
    expires_after: timedelta

    def __post_init__(self) -> None:
        """Raises DeclarationRefused."""
        _check_name(self.name)
        _check_time(self.name, "expires_after", self.expires_after, MAX_EXPIRY)


class Counter(msgspec.Struct, frozen=True):
    """A count that begins again at 0 when `expires_after` has passed since it began."""

    name: str
    expires_after: timedelta

    def __post_init__(self) -> None:
        """Raises DeclarationRefused."""
        _check_name(self.name)
        _check_time(self.name, "expires_after", self.expires_after, MAX_EXPIRY)


Declaration = RateLimit | Lock | Flag | Counter


def _check_name(name: str) -> None:
    if not re.fullmatch(NAME, name):
        raise DeclarationRefused(f"{name!r} is no name: it must match {NAME}")


def check_subject(subject: str) -> None:
    """Raises DeclarationRefused for what cannot be part of a key."""
    if subject and not re.fullmatch(SUBJECT, subject):
        raise DeclarationRefused(f"{subject!r} cannot be shared under: it must match {SUBJECT}")


def _check_time(name: str, what: str, given: timedelta, most: timedelta) -> None:
    if not timedelta(milliseconds=1) <= given <= most:
        raise DeclarationRefused(f"{name}: {what} must be from 1 ms to {most}, not {given}")


def milliseconds(given: timedelta) -> int:
    """As Redis takes an expiry."""
    return microseconds(given) // 1_000


def microseconds(given: timedelta) -> int:
    """As the scripts take a span."""
    return given // MICROSECOND
