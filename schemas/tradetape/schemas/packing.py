"""Packs doubles that stand between bytes which are always the same, in one step: a map's values between its names."""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Literal


def doubles_between(
    heads: Sequence[bytes], tail: bytes, *, order: Literal["<", ">"]
) -> Callable[[Iterable[float]], bytes]:
    """A function that puts as many doubles, each behind its head, and `tail` behind all; `order` is their byte order."""
    form = struct.Struct(order + "".join(f"{len(head)}sd" for head in heads) + f"{len(tail)}s")
    around: list[Any] = [piece for head in heads for piece in (head, 0.0)]
    around.append(tail)

    def pack(values: Iterable[float]) -> bytes:
        pieces = around.copy()
        pieces[1::2] = values
        return form.pack(*pieces)

    return pack
