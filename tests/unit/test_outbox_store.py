"""The outbox's file: order, bounds, ownership, and what becomes of it when disk or file go bad."""

from __future__ import annotations

import logging
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tradetape.producers.errors import OutboxFull, OutboxInUse, OutboxUnavailable
from tradetape.producers.outbox import store as store_module
from tradetape.producers.outbox.store import FILE, Durability, OutboxStore, Stored, Waiting, folder_name

LIMIT = 10**9
LOG_HEADER_BYTES = 32


def record(number: int, topic: str = "signals", size: int = 100, *, is_input: bool = False) -> Waiting:
    return Waiting(topic, f"id{number}", b"v:S", bytes([number % 256]) * size, 1_000 + number, is_input)


def opened(folder: Path, *, max_bytes: int = LIMIT, durability: Durability = "process") -> OutboxStore:
    return OutboxStore(folder / "bot", name="bot", durability=durability, max_bytes=max_bytes)


@pytest.fixture
def outbox(tmp_path: Path) -> Iterator[OutboxStore]:
    made = opened(tmp_path)
    yield made
    made.close()


def ids(found: list[Stored]) -> list[str]:
    return [one.event_id for one in found]


def oldest(outbox: OutboxStore, topic: str = "signals", limit: int = 100) -> list[Stored]:
    return outbox.oldest(topic, limit=limit, max_bytes=10**6) if topic in outbox.topics() else []


def test_each_topic_is_a_queue_of_its_own_in_the_order_of_adding(outbox: OutboxStore) -> None:
    for number in range(6):
        outbox.add([record(number, "signals" if number % 2 else "fills")])
    assert ids(oldest(outbox, "signals")) == ["id1", "id3", "id5"]
    assert ids(oldest(outbox, "fills", limit=2)) == ["id0", "id2"]
    assert sorted(outbox.topics()) == ["fills", "signals"]


def test_what_is_added_together_is_added_in_order_or_not_at_all(tmp_path: Path) -> None:
    outbox = opened(tmp_path, max_bytes=1_000)
    outbox.add([record(1, "updates", is_input=True), record(2)])
    assert oldest(outbox, "updates")[0].is_input
    assert oldest(outbox)[0].number > oldest(outbox, "updates")[0].number
    before = outbox.totals()
    with pytest.raises(OutboxFull, match="holds 2 events"):
        outbox.add([record(3), record(4, size=800)])
    assert outbox.totals() == before
    outbox.close()


def test_a_round_is_bounded_by_bytes_and_has_at_least_one_record(outbox: OutboxStore) -> None:
    outbox.add([record(number, size=1_000) for number in range(5)])
    assert ids(outbox.oldest("signals", limit=100, max_bytes=1)) == ["id0"]
    found = outbox.oldest("signals", limit=100, max_bytes=2_500)
    assert ids(found) == ["id0", "id1", "id2"]
    assert ids(outbox.oldest("signals", after=found[-1].number, limit=100, max_bytes=1)) == ["id3"]


