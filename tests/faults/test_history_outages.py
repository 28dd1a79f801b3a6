"""What the history needs is away, full, locked or not what it was: the sink waits or says so, and nothing is lost (I6, I7)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
import threading
from collections.abc import Iterator, Mapping
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
from confluent_kafka import TopicPartition
from psycopg import sql

from history_rig import EngineThread, HistoryRig
from history_workers import Load
from ledger import Ledger
from tradetape.console import topics
from tradetape.console.local.places import unprivileged_user
from tradetape.console.local.stack import LocalStack
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import MarketCondition
from tradetape.sinks.errors import DatabaseUnavailable, Fenced
from tradetape.sinks.history import connection as guarded
from tradetape.sinks.history import sink as history_sink
from tradetape.sinks.history.sink import HistorySink
from tradetape.streams import dead_letters
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.errors import HistoryLost, Terminal
from tradetape.streams.processor import Partition
from waiting import eventually

START = datetime(2025, 6, 1, tzinfo=UTC)
SYMBOLS = tuple(f"COIN{number}USDT" for number in range(16))
SMALL_DISK = "64m"


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def emit(rig: HistoryRig, numbers: range, *, note: str = "") -> set[str]:
    """Conditions of many symbols; their ids."""
    with rig.producer() as tape:
        return {
            str(tape.emit(
                MarketCondition(
                    venue="v", symbol=SYMBOLS[number % len(SYMBOLS)], scope="s", condition="c",
                    event_time=START + timedelta(seconds=number), tags={"note": note},
                )
            ).event_id)
            for number in numbers
        }  # fmt: skip


def conditions(rig: HistoryRig) -> str:
    return rig.catalogue.topic_name(rig.catalogue.by_class(MarketCondition))


def taken(rig: HistoryRig, sink: HistorySink) -> HistorySink:
    """The sink with all partitions of the conditions."""
    sink.assigned([Partition(conditions(rig), number) for number in range(topics.LOCAL_PARTITIONS)])
    return sink


def catches_up(rig: HistoryRig, thread: EngineThread) -> None:
    ends = rig.ends()
    eventually("the sink catches up", lambda: rig.has_come_to(ends) or thread.failure is not None)


class Attempt:
    """One call of `process` in a thread; `failure` is how it ended."""

    def __init__(self, rig: HistoryRig, sink: HistorySink) -> None:
        self.failure: BaseException | None = None
        self._batch = rig.tape()
        self._sink = sink
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._sink.process(self._batch)
        except BaseException as error:  # noqa: BLE001  kept for the test, which looks at it
            self.failure = error

    def end(self) -> BaseException | None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.failure

    def again(self) -> None:
        """As the engine does after what passes by itself."""
        self._sink.process(self._batch)


def is_waiting_for_a_lock(rig: HistoryRig) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tradetape-history' AND wait_event_type = 'Lock'"
    return bool(rig.rows(query + " AND datname = current_database()"))


def test_a_deadlock_that_the_sink_is_the_victim_of_is_tried_again_and_nothing_is_a_dead_letter(rig: HistoryRig) -> None:
    letters = MemoryDeadLetters()
    emit(rig, range(40))
    sink = taken(rig, rig.sink(dead_letters=letters))
    with psycopg.connect(rig.dsn) as other:
        # Whoever looks first is the victim.
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("SELECT 1 FROM tradetape.sink_offsets FOR UPDATE")
        attempt = Attempt(rig, sink)
        eventually("the sink waits at its fence", lambda: is_waiting_for_a_lock(rig))
        other.execute("LOCK TABLE tradetape.market_conditions IN ACCESS EXCLUSIVE MODE")
        failure = attempt.end()
    assert isinstance(failure, DatabaseUnavailable)
    assert "deadlock" in str(failure)
    attempt.again()
    sink.close()
    assert letters.letters == []
    assert rig.assert_every_event_once() == 40


def test_a_table_that_somebody_keeps_locked_is_waited_for_and_nothing_is_a_dead_letter(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(guarded.GUARDS, "lock_timeout", "200ms")
    letters = MemoryDeadLetters()
    emit(rig, range(40))
    sink = taken(rig, rig.sink(dead_letters=letters))
    with psycopg.connect(rig.dsn) as other:
        other.execute("LOCK TABLE tradetape.market_conditions IN ACCESS EXCLUSIVE MODE")
        attempt = Attempt(rig, sink)
        assert isinstance(attempt.end(), DatabaseUnavailable)
    attempt.again()
    sink.close()
    assert letters.letters == []
    assert rig.assert_every_event_once() == 40


def test_a_server_without_connections_to_give_is_waited_for(rig: HistoryRig, caplog: pytest.LogCaptureFixture) -> None:
    limit = "ALTER ROLE test_tradetape_sink CONNECTION LIMIT {}"
    letters = MemoryDeadLetters()
    with psycopg.connect(rig.dsn, autocommit=True) as owner:
        owner.execute(limit.format(0).encode())
        try:
            with rig.working(rig.sink(dead_letters=letters)) as thread:
                emit(rig, range(40))
                eventually("the sink waits", lambda: "too many connections for role" in caplog.text)
                owner.execute(limit.format(-1).encode())
                catches_up(rig, thread)
        finally:
            owner.execute(limit.format(-1).encode())
    assert letters.letters == []
    assert rig.assert_every_event_once() == 40


@pytest.mark.parametrize("crashes", [pytest.param(10, marks=pytest.mark.long, id="ten"), pytest.param(2, id="two")])
def test_a_postgresql_that_crashes_again_and_again_costs_time_and_nothing_else(
    stack: LocalStack, kafka: str, topic_prefix: str, database: str, crashes: int
) -> None:
    """SIGQUIT is PostgreSQL's immediate shutdown: no checkpoint, and recovery at the next start."""
    rig, ledger = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=database), Ledger()
    server = next(one for one in stack.services if one.name == "postgres")
    letters = MemoryDeadLetters()
    sink = rig.sink(dead_letters=letters)
    load = Load(rig, ledger)
    try:
        with rig.working(sink, max_batch_records=500) as thread:
            for _ in range(crashes):
                stored = sink.counts["stored"]
                eventually("the sink writes", lambda stored=stored: sink.counts["stored"] > stored)  # type: ignore[misc]
                found = server.running()
                assert found is not None
                found[0].send_signal(signal.SIGQUIT)
                eventually("the server is gone", lambda: server.running() is None)
                server.up()
            emitted = load.end()
            catches_up(rig, thread)
    finally:
        load.close()
    verdict = rig.verdict(ledger)
    print(verdict)
    assert verdict.is_right, verdict
    assert verdict.counts["stored"] == emitted
    assert letters.letters == []


