"""The installed command shows what waits in the outboxes of a machine, sends it, and saves what a damaged file holds."""

from __future__ import annotations

import os
import random
import re
import shutil
import socket
import sqlite3
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from outbox_rig import OutboxRig, documents, signal, update
from tradetape.console.topics import admin_client, apply
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import IndicatorUpdate, TradeSignal
from waiting import DEADLINE_S, eventually

PARTITIONS = 4
PAGE_BYTES = 4096
LONG_EVERY = 10
LEAF = 0x0A
"""How a page of a table's rows begins (https://sqlite.org/fileformat2.html)."""


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def rig(tmp_path: Path, closed_port: str, topic_prefix: str) -> OutboxRig:
    return OutboxRig(tmp_path, away=closed_port, prefix=topic_prefix)


@pytest.fixture
def broker(rig: OutboxRig, kafka: str) -> AdminClient:
    """The suite's Kafka with this test's topics."""
    admin = admin_client(KafkaSettings(bootstrap_servers=kafka))
    apply(admin, rig.catalogue, partitions=PARTITIONS)
    return admin


def on_the_tape(kafka: str, topic: str) -> list[tuple[str, str]]:
    """Key and event id of each record, in the order of each partition."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "none", "enable.auto.commit": False})
    try:
        places = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        count = sum(consumer.get_watermark_offsets(place, timeout=DEADLINE_S)[1] for place in places)
        consumer.assign(places)
        found: list[tuple[str, str]] = []

        def read_all() -> bool:
            for message in consumer.consume(1_000, 0.1):
                payload, key = message.value(), message.key()
                assert isinstance(payload, bytes)
                assert isinstance(key, bytes)
                # The frame takes 5 bytes, the text's length one; the event id is the first field.
                found.append((key.decode(), payload[6:42].decode()))
            return len(found) >= count

        eventually("all records read", read_all)
        return found
    finally:
        consumer.close()


def test_where_no_outbox_is_there_is_nothing_to_list_or_send(rig: OutboxRig) -> None:
    listed = rig.run("list")
    assert (listed.returncode, listed.stdout) == (0, "")
    assert listed.stderr == f"There is no outbox in {rig.folder}.\n"
    assert rig.document("list") == []
    assert rig.run("flush", KAFKA_BOOTSTRAP_SERVERS=rig.away).returncode == 0
    for words in (["show", "rsi-bot"], ["export", "rsi-bot"], ["show"], ["show", "--file", "nothing.sqlite3"]):
        done = rig.run(*words)
        assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (2, "", 1)
    assert not rig.folder.exists(), "to look makes no outbox"


def test_list_tells_of_a_running_bot_what_its_own_health_tells(rig: OutboxRig) -> None:
    rig.left_behind([signal(1), signal(2)], source="the other/bot")
    with rig.bot() as bot:
        for number in range(3):
            bot.emit(signal(number))
        health = bot.health().outbox
        mine, other = rig.document("list")
        assert (mine["source"], mine["events"], mine["bytes"], mine["parked"]) == ("rsi-bot", 3, health.bytes, 0)
        assert mine["owner"].startswith(f"rsi-bot, process {os.getpid()}, since ")
        assert (other["source"], other["events"], other["owner"]) == ("the%20other%2fbot", 2, None)
        assert 0 <= other["oldest_age_s"] < DEADLINE_S
        table = rig.run("list").stdout.splitlines()
        assert [line.split()[:3] for line in table] == [
            ["source", "waiting", "parked"], ["rsi-bot", "3", "0"], ["the%20other%2fbot", "2", "0"],
        ]  # fmt: skip
        assert f"process {os.getpid()}" in table[1]


def test_an_outbox_whose_bot_runs_is_not_flushed_and_its_owner_is_named(rig: OutboxRig) -> None:
    with rig.bot() as bot:
        bot.emit(signal(1))
        done = rig.run("flush", "rsi-bot", KAFKA_BOOTSTRAP_SERVERS=rig.away)
        assert (done.returncode, done.stdout) == (1, "")
        assert f"belongs to rsi-bot, process {os.getpid()}" in done.stderr
        assert bot.health().outbox.events == 1
        assert documents(rig.run("show", "rsi-bot"))[0]["topic"] == f"{rig.catalogue.prefix}trade-signals"


def test_what_a_bot_left_behind_arrives_once_in_order_with_its_ids(
    rig: OutboxRig, kafka: str, broker: AdminClient
) -> None:
    symbols = [f"COIN{number}USDT" for number in range(7)]
    with rig.bot() as bot:
        seen = bot.emit(update())
        assert seen.event_id is not None
        emitted = [
            bot.emit(signal(number, symbol=symbols[number % 7], input_event_ids=[seen.event_id] if not number else []))
            for number in range(700)
        ]
    assert rig.document("list")[0]["events"] == 701, "the update that a decision names goes along"

    done = rig.run("flush", "rsi-bot", KAFKA_BOOTSTRAP_SERVERS=kafka)
    assert (done.returncode, done.stdout, done.stderr) == (0, "rsi-bot  701 delivered\n", "")
    assert rig.document("list")[0]["events"] == 0
    by_key: dict[str, list[str]] = defaultdict(list)
    for key, event_id in on_the_tape(kafka, f"{rig.catalogue.prefix}trade-signals"):
        by_key[key].append(event_id)
    assert by_key == {f"v:{one}": [event.event_id for event in emitted if event.symbol == one] for one in symbols}
    assert on_the_tape(kafka, f"{rig.catalogue.prefix}indicator-updates") == [("v:BTCUSDT", seen.event_id)]


def test_what_cannot_be_sent_stays_and_the_exit_code_is_3(rig: OutboxRig) -> None:
    rig.left_behind(signal(number) for number in range(4))
    done = rig.run("flush", "--timeout", "1", KAFKA_BOOTSTRAP_SERVERS=rig.away)
    assert (done.returncode, done.stdout) == (3, "rsi-bot  0 delivered, 4 still wait\n")
    assert done.stderr.startswith("rsi-bot: ")
    assert rig.document("list")[0]["events"] == 4
    assert rig.run("flush").returncode == 2, "no broker is named"


def test_a_missing_topic_is_named_and_what_goes_there_stays(rig: OutboxRig, kafka: str) -> None:
    rig.left_behind([signal(1)])
    done = rig.run(
        "flush", "--timeout", "10", KAFKA_BOOTSTRAP_SERVERS=kafka,
        TRADETAPE_KAFKA_TOPIC_METADATA_PROPAGATION_MAX_MS="300",
        TRADETAPE_KAFKA_TOPIC_METADATA_REFRESH_FAST_INTERVAL_MS="100",
    )  # fmt: skip
    assert done.returncode == 3
    assert f"{rig.catalogue.prefix}trade-signals: " in done.stderr
    assert rig.document("list")[0]["events"] == 1


def test_what_a_topic_refused_is_shown_with_the_cause_and_is_tried_again_when_asked_for(
    rig: OutboxRig, kafka: str, broker: AdminClient
) -> None:
    limit_records(broker, f"{rig.catalogue.prefix}trade-signals", max_bytes=1_000)
    # Random text, which compression leaves as long as it is.
    note = random.Random(1).randbytes(2_000).hex()
    with rig.bot(servers=kafka) as bot:
        large = bot.emit(signal(0, tags={"note": note}))
        small = bot.emit(signal(1))
        eventually("one refused, one delivered", lambda: bot.health().outbox.parked == bot.health().delivered == 1)
    listed = rig.document("list")[0]
    assert (listed["events"], listed["parked"], listed["oldest_age_s"]) == (0, 1, None)
    (shown,) = documents(rig.run("show", "rsi-bot", "--parked"))
    assert (shown["event_id"], shown["parked"]) == (large.event_id, True)
    assert "too large" in shown["cause"]

    left = rig.run("flush", KAFKA_BOOTSTRAP_SERVERS=kafka)
    assert (left.returncode, left.stdout) == (0, "rsi-bot  0 delivered\n")
    assert "1 are parked; --parked tries them again" in left.stderr
    again = rig.run("flush", "--parked", KAFKA_BOOTSTRAP_SERVERS=kafka)
    assert (again.returncode, again.stdout) == (1, "rsi-bot  0 delivered, 1 refused and parked\n")

    limit_records(broker, f"{rig.catalogue.prefix}trade-signals", max_bytes=100_000)
    done = rig.run("flush", "--parked", KAFKA_BOOTSTRAP_SERVERS=kafka)
    assert (done.returncode, done.stdout, done.stderr) == (0, "rsi-bot  1 delivered\n", "")
    found = on_the_tape(kafka, f"{rig.catalogue.prefix}trade-signals")
    assert [event_id for _, event_id in found] == [small.event_id, large.event_id]


def limit_records(admin: AdminClient, topic: str, *, max_bytes: int) -> None:
    entry = ConfigEntry("max.message.bytes", str(max_bytes), incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    for done in admin.incremental_alter_configs([resource]).values():
        done.result(DEADLINE_S)

    def is_in_force() -> bool:
        (found,) = admin.describe_configs([ConfigResource(ResourceType.TOPIC, topic)]).values()
        return bool(found.result(DEADLINE_S)["max.message.bytes"].value == str(max_bytes))

    eventually("the broker goes by the new limit", is_in_force)


def test_show_gives_the_oldest_first_and_says_that_there_are_more(rig: OutboxRig) -> None:
    emitted = rig.left_behind(signal(number) for number in range(13))
    some = rig.run("show", "rsi-bot", "-n", "3")
    assert [one["event_id"] for one in documents(some)] == [event.event_id for event in emitted[:3]]
    assert documents(some)[0]["event"]["reference_price"] == "64123.1"
    assert "There are more" in some.stderr
    assert (len(documents(rig.run("show", "rsi-bot"))), rig.run("show", "rsi-bot", "-n", "13").stderr) == (10, "")


def test_what_was_exported_can_be_emitted_again_as_the_same_events(rig: OutboxRig, tmp_path: Path) -> None:
    with rig.bot() as bot:
        seen = bot.emit(update())
        assert seen.event_id is not None
        emitted = [
            bot.emit(signal(number, input_event_ids=[] if number else [seen.event_id])) for number in range(1_200)
        ]
    output = tmp_path / "saved.ndjson"
    done = rig.run("export", "rsi-bot", "--output", str(output))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "1,201 events exported.\n")
    again = RecordingProducer(source="rsi-bot", catalogue=rig.catalogue)
    classes = {rig.catalogue.topic_name(rig.catalogue.by_class(one)): one for one in (TradeSignal, IndicatorUpdate)}
    for line in output.read_text(encoding="utf-8").splitlines():
        saved = msgspec.json.decode(line)
        again.emit(msgspec.convert(saved["event"], classes[saved["topic"]]))
    assert [one.event_id for one in again.events] == [seen.event_id, *[one.event_id for one in emitted]]
    assert [one.reference_price for one in again.of(TradeSignal)] == [one.reference_price for one in emitted]
    assert rig.run("export", "rsi-bot", "--output", str(output)).returncode == 1, "an export is not written over"
    assert rig.run("export", "rsi-bot").stdout == output.read_text(encoding="utf-8")


def test_what_cannot_be_decoded_keeps_its_bytes(rig: OutboxRig) -> None:
    rig.left_behind([signal(1)])
    (foreign,) = documents(rig.run("export", "rsi-bot", TRADETAPE_TOPIC_PREFIX="other."))
    assert foreign["error"]["reason"] == "foreign_topic"
    with sqlite3.connect(rig.file()) as connection:
        ((payload,),) = connection.execute("SELECT payload FROM waiting").fetchall()
    connection.close()
    assert foreign["payload_base64"] == msgspec.json.decode(msgspec.json.encode(payload))


@pytest.fixture
def pages(rig: OutboxRig) -> dict[str, int]:
    """An outbox with 400 decisions; on which page of the file each stands, by event id."""
    # Some are longer than a page, and stand partly elsewhere.
    emitted = rig.left_behind(
        signal(number, tags={"note": "x" * 6_000} if number % LONG_EVERY == 3 else {}) for number in range(400)
    )
    content = rig.file().read_bytes()
    # The columns of id and key are neighbours; a payload has the id as well, and may go on on another page.
    found = {}
    for event in emitted:
        row = f"{event.event_id}v:BTCUSDT".encode()
        (page,) = {match.start() // PAGE_BYTES for match in re.finditer(row, content)}
        found[event.event_id or ""] = page
    assert len(set(found.values())) > 20
    return found


def spoil(path: Path, start: int, length: int) -> None:
    with path.open("r+b") as file:
        file.seek(start)
        file.write(random.Random(2).randbytes(length))


def middle_leaves(path: Path, pages: dict[str, int]) -> list[int]:
    """Pages in the middle that hold rows and lead nowhere."""
    content = path.read_bytes()
    leaves = sorted({page for page in pages.values() if content[page * PAGE_BYTES] == LEAF})
    return leaves[len(leaves) // 3 : 2 * len(leaves) // 3]


def test_of_a_damaged_file_all_is_read_but_what_stood_on_the_damaged_pages(
    rig: OutboxRig, pages: dict[str, int]
) -> None:
    copy = rig.folder / "rsi-bot" / "corrupt-1-outbox.sqlite3"
    shutil.copyfile(rig.file(), copy)
    leaves = middle_leaves(copy, pages)
    damaged = [leaves[0], leaves[1], leaves[-1]]
    for page in damaged:
        spoil(copy, page * PAGE_BYTES, PAGE_BYTES)
    before = copy.read_bytes()

    done = rig.run("export", "--file", str(copy))
    assert done.returncode == 4
    assert [one["event_id"] for one in documents(done)] == [one for one, page in pages.items() if page not in damaged]
    assert all("event" in one for one in documents(done))
    # SQLite counts pages from 1.
    told = [f"cannot be read: page {page + 1} of {len(before) // PAGE_BYTES}" for page in damaged]
    assert done.stderr.splitlines()[1:] == told
    assert rig.run("show", "rsi-bot", "--file", copy.name).stdout == done.stdout
    assert copy.read_bytes() == before
    assert {one.name for one in copy.parent.iterdir()} <= {copy.name, "owner", *names(rig.file())}, "no trace is left"


def names(path: Path) -> set[str]:
    return {path.name, f"{path.name}-wal", f"{path.name}-shm"}


@pytest.mark.parametrize("page", range(6))
def test_a_lost_page_of_those_that_link_the_others_costs_no_other_page_its_records(
    rig: OutboxRig, pages: dict[str, int], tmp_path: Path, page: int
) -> None:
    copy = tmp_path / "saved"
    shutil.copyfile(rig.file(), copy)
    spoil(copy, page * PAGE_BYTES, PAGE_BYTES)
    done = rig.run("export", "--file", str(copy))
    assert [one["event_id"] for one in documents(done)] == [one for one, place in pages.items() if place != page]


def test_of_a_file_that_is_cut_off_the_part_that_is_there_is_read(
    rig: OutboxRig, pages: dict[str, int], tmp_path: Path
) -> None:
    copy = tmp_path / "saved"
    shutil.copyfile(rig.file(), copy)
    rest, whole = max(pages.values()) // 2, copy.stat().st_size // PAGE_BYTES
    os.truncate(copy, rest * PAGE_BYTES + 1_000)
    done = rig.run("export", "--file", str(copy))
    assert done.returncode == 4
    there = [one for one, place in pages.items() if place < rest]
    assert rest // 2 < len(there) < len(pages)
    read = {one["event_id"] for one in documents(done)}
    cut = set(there) - read
    assert read <= set(there)
    assert cut <= set(list(pages)[3::LONG_EVERY]), "of the short ones each that is there is read"
    assert len(cut) <= 2
    assert f"what stood behind page {rest}: the file is cut off, and had {whole}" in done.stderr


def test_a_file_that_is_no_outbox_is_one_sentence(rig: OutboxRig, tmp_path: Path) -> None:
    for content in (b"", b"notes", random.Random(3).randbytes(50_000)):
        (tmp_path / "notes").write_bytes(content)
        done = rig.run("show", "--file", str(tmp_path / "notes"))
        assert (done.returncode, done.stdout) == (1, "")
        assert done.stderr == f"tradetape: {tmp_path / 'notes'} is no outbox, or nothing of it can be read\n"


def test_a_file_set_aside_is_listed_and_read_with_the_log_beside_it(rig: OutboxRig) -> None:
    with rig.bot() as bot:
        emitted = [bot.emit(signal(number)) for number in range(3)]
        for name in (rig.file().name, f"{rig.file().name}-wal"):
            # As `kill -9` leaves it: what was emitted stands in the log only.
            shutil.copyfile(rig.file().with_name(name), rig.file().with_name(f"corrupt-1-{name}"))
    listed = rig.run("list")
    assert "corrupt-1-outbox.sqlite3 was corrupt; `tradetape outbox show --file`" in listed.stderr
    file = rig.file().with_name("corrupt-1-outbox.sqlite3")
    assert emitted[0].event_id is not None
    assert emitted[0].event_id.encode() not in file.read_bytes()
    for length in (0, 100):
        # Also when the file itself does not even say what it is.
        spoil(file, 0, length)
        shown = documents(rig.run("show", "rsi-bot", "--file", file.name))
        assert [one["event_id"] for one in shown] == [event.event_id for event in emitted]


def test_a_damaged_outbox_is_listed_as_such_read_as_far_as_can_be_and_set_aside_by_flush(
    rig: OutboxRig, pages: dict[str, int], kafka: str
) -> None:
    damaged = middle_leaves(rig.file(), pages)[0]
    spoil(rig.file(), damaged * PAGE_BYTES, PAGE_BYTES)
    listed = rig.run("list", "--json")
    assert listed.returncode == 4
    assert "malformed" in listed.stderr
    shown = rig.run("export", "rsi-bot")
    assert shown.returncode == 4
    readable = [one for one, page in pages.items() if page != damaged]
    assert [one["event_id"] for one in documents(shown)] == readable

    done = rig.run("flush", KAFKA_BOOTSTRAP_SERVERS=kafka)
    assert (done.returncode, done.stdout) == (4, "rsi-bot  0 delivered\n")
    (kept,) = rig.document("list")[0]["set_aside"]
    assert f"{kept} was corrupt" in done.stderr
    assert [one["event_id"] for one in documents(rig.run("export", "--file", kept))] == readable