@pytest.mark.parametrize("durability", ["process", "power"])
def test_what_was_added_is_there_after_kill_minus_nine(tmp_path: Path, durability: str) -> None:
    script = (
        "import os, sys; from pathlib import Path; "
        "from tradetape.producers.outbox.store import OutboxStore, Waiting\n"
        f"box = OutboxStore(Path({str(tmp_path / 'bot')!r}), name='bot', durability={durability!r}, max_bytes=10**9)\n"
        "for n in range(300):\n"
        "    box.add([Waiting('signals', f'id{n}', b'k', b'p' * 500, n)])\n"
        "box.remove('signals', box.oldest('signals', limit=100, max_bytes=10**9))\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == -9
    outbox = opened(tmp_path)
    assert ids(oldest(outbox, limit=1_000)) == [f"id{number}" for number in range(100, 300)]
    assert outbox.totals().events == 200
    outbox.add([record(999)])
    assert ids(oldest(outbox, limit=1_000))[-1] == "id999"
    outbox.close()


def test_totals_are_the_same_after_reopening(tmp_path: Path) -> None:
    outbox = opened(tmp_path)
    outbox.add([record(number, size=number * 50) for number in range(1, 6)])
    outbox.park("signals", oldest(outbox)[2], "too large")
    outbox.remove("signals", oldest(outbox)[:1])
    before = outbox.totals()
    outbox.close()
    again = opened(tmp_path)
    assert again.totals() == before
    assert (before.events, before.parked, before.oldest_ms) == (3, 1, 1_002)
    again.close()


def test_a_parked_record_is_out_of_the_way_and_may_come_back_to_its_place(outbox: OutboxStore) -> None:
    outbox.add([record(number) for number in range(4)])
    outbox.park("signals", oldest(outbox)[1], "Broker: Message size too large")
    assert ids(oldest(outbox)) == ["id0", "id2", "id3"]
    assert [(one.event_id, one.cause) for one in outbox.everything()] == [
        ("id0", None), ("id1", "Broker: Message size too large"), ("id2", None), ("id3", None),
    ]  # fmt: skip
    assert outbox.unpark() == 1
    assert ids(oldest(outbox)) == ["id0", "id1", "id2", "id3"]
    assert outbox.totals().parked == 0


def test_waiting_for_a_number_ends_when_all_up_to_it_are_gone(outbox: OutboxStore) -> None:
    assert not outbox.waits_up_to(outbox.last_number())
    number = outbox.add([record(1), record(2, "fills")])
    outbox.add([record(3)])
    outbox.remove("signals", oldest(outbox)[:1])
    assert outbox.waits_up_to(number)
    outbox.remove("fills", oldest(outbox, "fills"))
    assert not outbox.waits_up_to(number), "what came later does not count"


def test_a_second_owner_is_told_the_first_ones_name_and_process(tmp_path: Path, outbox: OutboxStore) -> None:
    with pytest.raises(OutboxInUse, match=f"belongs to bot, process {os.getpid()}, since "):
        opened(tmp_path)
    outbox.add([record(1)])
    assert outbox.totals().events == 1


def test_the_lock_of_a_killed_owner_is_free(tmp_path: Path) -> None:
    script = (
        "import os; from pathlib import Path; from tradetape.producers.outbox.store import OutboxStore\n"
        f"OutboxStore(Path({str(tmp_path / 'bot')!r}), name='bot', durability='process', max_bytes=1)\n"
        "os.kill(os.getpid(), 9)\n"
    )
    assert subprocess.run([sys.executable, "-c", script], timeout=60, check=False).returncode == -signal.SIGKILL
    outbox = opened(tmp_path)
    assert outbox.totals().events == 0
    outbox.close()


def test_a_folder_that_cannot_be_written_is_named_with_the_setting_that_mends_it(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(OutboxUnavailable, match=r"file/bot cannot be used: .*; set TRADETAPE_OUTBOX_DIR"):
        opened(tmp_path / "file")


@pytest.mark.parametrize("damage", ["rubbish", "cut", "zeros"])
def test_a_corrupt_file_is_kept_aside_and_a_new_one_begun(
    tmp_path: Path, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = opened(tmp_path)
    outbox.add([record(number, size=2_000) for number in range(50)])
    outbox.close()
    file = tmp_path / "bot" / FILE
    content = file.read_bytes()
    spoilt = {
        "rubbish": b"this is no database" * 100,
        "cut": content[: len(content) // 2],
        "zeros": content[:8_192] + bytes(len(content) - 8_192),
    }[damage]
    file.write_bytes(spoilt)
    with caplog.at_level(logging.ERROR):
        again = opened(tmp_path)
    (kept,) = (tmp_path / "bot").glob(f"corrupt-*-{FILE}")
    assert kept.read_bytes() == spoilt
    assert f"it is kept as {kept}" in caplog.text
    assert again.totals().events == 0
    again.add([record(1)])
    assert ids(oldest(again)) == ["id1"]
    again.close()


def test_a_file_that_goes_bad_while_in_use_is_set_aside_and_the_decision_is_kept(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = opened(tmp_path)
    outbox.add([record(1)])
    on_its_way = oldest(outbox)
    # Another process writes over it: what SQLite finds next is no database.
    with sqlite3.connect(tmp_path / "bot" / FILE) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    other.close()
    with (tmp_path / "bot" / FILE).open("r+b") as file:
        file.write(b"\x00" * 40_960)
    with (tmp_path / "bot" / (FILE + "-wal")).open("wb") as log:
        log.truncate(0)
    with caplog.at_level(logging.ERROR):
        outbox.add([record(2)])
    assert "is corrupt" in caplog.text
    assert ids(oldest(outbox)) == ["id2"]
    outbox.remove("signals", on_its_way)
    assert ids(oldest(outbox)) == ["id2"], "what was on its way from the old file has a number of its own"
    outbox.close()


def test_the_log_is_folded_back_and_the_file_shrinks_after_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(store_module, "FOLD_AT_BYTES", 100_000)
    monkeypatch.setattr(store_module, "FOLD_NOW_BYTES", 200_000)
    monkeypatch.setattr(store_module, "VACUUM_PAGES", 10)
    outbox = opened(tmp_path)
    for number in range(500):
        outbox.add([record(number, size=2_000)])
    log, file = tmp_path / "bot" / (FILE + "-wal"), tmp_path / "bot" / FILE
    assert log.stat().st_size > 1_000_000
    outbox.fold_log()
    assert log.stat().st_size < 100_000
    assert file.stat().st_size > 1_000_000
    outbox.remove("signals", oldest(outbox, limit=1_000))
    for _ in range(200):
        outbox.fold_log()
    outbox.close()
    assert file.stat().st_size < 200_000


def test_the_log_is_begun_anew_by_whoever_folded_it_and_not_by_the_next_decision(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beginning it anew waits for the disk and cuts the file; the log's header numbers its beginnings."""
    monkeypatch.setattr(store_module, "FOLD_AT_BYTES", 100_000)
    outbox = opened(tmp_path)
    for number in range(100):
        outbox.add([record(number, size=2_000)])
    log = tmp_path / "bot" / (FILE + "-wal")
    header = log.read_bytes()[:LOG_HEADER_BYTES]
    outbox.fold_log()
    anew = log.read_bytes()[:LOG_HEADER_BYTES]
    assert anew != header
    outbox.add([record(100)])
    assert log.read_bytes()[:LOG_HEADER_BYTES] == anew
    assert ids(oldest(outbox, limit=1_000)) == [f"id{number}" for number in range(101)]
    outbox.close()


def test_a_source_is_a_folder_whatever_its_name() -> None:
    assert folder_name("rsi-bot_2") == "rsi-bot_2"
    assert folder_name("../x y") == "%2e%2e%2fx%20y"
    assert folder_name("bot/é") == "bot%2f%e9"