@pytest.fixture
def small_disk() -> Iterator[Path]:
    """A disk of a few megabytes that PostgreSQL may write to."""
    user = unprivileged_user()
    if user is None:
        pytest.skip("only root may mount a small disk")
    folder = Path(tempfile.mkdtemp(prefix="tradetape-disk-", dir="/var/tmp"))
    folder.chmod(0o755)
    options = f"size={SMALL_DISK},uid={user[0]},gid={user[1]},mode=0700"
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True, text=True, check=False
    )
    if mounted.returncode:
        folder.rmdir()
        pytest.skip(f"no small disk can be mounted here: {mounted.stderr.strip()}")
    yield folder
    subprocess.run(["umount", "-l", str(folder)], check=True)
    folder.rmdir()


@pytest.fixture
def cramped(stack: LocalStack, small_disk: Path) -> Iterator[str]:
    """The DSN of a database on the small disk."""
    owner = stack.environment()["DATABASE_URL"]
    name = sql.Identifier(f"cramped_{os.getpid()}")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE TABLESPACE {} LOCATION {}").format(name, str(small_disk)))
        connection.execute(sql.SQL("CREATE DATABASE {0} TABLESPACE {0}").format(name))
        yield f"{owner.rpartition('/')[0]}/cramped_{os.getpid()}"
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))
        connection.execute(sql.SQL("DROP TABLESPACE {}").format(name))


