"""Plain fields to PostgreSQL's binary COPY format, without a detour through Python's datetime and Decimal.

One producer of `CopyRows`, which is all that the writer takes: a columnar encoder can stand beside it. Binary COPY
casts nothing, so every value is written in exactly its column's type; a naive time or a rounded price cannot happen.
Format: PostgreSQL manual, COPY, "Binary Format"; numeric as in src/backend/utils/adt/numeric.c, numeric_recv.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import lru_cache, partial
from itertools import islice
from operator import itemgetter
from typing import Any, NamedTuple

import msgspec

from tradetape.schemas import decimals, generated, times
from tradetape.schemas.packing import doubles_between
from tradetape.schemas.remembered import Remembered

HEADER = b"PGCOPY\n\xff\r\n\x00" + struct.pack(">ii", 0, 0)
TRAILER = struct.pack(">h", -1)
NULL = struct.pack(">i", -1)
POSTGRES_EPOCH_US = 946_684_800_000_000
"""2000-01-01 UTC, where PostgreSQL's timestamps begin."""

ROWS_A_PIECE = 250
"""So few are encoded before the database gets to work, so many that handing them over costs little."""

Encode = Callable[[Any], bytes]
Pick = Callable[[Mapping[str, float]], Sequence[float]]
_json = msgspec.json.Encoder(decimal_format="string").encode
_int64 = struct.Struct(">iq").pack
_length = struct.Struct(">i").pack


class CopyRows(NamedTuple):
    """Rows of one table for COPY … (FORMAT BINARY), which may be encoded while the database stores those before them.

    `encoded` gives bytes of whole rows, without header and trailer; it is read once, and may raise.
    """

    table: str
    columns: tuple[str, ...]
    kinds: tuple[str, ...]
    """The columns' types, of those in ENCODERS."""
    encoded: Iterator[bytes]

    def pieces(self) -> Iterator[bytes]:
        """What COPY reads. Raises what the encoding of a row raises."""
        yield HEADER
        while rows := [*islice(self.encoded, ROWS_A_PIECE)]:
            yield b"".join(rows)
        yield TRAILER


@lru_cache(maxsize=65_536)
def numeric(raw: bytes) -> bytes:
    """A decimal(38,18) from its Avro bytes as a numeric with its length; prices repeat, so most come from the cache.

    Raises ValueError for more than 38 digits, which the column refuses too: taking a very long one apart would take minutes.
    """
    number = decimals.unscaled(raw)
    if abs(number) >= _DECIMAL_END:
        raise ValueError(f"has more than {decimals.INTEGER_DIGITS} digits before the point")
    # Scale 18 is no multiple of four digits: two more zeros make five groups of base 10000 after the point.
    rest, after_point = abs(number) * 100, 5
    if rest % _FOUR_GROUPS == 0:
        # Most prices have four decimals at most.
        rest, after_point = rest // _FOUR_GROUPS, 1
    groups = []
    while rest:
        rest, group = divmod(rest, 10_000)
        groups.append(group)
    weight = len(groups) - 1 - after_point
    while groups and groups[0] == 0:
        groups.pop(0)
    count, sign = len(groups), 0x4000 if number < 0 else 0
    return _NUMERICS[count](8 + 2 * count, count, weight if groups else 0, sign, decimals.SCALE, *reversed(groups))


_FOUR_GROUPS = 10_000**4
_NUMERICS = [struct.Struct(f">ihhHH{count}h").pack for count in range(11)]
"""By the count of groups, of which 40 digits fill ten."""
_DECIMAL_END = 10**decimals.PRECISION


def _text(value: str) -> bytes:
    raw = value.encode()
    if 0 in raw:
        raise ValueError(f"{value[:_SHOWN]!r} has a NUL, which no text of PostgreSQL's can hold")
    return _length(len(raw)) + raw


_SHOWN = 80


text: Encode = Remembered(_text, limit=4_096).__getitem__
"""A text with its length, remembered: the names of sources, venues and symbols come back in row after row."""


def _uuid(value: str) -> bytes:
    encoded = bytes.fromhex(value.replace("-", ""))
    if len(encoded) != 16:
        raise ValueError(f"{value!r} is not a UUID")
    return _UUID_LENGTH + encoded


