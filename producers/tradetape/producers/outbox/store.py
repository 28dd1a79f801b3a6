"""The file of the outbox: an SQLite database in WAL mode, in a folder of its own for each source.

`durability="process"`: what was added survives the process' death at any moment (a commit is in the kernel's hands).
`"power"`: it is on the disk as well, which costs an fsync for each decision. The pump's thread reads, and folds the
write-ahead log back, on a connection of its own, since both take time, and `emit` must not wait for them.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal, NamedTuple

from tradetape.producers.errors import OutboxFull, OutboxUnavailable
from tradetape.producers.outbox.owner import Owner
from tradetape.producers.sql_blocks import sql_blocks

logger = logging.getLogger("tradetape.producers")

Durability = Literal["process", "power"]
SYNCHRONOUS = {"process": "NORMAL", "power": "FULL"}
FILE = "outbox.sqlite3"
COMPANIONS = ("", "-wal", "-shm")
RECORD_OVERHEAD_BYTES = 128
"""What a record takes in the file besides its key and payload, about."""
BUSY_TIMEOUT_S = 0.1
"""Nobody else has business in the file; somebody with a shell for SQLite may all the same."""
FOLD_AT_BYTES = 32 * 1024 * 1024
"""How long the log grows before it is folded back: seldom enough that the fsync behind it is no part of p99.9."""
FOLD_NOW_BYTES = 4 * FOLD_AT_BYTES
"""How long it may grow while writers keep it from being folded; then they wait for it once."""
VACUUM_PAGES = 1_000
_STATEMENTS = Path(__file__).with_name("statements.sql")
BROKEN = frozenset((sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB))


class Waiting(NamedTuple):
    """A record on its way into the outbox. An input is there because a decision names it: it may have arrived by then."""

    topic: str
    event_id: str
    key: bytes
    payload: bytes
    timestamp_ms: int
    is_input: bool = False


class Stored(NamedTuple):
    """A record in the outbox. Numbers rise in the order of `add`."""

    number: int
    event_id: str
    key: bytes
    payload: bytes
    timestamp_ms: int
    is_input: bool


class Entry(NamedTuple):
    """A record as people see it; `cause` says why it is parked, None while it waits."""

    number: int
    topic: str
    event_id: str
    key: bytes
    payload: bytes
    timestamp_ms: int
    cause: str | None


class Totals(NamedTuple):
    """What an outbox holds: events that wait, their bytes, those parked, and the oldest one's time in ms since 1970."""

    events: int
    bytes: int
    parked: int
    oldest_ms: int | None


