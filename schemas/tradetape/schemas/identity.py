"""Event ids: the same event has the same id however often it is emitted (I9).

An event with a natural key gets a version 5 UUID of it (RFC 9562, 5.5), over the compact JSON text of
["Record", part, …] in tradetape's namespace: other languages derive the same id. An event without one gets a
version 7 UUID, which sorts by time.
"""

from __future__ import annotations

import hashlib
import os
import time
import uuid
from collections.abc import Callable, Collection, Mapping, Sequence
from operator import itemgetter
from typing import Any

import msgspec

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "events.tradetape")
_encode = msgspec.json.Encoder().encode
_SEED = hashlib.sha1(NAMESPACE.bytes, usedforsecurity=False)
_VARIANT = dict(zip("0123456789abcdef", "89ab" * 4, strict=True))
"""The digit with its upper two bits set to 10 (RFC 9562, 4.1)."""


def natural_key(
    record: str, parts: Sequence[str], *, booleans: Collection[str] = ()
) -> Callable[[Mapping[str, Any]], str]:
    """The event_id of plain fields as a function; `booleans` names those that are True or False.

    A part names a field. "a|b" is a where a is set, else b; a field that is True stands as its own name, so
    "is_final|event_time" gives all finished bars of one open time one id, and each unfinished state its own.
    """
    choices = [part.split("|") for part in parts]
    # One more than the parts: the first makes room for the record's name, and a tuple of what may be one part.
    firsts = itemgetter(choices[0][0], *(names[0] for names in choices))
    chosen = [(place, names) for place, names in enumerate(choices, 1) if len(names) > 1 or names[0] in booleans]

    def event_id(fields: Mapping[str, Any]) -> str:
        key = list(firsts(fields))
        key[0] = record
        for place, names in chosen:
            key[place] = _first_set(fields, names)
        return uuid5_text(_encode(key))

    return event_id


def _first_set(fields: Mapping[str, Any], names: Sequence[str]) -> Any:
    for name in names:
        value = fields[name]
        if value is True:
            return name
        if value is not None and value is not False:
            return value
    return None


def uuid5_text(name: bytes) -> str:
    """str(uuid.uuid5(NAMESPACE, name)), in a third of its time: this runs for every event."""
    digest = _SEED.copy()
    digest.update(name)
    text = digest.hexdigest()
    return f"{text[:8]}-{text[8:12]}-5{text[13:16]}-{_VARIANT[text[16]]}{text[17:20]}-{text[20:32]}"


def uuid7_text() -> str:
    """A new version 7 UUID (RFC 9562, 5.7): milliseconds since 1970, then random bits."""
    value = (time.time_ns() // 1_000_000) << 80 | int.from_bytes(os.urandom(10), "big")
    value = value & ~(0xF << 76) | 0x7 << 76
    return str(uuid.UUID(int=value & ~(0x3 << 62) | 0x2 << 62))