_UUID_LENGTH = _length(16)
uuid: Encode = Remembered(_uuid, limit=4_096).__getitem__
"""A uuid with its length, remembered: a run's comes back in each of its rows, an event's as its correlation_id."""


def timestamptz(micros: int) -> bytes:
    """An instant with its length. Raises ValueError outside of the years 1 to 9999: PostgreSQL has more, its readers not."""
    if not _FIRST_US <= micros <= _LAST_US:
        raise ValueError(f"{micros} microseconds since 1970 is not between the years 1 and 9999")
    return _int64(8, micros - POSTGRES_EPOCH_US)


_FIRST_US = times.from_datetime(datetime.min.replace(tzinfo=UTC))
_LAST_US = times.from_datetime(datetime.max.replace(tzinfo=UTC))


def jsonb(value: Any) -> bytes:
    """A document with its length; the byte 1 is the format's version. Raises ValueError for a NUL in one of its texts."""
    encoded = _json(value)
    if b"\\u0000" in encoded and _NUL.search(encoded):
        raise ValueError("has a NUL in a document, which jsonb cannot hold")
    return _length(len(encoded) + 1) + b"\x01" + encoded


_NUL = re.compile(rb"(?<!\\)(?:\\\\)*\\u0000")
"""The escape itself, and not these letters behind a backslash that is escaped."""


def boolean(value: bool) -> bytes:
    """A boolean with its length."""
    return _TRUE if value else _FALSE


_TRUE, _FALSE = b"\x00\x00\x00\x01\x01", b"\x00\x00\x00\x01\x00"


float8: Encode = partial(struct.Struct(">id").pack, 8)
"""A double with its length."""
int4: Encode = partial(struct.Struct(">ii").pack, 4)
"""A 32-bit integer with its length."""
int8: Encode = partial(_int64, 8)
"""A 64-bit integer with its length."""

ENCODERS: Mapping[str, Encode] = {
    "text": text, "uuid": uuid, "timestamp with time zone": timestamptz, "numeric(38,18)": numeric,
    "double precision": float8, "integer": int4, "bigint": int8, "boolean": boolean, "jsonb": jsonb,
}  # fmt: skip
"""By the type's name as PostgreSQL's format_type gives it."""


class DoubleColumns:
    """Neighbouring columns that take one value each of a map of doubles, NULL where the map has none."""

    def __init__(self, names: Sequence[str]) -> None:
        self._names = tuple(names)
        self._layouts = Remembered(self._layout, limit=256)

    def encode(self, values: Mapping[str, float]) -> bytes:
        """The columns' values, one behind the other."""
        pick, pack = self._layouts[tuple(values)]
        encoded: bytes = pack(pick(values))
        return encoded

    def _layout(self, given: tuple[str, ...]) -> tuple[Pick, Callable[[Iterable[float]], bytes]]:
        """What takes our columns' values from a map of these names, and what packs them."""
        present, heads, before = [], [], b""
        for name in self._names:
            if name in given:
                present.append(name)
                heads.append(before + _DOUBLE_LENGTH)
                before = b""
            else:
                before += NULL
        pick: Pick = itemgetter(*present) if len(present) > 1 else lambda values: [values[name] for name in present]
        return pick, doubles_between(heads, before, order=">")


_DOUBLE_LENGTH = _length(8)


class RowEncoder:
    """Encodes rows of one table: `parts` in the order of the columns, each a field of the event and its encoder.

    `columns` is how many they fill, where one of them fills several; `table` names it in tracebacks.
    """

    encode: Callable[[Mapping[str, Any]], bytes]
    """One row of an event's values. Raises ValueError, struct.error and UnicodeError for what its column cannot hold."""

    def __init__(self, parts: Sequence[tuple[str, Encode]], *, columns: int | None = None, table: str = "") -> None:
        names = {f"encode_{place}": encode for place, (_, encode) in enumerate(parts)}
        count = struct.pack(">h", len(parts) if columns is None else columns)
        pieces = [
            f"        NULL if (value := values[{field!r}]) is None else encode_{place}(value),"
            for place, (field, _) in enumerate(parts)
        ]
        lines = ["def encode(values):", "    return b''.join((", "        COUNT,", *pieces, "    ))"]
        self.encode = generated.function("encode", lines, {**names, "NULL": NULL, "COUNT": count}, about=table)