class OutboxStore:
    """Thread-safe. Calls take microseconds, except `fold_log`, which waits for the disk."""

    def __init__(self, folder: Path, *, name: str, durability: Durability, max_bytes: int) -> None:
        """Raises OutboxInUse, OutboxUnavailable."""
        self.path = folder / FILE
        self._durability = durability
        self._max_bytes = max_bytes
        # Reentrant: who finds the file broken sets it aside, with the lock or without.
        self._lock = threading.RLock()
        self._number = 0
        try:
            folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            self._owner = Owner(folder, name)
        except OSError as error:
            raise OutboxUnavailable(
                f"the outbox {folder} cannot be used: {error.strerror}; set TRADETAPE_OUTBOX_DIR to a folder that can be written"
            ) from error
        try:
            self._open_or_set_aside()
        except BaseException:
            self._owner.release()
            raise

    def _open_or_set_aside(self) -> None:
        try:
            self._open()
        except _Broken as broken:
            self._set_aside(broken)
            self._open()

    def _open(self) -> None:
        with self._mapped():
            self._connection = self._connect()
            self._connection.executescript(_statement("create"))
            (verdict,) = self._connection.execute("PRAGMA quick_check(1)").fetchone()
            if verdict != "ok":
                raise _Broken(verdict)
            self._pumping = self._connect()
            self._topics: dict[str, int] = {}
            self._read_topics()
            # Never lower than before: what is on its way from a file set aside must not share a number with a new record.
            self._number = max(self._number, *self._one("last_number"))
            totals = {name: rest for name, *rest in self._connection.execute(_statement("waiting_totals")).fetchall()}
            self._waiting = Counter({name: count for name, (count, _) in totals.items()})
            self._parked, self._bytes = self._one("parked_totals")
            self._bytes += sum(size for _, size in totals.values())
            self._bytes += RECORD_OVERHEAD_BYTES * (self._waiting.total() + self._parked)

    def _connect(self) -> sqlite3.Connection:
        is_new = not self.path.exists()
        made = sqlite3.connect(self.path, isolation_level=None, check_same_thread=False, timeout=BUSY_TIMEOUT_S)
        try:
            if is_new:
                # Before the first table is made, or it takes no effect; it lets the file shrink after an outage.
                made.execute("PRAGMA auto_vacuum = INCREMENTAL")
            made.execute("PRAGMA journal_mode = WAL")
            # What it has grown beyond is cut off by whoever writes first after a fold.
            made.execute(f"PRAGMA journal_size_limit = {FOLD_AT_BYTES}")
            made.execute(f"PRAGMA synchronous = {SYNCHRONOUS[self._durability]}")
            made.execute("PRAGMA wal_autocheckpoint = 0")
        except BaseException:
            made.close()
            raise
        return made

    def _set_aside(self, broken: _Broken) -> None:
        """Keep a broken file under another name: what is in it may be read by hand, and is never deleted."""
        for connection in (getattr(self, "_connection", None), getattr(self, "_pumping", None)):
            if connection is not None:
                connection.close()
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%S%fZ")
        kept = self.path.with_name(f"corrupt-{stamp}-{FILE}")
        for companion in COMPANIONS:
            part = self.path.with_name(FILE + companion)
            if part.exists():
                part.rename(kept.with_name(kept.name + companion))
        logger.error(
            "the outbox %s is corrupt (%s); it is kept as %s, read it with `tradetape outbox show --file`, and a new one is begun",
            self.path, broken, kept,
        )  # fmt: skip

    def add(self, records: Sequence[Waiting]) -> int:
        """Put records behind all others, all or none; the last one's number. Raises OutboxFull, OutboxUnavailable."""
        size = sum(len(one.key) + len(one.payload) + RECORD_OVERHEAD_BYTES for one in records)
        with self._lock:
            if self._bytes + size > self._max_bytes:
                raise OutboxFull(
                    f"the outbox {self.path} holds {self._waiting.total()} events, {self._bytes} bytes of the {self._max_bytes} that it may: "
                    "Kafka has not taken them; the event was not accepted"
                )
            try:
                self._add(records)
            except _Broken as broken:
                self._set_aside(broken)
                with self._mapped():
                    self._open()
                self._add(records)
            self._number += len(records)
            self._waiting.update(one.topic for one in records)
            self._bytes += size
            return self._number

    def _add(self, records: Sequence[Waiting]) -> None:
        with self._mapped():
            rows = [
                (self._topic_id(one.topic), self._number + place, one.event_id, one.key, one.payload, one.timestamp_ms, one.is_input)
                for place, one in enumerate(records, 1)
            ]  # fmt: skip
            if len(rows) == 1:
                self._connection.execute(_statement("add"), rows[0])
                return
            with self._transaction():
                self._connection.executemany(_statement("add"), rows)

    def topics(self) -> list[str]:
        """The topics that records ever went to."""
        return list(self._topics)

    def waiting(self, topic: str) -> int:
        """How many records wait for a topic."""
        return self._waiting[topic]

    def oldest(self, topic: str, *, after: int = 0, limit: int, max_bytes: int) -> list[Stored]:
        """The first records behind `after` that wait for a topic, in order, at least one if there is any.

        Raises OutboxUnavailable.
        """
        found: list[Stored] = []
        # On the pump's own connection, without the lock: each row lets another thread run, and `emit` would wait for all.
        with self._mapped_and_aside():
            rows = self._pumping.execute(_statement("oldest"), (self._topics[topic], after, limit))
            for number, event_id, key, payload, timestamp_ms, is_input in rows:
                found.append(Stored(number, event_id, key, payload, timestamp_ms, bool(is_input)))
                max_bytes -= len(found[-1].payload)
                if max_bytes <= 0:
                    break
            rows.close()
        return found

    def remove(self, topic: str, records: Sequence[Stored]) -> None:
        """They have arrived. Raises OutboxUnavailable."""
        with self._lock, self._mapped_and_aside():
            # One statement, so that the lock is held for one step and not for as many as there are records.
            numbers = json.dumps([one.number for one in records])
            found = self._connection.execute(_statement("remove"), (self._topics[topic], numbers)).rowcount
            if found == len(records):
                self._waiting[topic] -= found
                self._bytes -= sum(map(_size, records))

    def park(self, topic: str, record: Stored, cause: str) -> None:
        """Take a record that its topic refuses out of the others' way. Raises OutboxUnavailable."""
        with self._lock, self._mapped_and_aside():
            topic_id = self._topics[topic]
            with self._transaction():
                named = {"topic": topic_id, "number": record.number, "cause": cause}
                self._connection.execute(_statement("park"), named)
                self._connection.execute(_statement("remove"), (topic_id, json.dumps([record.number])))
            self._waiting[topic] -= 1
            self._parked += 1

    def unpark(self) -> int:
        """Let what was parked wait again, each at its old place; how many. Raises OutboxUnavailable."""
        with self._lock, self._mapped_and_aside():
            with self._transaction():
                topics = [topic for (topic,) in self._connection.execute(_statement("parked_topics")).fetchall()]
                self._connection.execute(_statement("unpark"))
                self._connection.execute(_statement("empty_parked"))
            self._waiting.update(topics)
            self._parked = 0
            return len(topics)

    def waits_up_to(self, number: int) -> bool:
        """Whether a record with this number or a lower one still waits. Raises OutboxUnavailable."""
        with self._lock:
            return any(first <= number for first, _ in self._firsts())

    def totals(self) -> Totals:
        """What it holds; without the oldest one's time where the disk does not tell."""
        with self._lock:
            try:
                oldest = min((timestamp for _, timestamp in self._firsts()), default=None)
            except OutboxUnavailable:
                oldest = None
            return Totals(self._waiting.total(), self._bytes, self._parked, oldest)

    def last_number(self) -> int:
        """The number of the record that was added last."""
        return self._number

    def everything(self) -> Iterator[Entry]:
        """Every record that waits or is parked, in order. Raises OutboxUnavailable."""
        with self._mapped():
            yield from (Entry(*one) for one in self._pumping.execute(_statement("everything")))

    def fold_log(self) -> None:
        """Fold the write-ahead log back into the file where it has grown, and give free pages back."""
        log = self.path.with_name(FILE + "-wal")
        try:
            size = log.stat().st_size
        except FileNotFoundError:
            return
        with self._mapped():
            if size > FOLD_AT_BYTES:
                _, frames, folded = self._pumping.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
                if frames == folded:
                    # The next write begins the log anew, cuts it, and waits for the disk: this one, not a decision's.
                    with self._lock:
                        self._connection.execute("PRAGMA user_version = 0")
            if size > FOLD_NOW_BYTES:
                with self._lock:
                    self._pumping.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
            if (
                not self._waiting.total()
                and self._pumping.execute("PRAGMA freelist_count").fetchone()[0] > VACUUM_PAGES
            ):
                with self._lock:
                    # A statement without columns, which `execute` would step once: for one page.
                    self._connection.executescript(f"PRAGMA incremental_vacuum({VACUUM_PAGES})")

    def close(self) -> None:
        """Close the file; the next producer of the source goes on with it."""
        with self._lock:
            self._pumping.close()
            self._connection.close()
            self._owner.release()

    def leave_to_the_parent(self) -> None:
        """In a forked child: keep nothing that would keep the outbox from the parent's successor."""
        self._owner.release()

    def _firsts(self) -> Iterator[tuple[int, int]]:
        with self._mapped_and_aside():
            for topic, topic_id in self._topics.items():
                if not self._waiting[topic]:
                    continue
                row = self._connection.execute(_statement("first"), (topic_id,)).fetchone()
                if row is not None:
                    yield row

    def _topic_id(self, topic: str) -> int:
        if topic not in self._topics:
            self._connection.execute(_statement("add_topic"), {"name": topic})
            self._read_topics()
        return self._topics[topic]

    def _read_topics(self) -> None:
        self._topics = {name: topic_id for topic_id, name in self._connection.execute(_statement("topics")).fetchall()}

    def _one(self, statement: str) -> tuple[Any, ...]:
        found: tuple[Any, ...] = self._connection.execute(_statement(statement)).fetchone()
        return found

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            # A full disk may have rolled it back already.
            if self._connection.in_transaction:
                self._connection.execute("ROLLBACK")
            raise

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        except sqlite3.Error as error:
            code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
            if code & 0xFF in BROKEN:
                raise _Broken(str(error)) from error
            if code & 0xFF == sqlite3.SQLITE_FULL:
                raise OutboxFull(f"no space left for the outbox {self.path}; the event was not accepted") from error
            raise OutboxUnavailable(f"the outbox {self.path}: {error}") from error

    @contextmanager
    def _mapped_and_aside(self) -> Iterator[None]:
        """For callers that can do without: a broken file is set aside, and they find an empty one next time."""
        try:
            with self._mapped():
                yield
        except _Broken as broken:
            with self._lock, self._mapped():
                self._set_aside(broken)
                self._open()
            raise OutboxUnavailable(f"the outbox {self.path} was corrupt and is set aside: {broken}") from broken


class _Broken(Exception):
    """The file is no database any more."""


def _size(record: Stored) -> int:
    return len(record.key) + len(record.payload) + RECORD_OVERHEAD_BYTES


def _statement(name: str) -> str:
    return sql_blocks(_STATEMENTS)[name]


def folder_name(source: str) -> str:
    """A source's name as a folder's: what a file system may not like is written in hexadecimal."""
    return "".join(one if one.isascii() and (one.isalnum() or one in "-_") else f"%{ord(one):x}" for one in source)


def files(folder: Path) -> Iterable[Path]:
    """Every outbox file below a folder of outboxes, those set aside included."""
    return sorted(folder.glob(f"*/*{FILE}"))
