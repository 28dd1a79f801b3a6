"""What is read of a damaged outbox is what SQLite reads of the sound one, less what stood on the damaged pages."""

from __future__ import annotations

import random
import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradetape.producers.outbox.reading import OutboxReader
from tradetape.producers.outbox.salvage import copy_of
from tradetape.producers.outbox.store import Entry, OutboxStore, Waiting

PAGE_BYTES = 4096


def opened(folder: Path) -> OutboxStore:
    return OutboxStore(folder, name="bot", durability="process", max_bytes=1024**3)


@pytest.fixture
def store(tmp_path: Path) -> Iterator[OutboxStore]:
    made = opened(tmp_path / "bot")
    yield made
    made.close()


def waiting(number: int, length: int = 300) -> Waiting:
    chance = random.Random(number)
    topic = f"t.{chance.choice(('trade-signals', 'trades', 'fills'))}"
    return Waiting(topic, f"{number:036d}", b"v:S", chance.randbytes(length), 1_700_000_000_000 + number)


def deliver(store: OutboxStore, each: int) -> None:
    """A later run of the bot, whose events stood in the file itself by then."""
    store.close()
    later = opened(store.path.parent)
    # Some builds of SQLite overwrite what is deleted; as many do not.
    later._connection.execute("PRAGMA secure_delete = OFF")
    for topic in later.topics():
        later.remove(topic, later.oldest(topic, limit=each, max_bytes=10**9))
    later.close()


def by_sqlite(path: Path) -> list[Entry]:
    with OutboxReader(path) as reader:
        return list(reader.entries())


def place(entry: Entry) -> tuple[int, bytes]:
    """What makes an entry; its topic's name stands on a page of its own."""
    return entry.number, entry.payload


def spoil(path: Path, page: int) -> None:
    with path.open("r+b") as file:
        file.seek(page * PAGE_BYTES)
        file.write(random.Random(page).randbytes(PAGE_BYTES))


def salvaged(path: Path) -> tuple[list[Entry], list[str]]:
    with copy_of(path) as reader:
        return list(reader.entries()), list(reader.unread)


def test_records_of_every_length_are_read_as_sqlite_reads_them(store: OutboxStore) -> None:
    lengths = [*range(1, 14_000, 37), *range(3_900, 4_100)]
    for number, length in enumerate(lengths):
        store.add([waiting(number, length)])
    for record in store.oldest("t.trades", limit=500, max_bytes=10**9):
        store.park("t.trades", record, f"refused: {record.number}")
    store.close()
    expected = by_sqlite(store.path)
    assert len(expected) == len(lengths)
    assert {one.cause is None for one in expected} == {True, False}
    spoil(store.path, 0)
    assert salvaged(store.path) == (expected, [])


def test_the_log_beside_it_is_read_although_the_first_page_is_lost(store: OutboxStore, tmp_path: Path) -> None:
    for number in range(50):
        store.add([waiting(number)])
    store.close()
    running = opened(store.path.parent)
    # The log begins anew, without a first page of its own.
    running._pumping.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    running.add([waiting(50, 10)])
    expected = by_sqlite(store.path)
    assert len(expected) == 51
    for name in (store.path.name, f"{store.path.name}-wal"):
        shutil.copyfile(store.path.with_name(name), tmp_path / f"kept-{name}")
    running.close()
    spoil(tmp_path / f"kept-{store.path.name}", 0)
    assert salvaged(tmp_path / f"kept-{store.path.name}") == (expected, [])


def test_what_was_delivered_does_not_come_back(store: OutboxStore) -> None:
    for number in range(2_000):
        store.add([waiting(number)])
    deliver(store, 600)
    expected = by_sqlite(store.path)
    assert 0 < len(expected) < 300
    spoil(store.path, 0)
    assert salvaged(store.path) == (expected, [])


def test_a_damaged_map_of_free_pages_is_said_to_bring_old_events_back(store: OutboxStore) -> None:
    for number in range(900):
        store.add([waiting(number)])
    deliver(store, 200)
    expected = by_sqlite(store.path)
    spoil(store.path, 0)
    spoil(store.path, 1)
    found, unread = salvaged(store.path)
    assert set(found) > set(expected)
    assert [one for one in unread if "some events may be old ones" in one]


def test_any_one_damaged_page_costs_what_stood_on_it_and_no_more(store: OutboxStore) -> None:
    for number in range(300):
        store.add([waiting(number)])
    store.close()
    expected, whole = by_sqlite(store.path), store.path.read_bytes()
    most = PAGE_BYTES // 300
    for page in range(len(whole) // PAGE_BYTES):
        store.path.write_bytes(whole)
        spoil(store.path, page)
        found, unread = salvaged(store.path)
        assert {place(one) for one in found} <= {place(one) for one in expected}
        assert len(expected) - len(found) <= most, f"page {page}: {unread}"
        assert found == expected or unread
