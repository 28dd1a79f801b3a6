"""Reads records of one Avro schema by a function made for it: the plain fields that fastavro gives, in 0.4 of its time.

It answers for what is usual alone. Whatever is odd (a cut, a wrong number, a byte too many, but also much that Avro
allows, such as a map in several blocks) it leaves to fastavro, which owns the reasons: it gives what fastavro would give,
or None. What keeps it honest is a test that holds both against each other for every record, for one that holds every
type, and for bytes changed at random.

A step takes its bytes as a slice, which Python cuts at the end without complaint, and moves on by as many as it asked
for: only where the last step ends exactly at the payload's end were all slices whole.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

from tradetape.schemas import generated
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.errors import CatalogueError
from tradetape.schemas.remembered import Remembered

Reader = Callable[[bytes], dict[str, Any] | None]
Take = Callable[[bytes, int], tuple[dict[str, float], int] | None]
_REMEMBERED_VALUES = 4_096
_REMEMBERED_LAYOUTS = 256
_LONGEST_LAYOUT = 256
"""A map of more doubles is read one by one."""


class _Unusual(Exception):
    """Bytes that are left to fastavro."""


def compile_reader(schema: Schema, *, start: int = 0, repeated: Collection[str] = ()) -> Reader:
    """A function from a payload, in which the record begins at `start`, to the record's plain fields; None where it is odd.

    `repeated` names fields that have the same few values again and again: these are remembered by their bytes. Raises
    CatalogueError for a type that no event has.
    """
    source = _Source(repeated)
    steps, plain = source.record(schema)
    source.lines += [
        "def read(payload):",
        "    try:",
        f"        at = {start}",
        *_indented(steps, 2),
        f"        return {plain} if at == len(payload) else None",
        "    except UNUSUAL:",
        "        return None",
    ]
    texts, instants = (Remembered(value_of, limit=_REMEMBERED_VALUES) for value_of in (bytes.decode, _instant))
    names = {**_NAMES, **source.names, "texts": texts, "instants": instants}
    reader: Reader = generated.function("read", source.lines, names, about=schema["name"])
    return reader


class _Source:
    """The text of a reader as it grows: steps for each field, a function for each map, array and nested record.

    A step sets a variable from `payload` at `at`, and moves `at` behind it.
    """

    def __init__(self, repeated: Collection[str]) -> None:
        self.lines: list[str] = []
        self.names: dict[str, object] = {}
        self._repeated = repeated
        self._named: dict[str, Schema] = {}
        self._records: dict[str, str] = {}
        self._functions = 0

    def record(self, schema: Schema) -> tuple[list[str], str]:
        """The steps of a record's fields, and the dict they make. A field's variable ends in _, so that it is none of ours."""
        self._named[schema["name"]] = schema
        steps = [step for field in schema["fields"] for step in self._field(field)]
        plain = ", ".join(f"{field['name']!r}: {field['name']}_" for field in schema["fields"])
        return steps, f"{{{plain}}}"

    def _field(self, field: Mapping[str, Any]) -> list[str]:
        simple = _REPEATED if field["name"] in self._repeated else _SIMPLE
        return self.steps(field["type"], f"{field['name']}_", simple)

    def steps(self, schema: Any, target: str, simple: Mapping[str, str]) -> list[str]:
        """What sets the variable `target`; `simple` has the steps of the types that hold no others."""
        if isinstance(schema, list):
            return self._nullable(schema, target, simple)
        kind = schema["type"] if isinstance(schema, dict) else schema
        logical = schema.get("logicalType") if isinstance(schema, dict) else None
        if (text := simple.get(logical or kind) or simple.get(kind)) is not None:
            return text.format(target=target).splitlines()
        if kind == "map":
            return [f"{target}, at = {self._map(schema['values'])}(payload, at)"]
        if kind == "array":
            return [f"{target}, at = {self._array(schema['items'])}(payload, at)"]
        return self._of_name(schema, kind, target)

    def _nullable(self, schema: list[Any], target: str, simple: Mapping[str, str]) -> list[str]:
        if len(schema) != 2 or schema[0] != "null":
            raise CatalogueError(f"no event has a union such as {schema}; there is [null, type]")
        inner = _indented(self.steps(schema[1], target, simple))
        return [
            "if payload[at] == 0:", f"    {target} = None", "    at += 1",
            "elif payload[at] == 2:", "    at += 1", *inner,
            "else:", "    raise Unusual",
        ]  # fmt: skip

    def _map(self, values: Any) -> str:
        if values == "double":
            return "doubles"
        steps = [*self.steps("string", "key", _SIMPLE), *self.steps(values, "item", _SIMPLE), "found[key] = item"]
        return self._collection("{}", steps)

    def _array(self, items: Any) -> str:
        return self._collection("[]", [*self.steps(items, "item", _SIMPLE), "found.append(item)"])

    def _collection(self, empty: str, steps: list[str]) -> str:
        """The name of a function that reads one block of items, which the end must follow."""
        return self._function([
            "if payload[at] == 0:", f"    return {empty}, at + 1",
            "size, at = length(payload, at)", f"found = {empty}",
            "for _ in range(size >> 1):", *_indented(steps),
            "if payload[at] != 0:", "    raise Unusual",
            "return found, at + 1",
        ])  # fmt: skip

    def _function(self, body: list[str]) -> str:
        self._functions += 1
        name = f"read_{self._functions}"
        self.lines += [f"def {name}(payload, at):", *_indented(body), ""]
        return name

    def _of_name(self, schema: Any, kind: str, target: str) -> list[str]:
        """An enum or a record, written out here or named as it was before."""
        if kind == "enum":
            self._named[schema["name"]] = schema
            symbols = {place << 1: symbol for place, symbol in enumerate(schema["symbols"][:_ONE_BYTE])}
            self.names[f"symbols_{schema['name']}"] = symbols
        elif kind == "record":
            steps, plain = self.record(schema)
            self._records[schema["name"]] = self._function([*steps, f"return {plain}, at"])
        named = schema if isinstance(schema, dict) else self._named.get(kind)
        if named is None or named["type"] not in ("enum", "record"):
            raise CatalogueError(f"no event has a type such as {schema}")
        if named["type"] == "enum":
            return [f"{target} = symbols_{named['name']}[payload[at]]", "at += 1"]
        return [f"{target}, at = {self._records[named['name']]}(payload, at)"]


def _indented(lines: list[str], levels: int = 1) -> list[str]:
    return ["    " * levels + line for line in lines]


_SIZE = """\
if (size := payload[at]) & 0x81:
    size, at = length(payload, at)
