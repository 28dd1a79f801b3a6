"""Named SQL statements from a .sql file: blocks of `-- name: …`, so that no statement is built from strings."""

from __future__ import annotations

from functools import lru_cache
from importlib import resources


@lru_cache(maxsize=8)
def sql_blocks(package: str, file: str) -> dict[str, str]:
    """The statements of a package's file, by name."""
    text = resources.files(package).joinpath(file).read_text(encoding="utf-8")
    blocks = [block.partition("\n") for block in text.split("-- name: ")[1:]]
    return {name.strip(): body.strip() for name, _, body in blocks}
