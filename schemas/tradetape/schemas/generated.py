"""Functions made of text: what dataclasses do, for loops over a schema that would otherwise run for every event.

Their lines stand in tracebacks and debuggers as a file's lines do, and in `source_of`. A text is made of schemas and
tables alone, never of what an event holds.
"""

from __future__ import annotations

import linecache
from collections.abc import Mapping
from typing import Any
from zlib import crc32


def function(name: str, lines: list[str], names: Mapping[str, object], *, about: str) -> Any:
    """The function `name` that the lines define; `names` are what it sees, `about` says in tracebacks what it is for."""
    source = "\n".join(lines) + "\n"
    # By its content too, since a record may have another schema in another catalogue.
    file = f"<tradetape {name} {about} {crc32(source.encode()):08x}>"
    space: dict[str, Any] = dict(names)
    exec(compile(source, file, "exec"), space)
    linecache.cache[file] = (len(source), None, source.splitlines(keepends=True), file)
    return space[name]


def variable(field: str) -> str:
    """The variable of a field: its name ends in _, so that it is neither a keyword nor a name of ours."""
    return f"{field}_"


def source_of(made: Any) -> str:
    """The text that a function was made of."""
    return "".join(linecache.getlines(made.__code__.co_filename))
