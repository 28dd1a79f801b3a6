"""An outbox read by somebody who does not own it: counted, gone through in order, salvaged where its file is damaged.

Nothing is written to it, and each read is short, so that a running producer can fold its log back in between. SQLite
notices a damaged page when it comes upon it; what stands on other pages is found from the next number that leads there.
Only the one row that links two damaged neighbours goes with them.
"""

from __future__ import annotations

import heapq
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from tradetape.producers.errors import OutboxUnavailable
from tradetape.producers.outbox.store import BROKEN, FILE, RECORD_OVERHEAD_BYTES, Entry, OutboxStore, Totals
from tradetape.producers.sql_blocks import sql_blocks

SLICE_RECORDS = 500
GAP_LONGEST = 10_000
"""How many numbers are tried behind a damaged place before the rest counts as lost."""
TOPICS_TRIED = 16
"""How many topics are looked for where their names cannot be read."""
BUSY_TIMEOUT_S = 1.0
PAGE_BYTES = 4096
TABLES = {"topics", "waiting", "parked"}
FORM: tuple[type, ...] = (int, int, str, bytes, bytes, int)


class OutboxReader:
    """Reads one file. `unread` says after `entries` what could not be read."""

    def __init__(self, path: Path) -> None:
        """Raises OutboxUnavailable."""
        self.path = path
        self.unread: list[str] = []
        try:
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S
            )
            self._connection.text_factory = _text
            self._connection.execute("PRAGMA cell_size_check = ON")
        except sqlite3.Error as error:
            raise OutboxUnavailable(f"the outbox {path} cannot be read: {error}") from error

    def totals(self) -> Totals:
        """What it holds, counted as its producer counts. Raises OutboxUnavailable, also for a damaged file."""
        try:
            self._connection.execute("BEGIN")
            (waiting, waiting_bytes), (parked, parked_bytes) = self._one("waiting_totals"), self._one("parked_totals")
            topics = self._connection.execute(_statement("topics")).fetchall()
            firsts = [self._connection.execute(_statement("first"), (one,)).fetchone() for one, _ in topics]
        except sqlite3.Error as error:
            raise OutboxUnavailable(f"the outbox {self.path} cannot be read: {error}") from error
        finally:
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
        size = waiting_bytes + parked_bytes + RECORD_OVERHEAD_BYTES * (waiting + parked)
        return Totals(waiting, size, parked, min((first for (first,) in filter(None, firsts)), default=None))

    def entries(self) -> Iterator[Entry]:
        """Every record that waits or is parked and can be read, in order. Raises OutboxUnavailable."""
        self.unread = []
        topics = self._topics()
        ways = [self._walk(f"decisions that wait for {name}", "waiting", number) for number, name in topics.items()]
        ways.append(self._walk("parked decisions", "parked"))
        for row in heapq.merge(*ways, key=itemgetter(0)):
            yield Entry(row[0], topics.get(row[1], _nameless(row[1])), *row[2:])

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def is_headless(self) -> bool:
        """Whether it does not even say which tables it has."""
        rows, is_whole = self._rows("SELECT name FROM sqlite_schema WHERE type = 'table'", ())
        return not (is_whole and {name for (name,) in rows} >= TABLES)

    def _topics(self) -> dict[int, str]:
        rows, is_whole = self._rows(_statement("topics"), ())
        found = {number: name for number, name in rows if isinstance(number, int) and isinstance(name, str)}
        if not is_whole:
            self.unread.append("the names of some topics")
            found = {number: _nameless(number) for number in range(1, TOPICS_TRIED + 1)} | found
        return found

    def _walk(self, what: str, table: str, *given: int) -> Iterator[Any]:
        """Slice by slice; behind a damaged place from the next number that leads to a sound one."""
        number = 1
        while True:
            rows, is_whole = self._slice(table, given, number, SLICE_RECORDS)
            yield from rows
            number = rows[-1][0] + 1 if rows else number
            if is_whole and len(rows) < SLICE_RECORDS:
                return
            if not is_whole:
                sound, rows = self._next_sound(table, given, number)
                if sound is None:
                    self.unread.append(f"{what}: all from number {number} on")
                    return
                if sound > number:
                    self.unread.append(f"{what}: those from number {number} to {sound - 1}")
                yield from rows
                number = rows[-1][0] + 1 if rows else sound + 1

    def _next_sound(self, table: str, given: tuple[int, ...], number: int) -> tuple[int | None, list[Any]]:
        """The next number that leads to a sound record or to the end, and the record.

        Often that is the number asked for: Python reads a row ahead, and loses the one before the damage.
        """
        for tried in range(number, number + GAP_LONGEST):
            rows, is_whole = self._slice(table, given, tried, 1)
            if is_whole:
                return tried, rows
            # Some rows stand between pages, where the way from below leads over the page before, and the one from
            # above over the page behind.
            rows, is_whole = self._rows(_statement(f"{table}_up_to"), (*given, tried))
            if is_whole and rows and rows[0][0] == tried and _is_in_form(rows[0]):
                return tried, rows
        return None, []

    def _slice(self, table: str, given: tuple[int, ...], number: int, limit: int) -> tuple[list[Any], bool]:
        """The records from a number on, up to the first that is damaged, and whether none was."""
        rows, is_whole = self._rows(_statement(f"{table}_from"), (*given, number, limit))
        for place, row in enumerate(rows):
            if not (_is_in_form(row) and row[0] >= number):
                return rows[:place], False
            number = row[0] + 1
        return rows, is_whole

    def _rows(self, statement: str, given: tuple[int, ...]) -> tuple[list[Any], bool]:
        rows: list[Any] = []
        try:
            for row in self._connection.execute(statement, given):
                rows.append(row)  # noqa: PERF402  # what was read before the damage counts
        except sqlite3.Error as error:
            if getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR) & 0xFF not in BROKEN:
                raise OutboxUnavailable(f"the outbox {self.path} cannot be read: {error}") from error
            return rows, False
        return rows, True

    def _one(self, name: str) -> tuple[int, int]:
        found: tuple[int, int] = self._connection.execute(_statement(name)).fetchone()
        return found

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@contextmanager
def copy_of(path: Path) -> Iterator[OutboxReader]:
    """Read a copy of a file that was set aside: the file itself is not even opened by SQLite.

    A first page that is lost is replaced by a new outbox's: it only says where the tables are, and they are in the same
    places in each. Raises OutboxUnavailable.
    """
    with tempfile.TemporaryDirectory(prefix="tradetape-outbox-") as folder:
        copied = Path(folder) / FILE
        try:
            shutil.copyfile(path, copied)
            log = path.with_name(path.name + "-wal")
            if log.exists():
                shutil.copyfile(log, copied.with_name(copied.name + "-wal"))
        except OSError as error:
            raise OutboxUnavailable(f"the outbox {path} cannot be read: {error.strerror}") from error
        with OutboxReader(copied) as reader:
            is_headless = reader.is_headless()
        if is_headless:
            _put_head(copied, _head(Path(folder) / "new"))
        with OutboxReader(copied) as reader:
            if reader.is_headless():
                raise OutboxUnavailable(f"{path} is no outbox, or nothing of it can be read")
            yield reader


def _head(folder: Path) -> bytes:
    made = OutboxStore(folder, name="a new one", durability="process", max_bytes=1)
    made.close()
    return made.path.read_bytes()[:PAGE_BYTES]


def _put_head(path: Path, head: bytes) -> None:
    """Bytes 28 to 31 say how many pages the file has (https://sqlite.org/fileformat2.html)."""
    pages = path.stat().st_size // PAGE_BYTES
    with path.open("r+b") as file:
        file.write(head[:28] + pages.to_bytes(4, "big") + head[32:])


def _is_in_form(row: tuple[Any, ...]) -> bool:
    return all(isinstance(value, kind) for value, kind in zip(row, FORM, strict=False)) and isinstance(
        row[-1], str | None
    )


def _nameless(topic: int) -> str:
    return f"?{topic}"


def _text(text: bytes) -> str:
    return text.decode(errors="replace")


def _statement(name: str) -> str:
    return sql_blocks("tradetape.producers.outbox", "reading.sql")[name]