def fill(disk: Path) -> Path:
    """Take all the room that is left."""
    ballast = disk / "ballast"
    with ballast.open("wb", buffering=0) as file:
        for size in (1 << 20, 1 << 12):
            while shutil.disk_usage(disk).free >= size:
                file.write(bytes(size))
    return ballast


def test_a_full_disk_under_postgresql_is_waited_for_and_nothing_is_a_dead_letter(
    kafka: str, topic_prefix: str, cramped: str, small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    rig = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=cramped)
    letters = MemoryDeadLetters()
    emit(rig, range(50))
    with rig.working(rig.sink(dead_letters=letters), max_batch_records=500) as thread:
        catches_up(rig, thread)
        ballast = fill(small_disk)
        emit(rig, range(50, 3_000), note="x" * 500)
        eventually("the sink waits", lambda: "No space left on device" in caplog.text or thread.failure is not None)
        assert thread.failure is None
        ballast.unlink()
        catches_up(rig, thread)
    assert letters.letters == []
    assert rig.assert_every_event_once() == 3_000


def test_no_offset_moves_past_poison_while_the_topic_of_dead_letters_is_away(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letters, "ACKNOWLEDGE_TIMEOUT_S", 1.0)
    admin = topics.admin_client(rig.kafka)
    for future in admin.delete_topics([rig.catalogue.dead_letters_topic]).values():
        future.result()
    emit(rig, range(40))
    rig.put(conditions(rig), [(b"v:COIN0USDT", b"poison")])
    emit(rig, range(40, 80))
    (poison,) = (one for one in rig.tape() if one.value == b"poison")
    with rig.working(rig.sink(dead_letters=rig.kafka_dead_letters())) as thread:
        eventually("the sink waits", lambda: "does not take dead letters" in caplog.text or thread.failure is not None)
        reached = rig.rows("SELECT next_offset FROM tradetape.sink_offsets WHERE partition = %s", poison.partition)
        assert all((row["next_offset"] or 0) <= poison.offset for row in reached)
        topics.apply(admin, rig.catalogue)
        monkeypatch.setattr(dead_letters, "ACKNOWLEDGE_TIMEOUT_S", 30.0)
        catches_up(rig, thread)
    verdict = rig.verdict()
    assert verdict.is_right, verdict
    assert (verdict.counts["stored"], verdict.counts["refused"]) == (80, 1)


def test_records_that_retention_took_before_they_were_read_end_the_worker_with_a_word(rig: HistoryRig) -> None:
    emit(rig, range(100))
    rig.store()
    emit(rig, range(100, 300))
    taken_away = [TopicPartition(*place, end) for place, end in rig.ends().items()]
    # Kept by name: a client that is let go of takes the answers with it.
    admin = topics.admin_client(rig.kafka)
    for future in admin.delete_records(taken_away).values():
        future.result()
    with pytest.raises(HistoryLost, match="deleted before history read them"), rig.working(rig.sink()) as thread:
        eventually("the worker ends", lambda: thread.failure is not None)
    assert len(rig.places_in_history()) == 100


def made_anew(rig: HistoryRig) -> None:
    """The topic of the conditions is deleted, and made again under its name."""
    admin = topics.admin_client(rig.kafka)
    for future in admin.delete_topics([conditions(rig)]).values():
        future.result()
    eventually("it is gone", lambda: conditions(rig) not in admin.list_topics(timeout=10).topics)
    topics.apply(admin, rig.catalogue)


def stored_ids(rig: HistoryRig) -> set[str]:
    return {str(row["event_id"]) for row in rig.rows("SELECT event_id FROM tradetape.market_conditions")}


