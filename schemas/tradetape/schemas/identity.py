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
from typing import Any

import msgspec

from tradetape.schemas import generated

NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "events.tradetape")
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
    text = key_expression(record, parts, booleans=booleans, value_of=lambda name: f"fields[{name!r}]")
    lines = ["def event_id(fields):", f"    return {text}"]
    derive: Callable[[Mapping[str, Any]], str] = generated.function("event_id", lines, KEY_NAMES, about=record)
    return derive


def key_expression(
    record: str, parts: Sequence[str], *, booleans: Collection[str], value_of: Callable[[str], str]
) -> str:
    """The same as text that sees KEY_NAMES; `value_of` says where a field's plain value is."""

    def first_set(names: Sequence[str]) -> str:
        name, *others = names
        value, rest = value_of(name), first_set(others) if others else "None"
        if name in booleans:
            return f"({name!r} if {value} else {rest})"
        return f"({value} if {value} is not None else {rest})" if others else value

    return f"uuid5_text(encode_key([{', '.join([repr(record), *(first_set(part.split('|')) for part in parts)])}]))"


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


KEY_NAMES = {"uuid5_text": uuid5_text, "encode_key": msgspec.json.Encoder().encode}
