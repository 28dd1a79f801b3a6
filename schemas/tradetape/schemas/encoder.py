"""Plain fields to Avro binary (Avro specification, "Binary encoding"), by one function for each type of a schema.

The bytes are those of fastavro's schemaless_writer, and a test holds the two together. Ours exists because encoding
stands on the way of every `emit`: what fastavro finds out anew for each value (which branch of a union, how long a
name is) is settled here once for each schema.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

from tradetape.schemas.avro_schema import Schema

Write = Callable[[Any], bytes]
LAYOUTS_REMEMBERED = 256
NAMES_REMEMBERED = 128
"""Maps of more names than this are written name by name, so that what is remembered stays small."""
_NULL = b"\x00"
_END = b"\x00"
_SMALL = [bytes((rest,)) for rest in range(128)]
_LENGTHS = [*_SMALL[::2], *(bytes((rest & 127 | 128, rest >> 7)) for rest in range(128, 512, 2))]
"""The lengths of most texts, as they are written."""
_pack_double = struct.Struct("<d").pack


def encoder(schema: Schema) -> Write:
    """The function that writes a record of this schema from its plain fields, every one of them given."""
    return _writer(schema, {})


def _writer(schema: Any, named: dict[str, Write]) -> Write:
    if isinstance(schema, str):
        return _PRIMITIVES.get(schema) or named[schema.rpartition(".")[2]]
    if isinstance(schema, list):
        return _optional(_writer(schema[1], named))
    kind = schema["type"]
    if kind == "map":
        return _doubles if schema["values"] == "double" else _map(_writer(schema["values"], named))
    if kind == "array":
        return _array(_writer(schema["items"], named))
    if kind == "enum":
        named[schema["name"]] = {symbol: number(place) for place, symbol in enumerate(schema["symbols"])}.__getitem__
        return named[schema["name"]]
    if kind == "record":
        named[schema["name"]] = _record([(field["name"], _writer(field["type"], named)) for field in schema["fields"]])
        return named[schema["name"]]
    return _writer(kind, named)


def number(value: int) -> bytes:
    """An int or long of at most 64 bits: zigzag, then seven bits a byte, the lowest first."""
    rest = value << 1 if value >= 0 else ~(value << 1)
    if rest < 128:
        return _SMALL[rest]
    if rest < 1 << 21:
        return _septets(rest)
    return bytes((rest & 127 | 128, rest >> 7 & 127 | 128, rest >> 14 & 127 | 128)) + _upper_septets(rest >> 21)


def _septets(rest: int) -> bytes:
    written = bytearray()
    while rest > 127:
        written.append(rest & 127 | 128)
        rest >>= 7
    written.append(rest)
    return bytes(written)


_upper_septets = lru_cache(maxsize=1024)(_septets)
"""Of a time in microseconds these are the same for a second."""


def _text(value: str) -> bytes:
    raw = value.encode()
    size = len(raw)
    return (_LENGTHS[size] if size < 256 else number(size)) + raw


def _bytes(value: bytes) -> bytes:
    return number(len(value)) + value


def _boolean(value: bool) -> bytes:
    return b"\x01" if value else b"\x00"


def _optional(inner: Write) -> Write:
    return lambda value: _NULL if value is None else b"\x02" + inner(value)


def _array(inner: Write) -> Write:
    return lambda items: number(len(items)) + b"".join(map(inner, items)) + _END if items else _END


def _map(inner: Write) -> Write:
    def write(items: Mapping[str, Any]) -> bytes:
        if not items:
            return _END
        return number(len(items)) + b"".join([_text(name) + inner(item) for name, item in items.items()]) + _END

    return write


class _Layout(NamedTuple):
    """A map of doubles with all but its values in place."""

    pack: Callable[..., bytes]
    parts: list[Any]
    """The written names, each before the place of its value."""


@lru_cache(maxsize=LAYOUTS_REMEMBERED)
def _layout(names: tuple[str, ...]) -> _Layout:
    written = [_text(name) for name in names]
    written[0] = number(len(names)) + written[0]
    form = struct.Struct(f"<{''.join(f'{len(name)}sd' for name in written)}x")
    return _Layout(form.pack, [part for name in written for part in (name, 0.0)])


def _doubles(items: Mapping[str, float]) -> bytes:
    """A bot gives the same names with every update, so only the values are new."""
    if not items:
        return _END
    if len(items) > NAMES_REMEMBERED:
        return _other_doubles(items)
    layout = _layout(tuple(items))
    parts = layout.parts.copy()
    parts[1::2] = items.values()
    return layout.pack(*parts)


def _record(fields: list[tuple[str, Write]]) -> Write:
    return lambda plain: b"".join([write(plain[name]) for name, write in fields])


_other_doubles = _map(_pack_double)
_PRIMITIVES: dict[str, Write] = {
    "null": lambda _: b"",
    "boolean": _boolean,
    "int": number,
    "long": number,
    "double": _pack_double,
    "string": _text,
    "bytes": _bytes,
}