def test_a_topic_made_anew_is_read_from_its_beginning(rig: HistoryRig) -> None:
    """Its records have the offsets of those that were stored from the old one."""
    old = emit(rig, range(200))
    rig.store()
    made_anew(rig)
    new = emit(rig, range(200, 600))
    with rig.working(rig.sink()) as thread:
        eventually("all is stored", lambda: stored_ids(rig) == old | new or thread.failure is not None)
    assert stored_ids(rig) == old | new


def test_a_topic_made_anew_under_a_sink_at_work_is_not_read_on_from_the_old_offset(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka's client may not notice and read on; the sink ends, and then nothing is missing of what lies before."""
    monkeypatch.setattr(history_sink, "TOPICS_CHECKED_EVERY_US", 1_000_000)
    old = emit(rig, range(200))
    sink = rig.sink()
    new: set[str] = set()
    try:
        with rig.working(sink) as thread:
            catches_up(rig, thread)
            made_anew(rig)
            new = emit(rig, range(200, 2_000))
            eventually("it ends or has all", lambda: thread.failure is not None or stored_ids(rig) == old | new)
    except Terminal:
        # Its supervisor starts it again.
        with rig.working(rig.sink()) as thread:
            eventually("all is stored", lambda: stored_ids(rig) == old | new or thread.failure is not None)
    assert stored_ids(rig) == old | new


def test_members_that_come_and_go_cost_neither_progress_nor_an_event(rig: HistoryRig) -> None:
    ledger, letters = Ledger(), MemoryDeadLetters()
    load = Load(rig, ledger)
    try:
        with rig.working(rig.sink(dead_letters=letters)) as stays:
            for _ in range(4):
                guest = rig.sink(dead_letters=letters)
                with rig.working(guest):
                    eventually("the guest writes", lambda guest=guest: guest.counts["stored"] > 0)  # type: ignore[misc]
            emitted = load.end()
            catches_up(rig, stays)
    finally:
        load.close()
    verdict = rig.verdict(ledger)
    print(verdict)
    assert verdict.is_right, verdict
    assert (verdict.counts["stored"], letters.letters) == (emitted, [])


@pytest.mark.long
def test_a_sink_that_hangs_longer_than_it_may_between_two_polls_drops_its_batch(
    kafka: str, topic_prefix: str, postgres: str
) -> None:
    """Its heartbeats go on, so only Kafka's max.poll.interval.ms tells the group; another member has its partitions then."""
    rig, ledger, letters = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres), Ledger(), MemoryDeadLetters()
    rig.kafka = KafkaSettings(bootstrap_servers=kafka, options={"max.poll.interval.ms": "6000"})
    hanging, other = rig.sink(dead_letters=letters), rig.sink(dead_letters=letters)
    hangs, go_on = threading.Event(), threading.Event()
    advance = hanging._offsets.advance

    def hang(connection: psycopg.Connection, ends: Mapping[Partition, int]) -> None:
        hangs.set()
        assert go_on.wait(60)
        advance(connection, ends)

    hanging._offsets.advance = hang  # type: ignore[method-assign]
    load = Load(rig, ledger)
    try:
        with rig.working(other) as owner:
            with suppress(Fenced), rig.working(hanging):
                assert hangs.wait(60)
                # What the first one holds, nobody else can write.
                hung = set(hanging._offsets.held)
                eventually("the other one has all", lambda: other._offsets.held.keys() >= hung)
                stored = other.counts["stored"]
                eventually("the other one writes", lambda: other.counts["stored"] > stored)
                go_on.set()
            emitted = load.end()
            catches_up(rig, owner)
    finally:
        go_on.set()
        load.close()
    verdict = rig.verdict(ledger)
    print(verdict)
    assert verdict.is_right, verdict
    assert (verdict.counts["stored"], letters.letters) == (emitted, [])
