"""Packs and unpacks doubles that stand between bytes which are always the same, in one step: a map's values between its names."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal

Unpack = Callable[[bytes, int], tuple[float, ...] | None]


def doubles_between(
    heads: Sequence[bytes], tail: bytes, *, order: Literal["<", ">"]
) -> Callable[[Iterable[float]], bytes]:
    """A function that puts as many doubles, each behind its head, and `tail` behind all; `order` is their byte order."""
    form = _form(heads, tail, order)
    around: list[Any] = [piece for head in heads for piece in (head, 0.0)]
    around.append(tail)

    def pack(values: Iterable[float]) -> bytes:
        pieces = around.copy()
        pieces[1::2] = values
        return form.pack(*pieces)

    return pack


def doubles_found_between(heads: Sequence[bytes], tail: bytes, *, order: Literal["<", ">"]) -> Unpack:
    """A function that takes the doubles from where they were packed so; None where anything else lies there."""
    form = _form(heads, tail, order)
    fixed, size = (*heads, tail), form.size

    def unpack(data: bytes, at: int) -> tuple[float, ...] | None:
        if at + size > len(data):
            return None
        pieces = form.unpack_from(data, at)
        return pieces[1::2] if pieces[::2] == fixed else None

    return unpack


def _form(heads: Sequence[bytes], tail: bytes, order: str) -> struct.Struct:
    return struct.Struct(order + "".join(f"{len(head)}sd" for head in heads) + f"{len(tail)}s")
