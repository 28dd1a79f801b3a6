"""The schemas that have been released: frozen files, never changed, because records on the tape name them for ever.

released/<Record>/v<N>.avsc is a whole schema; released/lock.json holds each one's id and SHA-256, so an edited file
is noticed; released/golden/<Record>.v<N>.bin is an event that it wrote, which every later reader must still decode.
"""

from __future__ import annotations

import json
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Any

from tradetape.schemas.avro_schema import Schema


def folder() -> Traversable:
    """Where the released schemas lie inside of the package."""
    return resources.files("tradetape.schemas").joinpath("released")


@lru_cache(maxsize=64)
def released_schemas(record: str) -> tuple[Schema, ...]:
    """The released versions of a record, oldest first; empty for one that was never released."""
    found: list[Schema] = []
    while (path := folder().joinpath(record, f"v{len(found) + 1}.avsc")).is_file():
        found.append(json.loads(path.read_text(encoding="utf-8")))
    return tuple(found)


def lock() -> dict[str, list[dict[str, Any]]]:
    """What was released: for each record its versions as {"version", "id", "sha256"}, oldest first."""
    path = folder().joinpath("lock.json")
    loaded: dict[str, list[dict[str, Any]]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
    return loaded
