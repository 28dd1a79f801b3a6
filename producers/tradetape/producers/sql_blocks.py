"""Named SQL statements from a .sql file: blocks of `-- name: …`, so that no statement is built from strings."""

from __future__ import annotations

from functools import lru_cache
from pathlib import Path


@lru_cache(maxsize=8)
def sql_blocks(file: Path) -> dict[str, str]:
    """The statements of a file, by name."""
    blocks = [block.partition("\n") for block in file.read_text(encoding="utf-8").split("-- name: ")[1:]]
    return {name.strip(): body.strip() for name, _, body in blocks}
