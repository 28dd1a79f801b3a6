"""Rows as people and programs want them: a table on a terminal, CSV or one JSON document a line otherwise.

Decimals keep all of their digits as text, times are UTC with a Z: nothing is rounded or moved on its way out.
"""

from __future__ import annotations

import csv
import io
import sys
from collections.abc import Iterable, Iterator, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec

LONGEST_CELL = 40
"""Characters of a cell on a terminal; the rest is cut, and CSV has it all."""
ELLIPSIS = "…"
_encode = msgspec.json.Encoder(decimal_format="string").encode


def table(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Lines of a table: numbers to the right, nothing for what is unknown."""
    rows = list(rows)
    cells = [[_cut(text(value)) for value in row] for row in rows]
    widths = [max([len(name), *(len(row[place]) for row in cells)]) for place, name in enumerate(columns)]
    numeric = [
        any(_is_number(row[place]) for row in rows)
        and all(row[place] is None or _is_number(row[place]) for row in rows)
        for place in range(len(columns))
    ]
    for line in ([*columns], *cells):
        parts = [f"{cell:>{width}}" if right else f"{cell:<{width}}" for cell, width, right in zip(line, widths, numeric, strict=True)]  # fmt: skip
        yield "  ".join(parts).rstrip()


def csv_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """Lines of RFC 4180 without their ends, the first with the names; nothing at all for what is unknown."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="")
    for row in _chain(columns, rows):
        writer.writerow([text(value) for value in row])
        yield out.getvalue()
        out.seek(0)
        out.truncate()


def _chain(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[Sequence[Any]]:
    yield columns
    yield from rows


def json_lines(columns: Sequence[str], rows: Iterable[Sequence[Any]]) -> Iterator[str]:
    """A JSON document for each row. Decimals are text, with all of their digits."""
    for row in rows:
        yield _encode(dict(zip(columns, map(_document, row), strict=True))).decode()


def is_for_people() -> bool:
    """Whether stdout is a terminal."""
    return sys.stdout.isatty()


def text(value: Any) -> str:
    """A value as text."""
    if value is None:
        return ""
    if isinstance(value, Decimal):
        return _digits(value)
    if isinstance(value, datetime):
        return _instant(value)
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (dict, list)):
        return _encode(value).decode()
    return str(value)


def _document(value: Any) -> Any:
    if isinstance(value, (Decimal, datetime, timedelta)):
        return text(value)
    return value


def _digits(value: Decimal) -> str:
    """Without exponent, and without the zeros that the column's scale puts behind."""
    plain = f"{value:f}"
    return plain.rstrip("0").rstrip(".") if "." in plain else plain


def _instant(value: datetime) -> str:
    return value.astimezone(UTC).isoformat().replace("+00:00", "Z")


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float, Decimal)) and not isinstance(value, bool)


def _cut(cell: str) -> str:
    cell = " ".join(cell.split())
    return cell if len(cell) <= LONGEST_CELL else cell[: LONGEST_CELL - 1] + ELLIPSIS
