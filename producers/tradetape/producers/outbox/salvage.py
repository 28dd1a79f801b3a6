"""What a damaged outbox file still holds: read page by page, by SQLite's file format, without the tree that links them.

So a damaged page costs the records on it and no others, wherever it stands. The file itself is not touched: a copy is
read, into which SQLite folds the log first. Format: https://sqlite.org/fileformat2.html, sections 1.6, 1.8 and 2.1.
"""

from __future__ import annotations

import mmap
import shutil
import sqlite3
import struct
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

from tradetape.producers.errors import OutboxUnavailable
from tradetape.producers.outbox.reading import OutboxReader
from tradetape.producers.outbox.store import FILE, Entry, OutboxStore

MAGIC = b"SQLite format 3\0"
PAGE_BYTES = 4096
PAGE_COUNT = slice(28, 32)
"""Where the first page says how many there are."""
RECORD_BYTES = 1024 * 1024
"""No record of an outbox is longer."""
INDEX_INNER, TABLE_INNER, INDEX_LEAF, TABLE_LEAF = 0x02, 0x05, 0x0A, 0x0D
LEAST_LOCAL = (PAGE_BYTES - 12) * 32 // 255 - 23
MOST_LOCAL = {INDEX_INNER: (PAGE_BYTES - 12) * 64 // 255 - 23, TABLE_LEAF: PAGE_BYTES - 35}
MOST_LOCAL[INDEX_LEAF] = MOST_LOCAL[INDEX_INNER]
"""How much of a record stands on its page, by the page's kind; the rest is in a chain of overflow pages."""
ROOT, FREE, OVERFLOW_FIRST, OVERFLOW, INNER = 1, 2, 3, 4, 5
"""What the map of pages says of each."""
MAPPED_PAGES = PAGE_BYTES // 5
INTEGER_BYTES = (0, 1, 2, 3, 4, 6, 8)
WAITING = (int, int, str, bytes, bytes, int, int)
PARKED = (int, int, str, bytes, bytes, int, str)
TOPIC = (int, str)
TOPIC_INDEX = (str, int)

Content = bytes | mmap.mmap


@contextmanager
def copy_of(path: Path) -> Iterator[OutboxReader | Salvage]:
    """Read a copy of an outbox file: as it is where it is sound, else what can be salvaged. Raises OutboxUnavailable."""
    with tempfile.TemporaryDirectory(prefix="tradetape-outbox-") as folder:
        copied = Path(folder) / FILE
        _copy(path, copied)
        if is_sound(copied) and _is_read_whole(copied):
            with OutboxReader(copied) as reader:
                yield reader
        else:
            # A second copy: what SQLite made of the first one, and beside it, is not wanted here.
            copied = Path(folder) / "pages"
            _copy(path, copied)
            unread = _fold(copied)
            with copied.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
                yield Salvage(path, content, unread)


def _copy(path: Path, copied: Path) -> None:
    try:
        for companion in ("", "-wal"):
            source = path.with_name(path.name + companion)
            if not companion or source.exists():
                shutil.copyfile(source, copied.with_name(copied.name + companion))
    except OSError as error:
        raise OutboxUnavailable(f"the outbox {path} cannot be read: {error.strerror}") from error


def is_sound(path: Path) -> bool:
    """Whether the pages that hold records can be read; the records themselves are not looked at."""
    try:
        with OutboxReader(path) as reader:
            reader.totals()
    except OutboxUnavailable:
        return False
    return True


def _is_read_whole(path: Path) -> bool:
    try:
        with OutboxReader(path) as reader:
            for _ in reader.entries():
                pass
    except OutboxUnavailable:
        return False
    return True


def _fold(copied: Path) -> list[str]:
    """Bring the pages from the log to their places; what of them cannot be read.

    The first page is a new outbox's: it only says where the tables are, which is the same in each.
    """
    new = OutboxStore(copied.with_name("new"), name="a new one", durability="process", max_bytes=1)
    new.close()
    has_log = copied.with_name(f"{copied.name}-wal").exists()
    with copied.open("r+b") as file:
        head = file.read(PAGE_COUNT.stop)
        pages = file.seek(0, 2) // PAGE_BYTES
        file.seek(0)
        file.write(new.path.read_bytes()[:PAGE_BYTES])
        file.seek(PAGE_COUNT.start)
        file.write(pages.to_bytes(4, "big"))
    connection = sqlite3.connect(copied)
    try:
        (is_busy, *_) = connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        is_folded = not is_busy
    except (sqlite3.Error, UnicodeDecodeError):
        is_folded = False
    finally:
        connection.close()
    folded = copied.stat().st_size // PAGE_BYTES
    unread = [] if is_folded or not has_log else ["the log beside it"]
    if head.startswith(MAGIC) and (owed := int.from_bytes(head[PAGE_COUNT], "big")) > folded:
        unread.append(f"what stood behind page {pages}: the file is cut off, and had {owed}")
    return unread


class _Damaged(Exception):
    """What stands there is no record."""


class _Place(NamedTuple):
    start: int
    kind: int


class Salvage:
    """Reads the pages of one file. `unread` says, once `entries` is through, what could not be read."""

    def __init__(self, path: Path, content: Content, unread: list[str]) -> None:
        self.path = path
        self.unread = unread
        self._content = content
        self._pages = len(content) // PAGE_BYTES
        self._topics: dict[int, str] = {}
        self._places: dict[tuple[int, str], _Place] = {}

    def entries(self) -> Iterator[Entry]:
        """Every record that can be read, in order. Raises OutboxUnavailable when there is nothing to be read."""
        for page in range(2, self._pages + 1):
            self._look_at(page)
        if not (self._topics or self._places):
            raise OutboxUnavailable(f"{self.path} is no outbox, or nothing of it can be read")
        for _, place in sorted(self._places.items()):
            yield self._entry(place)

    def _look_at(self, page: int) -> None:
        map_page, kinds = self._map(page)
        if page == map_page:
            if not kinds:
                self.unread.append(f"page {page} of {self._pages}, which tells free pages: some events may be old ones")
            return
        if kinds and kinds[page - map_page - 1] not in (ROOT, INNER):
            return
        damaged = 0
        try:
            for place in self._places_on(page):
                try:
                    self._keep(place)
                except _Damaged:
                    damaged += 1
        except _Damaged:
            self.unread.append(f"page {page} of {self._pages}")
        if damaged:
            self.unread.append(f"{damaged} of the records on page {page} of {self._pages}")

    def _map(self, page: int) -> tuple[int, bytes]:
        """The page of the map that tells of a page, and what it says of each; nothing where it is damaged."""
        map_page = (page - 2) // (MAPPED_PAGES + 1) * (MAPPED_PAGES + 1) + 2
        told = min(MAPPED_PAGES, self._pages - map_page)
        start = (map_page - 1) * PAGE_BYTES
        kinds = self._content[start : start + 5 * told : 5]
        return map_page, kinds if all(ROOT <= one <= INNER for one in kinds) else b""

    def _places_on(self, page: int) -> Iterator[_Place]:
        """Where the page's records begin."""
        base = (page - 1) * PAGE_BYTES
        kind, _, count = struct.unpack_from(">BHH", self._content, base)
        if kind == TABLE_INNER:
            return
        head = 12 if kind == INDEX_INNER else 8
        if kind not in MOST_LOCAL or head + 2 * count > PAGE_BYTES:
            raise _Damaged
        for start in struct.unpack_from(f">{count}H", self._content, base + head):
            yield _Place(base + min(start, PAGE_BYTES - 1) + (4 if kind == INDEX_INNER else 0), kind)

    def _keep(self, place: _Place) -> None:
        values = self._values(place)
        form = tuple(map(type, values))
        if place.kind == TABLE_LEAF and form == TOPIC:
            self._topics[values[0]] = values[1]
        elif form == (PARKED if place.kind == TABLE_LEAF else WAITING):
            number = values[0] if place.kind == TABLE_LEAF else values[1]
            self._places[number, values[2]] = place
        elif place.kind == TABLE_LEAF or form != TOPIC_INDEX:
            raise _Damaged

    def _entry(self, place: _Place) -> Entry:
        first, second, event_id, key, payload, timestamp_ms, last = self._values(place)
        is_parked = place.kind == TABLE_LEAF
        number, topic = (first, second) if is_parked else (second, first)
        name = self._topics.get(topic, f"?{topic}")
        return Entry(number, name, event_id, key, payload, timestamp_ms, last if is_parked else None)

    def _values(self, place: _Place) -> list[Any]:
        try:
            size, at = _varint(self._content, place.start)
            row_id = None
            if place.kind == TABLE_LEAF:
                row_id, at = _varint(self._content, at)
            values = _decoded(self._bytes(at, size, MOST_LOCAL[place.kind]))
        except (IndexError, ValueError, struct.error) as error:
            raise _Damaged from error
        return values if row_id is None else [row_id, *values[1:]]

    def _bytes(self, at: int, size: int, most_local: int) -> bytes:
        """A record's bytes, from its page and its overflow pages."""
        if size > RECORD_BYTES:
            raise _Damaged
        per_page = PAGE_BYTES - 4
        fitting = LEAST_LOCAL + (size - LEAST_LOCAL) % per_page
        local = size if size <= most_local else fitting if fitting <= most_local else LEAST_LOCAL
        found, at = [self._content[at : at + local]], at + local
        missing = size - local
        while missing > 0:
            (page,) = struct.unpack_from(">I", self._content, at)
            at = (page - 1) * PAGE_BYTES
            if not 2 <= page <= self._pages:
                raise _Damaged
            found.append(self._content[at + 4 : at + 4 + min(missing, per_page)])
            missing -= per_page
        return b"".join(found)


def _decoded(record: bytes) -> list[Any]:
    """The columns of a record."""
    head_size, at = _varint(record, 0)
    body = head_size
    values: list[Any] = []
    while at < head_size:
        kind, at = _varint(record, at)
        value, body = _column(record, kind, body)
        values.append(value)
    if body != len(record):
        raise _Damaged
    return values


def _column(record: bytes, kind: int, at: int) -> tuple[Any, int]:
    """A column's value, and where the next one begins."""
    if kind == 0:
        return None, at
    if kind in (8, 9):
        return kind - 8, at
    if kind < len(INTEGER_BYTES):
        end = at + INTEGER_BYTES[kind]
        return int.from_bytes(record[at:end], "big", signed=True), end
    if kind < 12:
        raise _Damaged
    end = at + (kind - 12) // 2
    return record[at:end].decode() if kind % 2 else record[at:end], end


def _varint(content: Content, at: int) -> tuple[int, int]:
    """A number of one to nine bytes, and where the next one begins."""
    value = 0
    for place in range(at, at + 8):
        value = value << 7 | content[place] & 0x7F
        if content[place] < 0x80:
            return value, place + 1
    return value << 8 | content[at + 8], at + 9
