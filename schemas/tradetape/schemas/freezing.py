"""Releases the next version of a record: its head schema becomes a frozen file, with a golden event and a line in the lock."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

from tradetape.schemas import golden
from tradetape.schemas.errors import CatalogueError
from tradetape.schemas.released import Archive, Version


def freeze(target: Path, *, record: str, head: bytes) -> Version:
    """Write the text of a head schema into the folder `target` as the record's next version; the lock last.

    Its golden event says what the sample golden/<record>.v<N>.json says, else what the last version's says. Raises
    CatalogueError where there is no sample or it does not fit.
    """
    archive = Archive(target)
    number = len(archive.versions(record)) + 1
    version = Version(number, json.loads(head), hashlib.sha256(head).hexdigest())
    sample = archive.sample(record, number) or archive.sample(record, number - 1)
    if sample is None:
        raise CatalogueError(f"{record} v{number} needs a sample event: write golden/{record}.v{number}.json first")
    payload = golden.encode(version.schema, sample)
    (target / record).mkdir(exist_ok=True)
    (target / record / f"v{number}.avsc").write_bytes(head)
    (target / "golden" / f"{record}.v{number}.json").write_text(_document(sample), encoding="utf-8")
    (target / "golden" / f"{record}.v{number}.bin").write_bytes(payload)
    locked = archive.lock()
    locked[record] = [*locked.get(record, []), version.locked()]
    (target / "lock.json").write_text(_document(dict(sorted(locked.items()))), encoding="utf-8")
    return version


def _document(content: object) -> str:
    return json.dumps(content, indent=2, ensure_ascii=False) + "\n"
