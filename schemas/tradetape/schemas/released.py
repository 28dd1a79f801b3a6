"""The schemas that have been released: frozen files, never changed, because records on the tape name them for ever.

released/<Record>/v<N>.avsc is a whole schema; released/lock.json holds each one's id and SHA-256, so an edited file
is noticed; released/golden/<Record>.v<N>.bin is an event that it wrote, which every later reader must still decode to
what the .json beside it says.
"""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path
from typing import NamedTuple, TypedDict

from tradetape.schemas import avro_schema
from tradetape.schemas.avro_schema import Schema


class Locked(TypedDict):
    """What the lock says of one released version; the SHA-256 is of the file, in hexadecimal."""

    version: int
    id: int
    sha256: str


class Version(NamedTuple):
    """One released version of a record, as its file holds it."""

    number: int
    schema: Schema
    sha256: str

    @property
    def schema_id(self) -> int:
        """The id under which its records travel."""
        return avro_schema.content_id(self.schema)

    def locked(self) -> Locked:
        """What the lock has to say of it."""
        return {"version": self.number, "id": self.schema_id, "sha256": self.sha256}


class Archive:
    """Reads the released versions of one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def records(self) -> tuple[str, ...]:
        """The records that have a folder of released versions, or that the lock speaks of, in alphabetical order."""
        found = {one.name for one in self._folder.iterdir() if one.is_dir()} if self._folder.is_dir() else set()
        return tuple(sorted((found | set(self.lock())) - {"golden"}))

    def versions(self, record: str) -> tuple[Version, ...]:
        """The released versions of a record, oldest first; empty for one that was never released."""
        found: list[Version] = []
        while (path := self._folder.joinpath(record, f"v{len(found) + 1}.avsc")).is_file():
            content = path.read_bytes()
            found.append(Version(len(found) + 1, json.loads(content), hashlib.sha256(content).hexdigest()))
        return tuple(found)

    def lock(self) -> dict[str, list[Locked]]:
        """What was released: for each record its versions, oldest first."""
        path = self._folder.joinpath("lock.json")
        loaded: dict[str, list[Locked]] = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return loaded

    def golden(self, record: str, number: int) -> bytes | None:
        """An event that a version wrote, framed as on the tape; None where its file is missing."""
        path = self._folder.joinpath("golden", f"{record}.v{number}.bin")
        return path.read_bytes() if path.is_file() else None

    def sample(self, record: str, number: int) -> dict[str, object] | None:
        """What that event says, as JSON that people can read; None where its file is missing."""
        path = self._folder.joinpath("golden", f"{record}.v{number}.json")
        loaded: dict[str, object] | None = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else None
        return loaded


def folder() -> Path:
    """Where the released schemas lie inside of the package."""
    return Path(__file__).with_name("released")


@lru_cache(maxsize=64)
def released_schemas(record: str) -> tuple[Schema, ...]:
    """The released versions of a record, oldest first; empty for one that was never released."""
    return tuple(version.schema for version in Archive(folder()).versions(record))


def lock() -> dict[str, list[Locked]]:
    """What this package released: for each record its versions, oldest first."""
    return Archive(folder()).lock()