else:
    at += 1
"""
_BYTES = _SIZE + "{target} = payload[at : (at := at + (size >> 1))]"
_INTEGER = """\
if (number := payload[at]) < 0x80:
    at += 1
else:
    number, at = varint(payload, at)
{target} = number >> 1 ^ -(number & 1)"""
_SIMPLE = {
    "string": _SIZE + "{target} = payload[at : (at := at + (size >> 1))].decode()",
    "bytes": _BYTES,
    "double": "({target},) = double(payload, at)\nat += 8",
    "boolean": "{target} = BOOLEANS[payload[at]]\nat += 1",
    "int": _INTEGER,
    "long": _INTEGER,
    # Eight bytes, as between 1978 and 3111. The upper four change every two minutes.
    "timestamp-micros": """\
a, b, c, d = payload[at : at + 4]
if a & 1 or a & b & c & d < 0x80:
    raise Unusual
{target} = a + (b << 7) + (c << 14) + (d << 21) + upper_halves[payload[at + 4 : (at := at + 8)]] >> 1""",
}
_REPEATED = {
    **_SIMPLE,
    "string": _SIZE + "{target} = texts[payload[at : (at := at + (size >> 1))]]",
    "timestamp-micros": "{target} = instants[payload[at : (at := at + 8)]]",
}


def _varint(payload: bytes, at: int) -> tuple[int, int]:
    """An unsigned integer of 7 bits in each byte, the lowest first, and where it ends."""
    number = shift = 0
    while (byte := payload[at]) & 0x80:
        number |= (byte & 0x7F) << shift
        shift += 7
        at += 1
    number |= byte << shift
    if number >> 64:
        raise _Unusual
    return number, at + 1


def _length(payload: bytes, at: int) -> tuple[int, int]:
    """Twice a length or a count, as it stands there, and where it ends."""
    size, at = _varint(payload, at)
    if size & 1 or size >> 1 > len(payload):
        raise _Unusual
    return size, at


def _instant(raw: bytes) -> int:
    """The microseconds since 1970 of an instant that has eight bytes."""
    twice, end = _varint(raw, 0)
    if twice & 1 or end != 8:
        raise _Unusual
    return twice >> 1


def _upper_half(raw: bytes) -> int:
    """What the last four bytes of an instant add, less the bits of the first four that say that more bytes follow."""
    number, end = _varint(raw, 0)
    if end != 4 or len(raw) != 4:
        raise _Unusual
    return (number << 28) - 0x80 * (1 + (1 << 7) + (1 << 14) + (1 << 21))


def _doubles(payload: bytes, at: int) -> tuple[dict[str, float], int]:
    """A map of doubles, taken in one step where its names are those of an earlier one that began as it does."""
    if payload[at] == 0:
        return {}, at + 1
    beginning = payload[at : at + 2 + (payload[at + 1] >> 1)]
    take: Take | None = _LATEST.get(beginning)
    if take is not None and (found := take(payload, at)) is not None:
        return found
    return _doubles_of_other_names(payload, at, beginning)


def _doubles_of_other_names(payload: bytes, at: int, beginning: bytes) -> tuple[dict[str, float], int]:
    start, places = at, []
    found: dict[str, float] = {}
    size, at = _length(payload, at)
    for _ in range(size >> 1):
        length, at = _length(payload, at)
        name = payload[at : (at := at + (length >> 1))].decode()
        (found[name],) = _double(payload, at)
        places.append(at - start)
        at += 8
    if payload[at] != 0:
        raise _Unusual
    if len(places) == len(found) <= _LONGEST_LAYOUT:
        between = _without_doubles(payload[start : at + 1], places)
        if len(_LATEST) >= _REMEMBERED_LAYOUTS:
            _LATEST.clear()
        _LATEST[beginning] = _LAYOUTS[tuple(found), tuple(places), between]
    return found, at + 1


def _without_doubles(raw: bytes, places: Iterable[int]) -> bytes:
    blank = bytearray(raw)
    for place in places:
        blank[place : place + 8] = bytes(8)
    return bytes(blank)


def _layout(names_places_between: tuple[tuple[str, ...], tuple[int, ...], bytes]) -> Take:
    """What takes a map of these names, whose doubles stand at these places; `between` is the map without them."""
    names, places, between = names_places_between
    ends = (0, *(place + 8 for place in places))
    form = struct.Struct("<" + "".join(f"{place - end}xd" for place, end in zip(places, ends, strict=False)))
    unpack, size, number = form.unpack_from, len(between), int.from_bytes
    # All that is no double is compared at once, as one large number.
    mask = number(_without_doubles(b"\xff" * size, places), "little")
    wanted = number(between, "little")
    made = _DICTS_OF[len(names)](*names)

    def take(payload: bytes, at: int) -> tuple[dict[str, float], int] | None:
        end = at + size
        if end > len(payload) or number(payload[at:end], "little") & mask != wanted:
            return None
        values: dict[str, float] = made(*unpack(payload, at))
        return values, end

    return take


def _dicts_of(count: int) -> Callable[..., Callable[..., dict[str, float]]]:
    """What makes, of so many names, a function that gives a dict of as many values: a third of the time of zip."""
    keys, values = ([f"{letter}{place}" for place in range(count)] for letter in "kv")
    pairs = ", ".join(f"{key}: {value}" for key, value in zip(keys, values, strict=True))
    lines = [
        f"def dicts_of({', '.join(keys)}):",
        f"    def dict_of({', '.join(values)}):",
        f"        return {{{pairs}}}",
        "    return dict_of",
    ]
    made: Callable[..., Callable[..., dict[str, float]]] = generated.function(
        "dicts_of", lines, {}, about=f"{count} doubles"
    )
    return made


_ONE_BYTE = 64
"""So many numbers from 0 on have one byte."""
_LAYOUTS = Remembered(_layout, limit=_REMEMBERED_LAYOUTS)
_DICTS_OF = Remembered(_dicts_of, limit=_LONGEST_LAYOUT)
_LATEST: dict[bytes, Take] = {}
"""By how a map begins, with its count and first name."""
_UPPER_HALVES = Remembered(_upper_half, limit=1_024)
_double = struct.Struct("<d").unpack_from
_NAMES = {
    "length": _length, "varint": _varint, "upper_halves": _UPPER_HALVES, "double": _double, "doubles": _doubles,
    "BOOLEANS": {0: False, 1: True}, "Unusual": _Unusual,
    "UNUSUAL": (_Unusual, LookupError, ValueError, struct.error),
}  # fmt: skip
