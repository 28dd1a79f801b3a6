"""Sorts fixed-size entries with bounded memory: sorted runs, spilled to disk, merged as they are read.

Entries are bytes that sort by themselves. At most RUN_ENTRIES are in memory, about 90 bytes each; each run is a file of
the temporary folder, so a range of an event type may hold as many runs as the process may open files.
"""

from __future__ import annotations

import heapq
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from typing import IO

RUN_ENTRIES = 500_000
READ_ENTRIES = 1_000


def sorted_entries(entries: Iterable[bytes], *, size: int, run_entries: int = RUN_ENTRIES) -> Iterator[bytes]:
    """The same entries, each of `size` bytes, in order."""
    with ExitStack() as files:
        runs: list[Iterable[bytes]] = []
        held: list[bytes] = []
        for entry in entries:
            held.append(entry)
            if len(held) >= run_entries:
                file = files.enter_context(tempfile.TemporaryFile(prefix="tradetape-verify-"))
                held.sort()
                file.write(b"".join(held))
                file.seek(0)
                runs.append(_read(file, size))
                held = []
        held.sort()
        yield from heapq.merge(*runs, held)


def _read(file: IO[bytes], size: int) -> Iterator[bytes]:
    while piece := file.read(size * READ_ENTRIES):
        for start in range(0, len(piece), size):
            yield piece[start : start + size]
