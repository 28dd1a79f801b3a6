"""The server of the history crashes, fills up or comes back older than it was: time is lost, and no event (I6)."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest
from psycopg import sql

from history_rig import HistoryRig
from history_workers import Load, Witness, Worker, Workers
from ledger import Ledger
from tradetape.console.local.places import Places, default_cache, unprivileged_user
from tradetape.console.local.ports import PortBook
from tradetape.console.local.postgres import Postgres
from tradetape.console.local.service import Service
from tradetape.console.local.stack import LocalStack
from tradetape.streams.dead_letters import MemoryDeadLetters
from waiting import eventually

SMALL_DISK = "128m"
SLOWLY = 300
"""Events a second that leave room for the log until the test takes it."""


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
            rig.catch_up(thread)
    finally:
        load.close()
    rig.assert_right(ledger, emitted=emitted)
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
    rig.emit_conditions(range(50))
    with rig.working(rig.sink(dead_letters=letters), max_batch_records=500) as thread:
        rig.catch_up(thread)
        ballast = fill(small_disk)
        rig.emit_conditions(range(50, 3_000), note="x" * 500)
        eventually("the sink waits", lambda: "No space left on device" in caplog.text or thread.failure is not None)
        assert thread.failure is None
        ballast.unlink()
        rig.catch_up(thread)
    assert letters.letters == []
    assert rig.assert_every_event_once() == 3_000


@pytest.fixture
def cramped_wal(small_disk: Path, tmp_path: Path) -> Iterator[Service]:
    """A server of the test's own, whose write-ahead log lies on the small disk."""
    places = Places(home=tmp_path / "home", cache=default_cache())
    places.make()
    server = Postgres(places, PortBook(places.home / "ports.json"), fixed_ports=False)
    try:
        server.up()
        server.down()
        lies = Path(server.marker) / "pg_wal"
        shutil.copytree(lies, small_disk / "pg_wal")
        shutil.rmtree(lies)
        lies.symlink_to(small_disk / "pg_wal")
        for one in (small_disk / "pg_wal").rglob("*"):
            os.chown(one, *(server.user() or (-1, -1)))
        os.chown(small_disk / "pg_wal", *(server.user() or (-1, -1)))
        server.up()
        yield server
    finally:
        server.down()
        server.wipe()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_disk_without_room_for_the_log_stops_the_server_and_costs_no_event(
    kafka: str, topic_prefix: str, cramped_wal: Service, small_disk: Path
) -> None:
    """PostgreSQL ends itself when it cannot write its log, and may not come up again until there is room."""
    ledger, letters = Ledger(), MemoryDeadLetters()
    rig = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=cramped_wal.variables(cramped_wal.up())["DATABASE_URL"])
    load = Load(rig, ledger, events_per_s=SLOWLY)
    try:
        with rig.working(rig.sink(dead_letters=letters), max_batch_records=500) as thread:
            rig.catch_up(thread)
            ballast = fill(small_disk)
            eventually("the server has no room for its log", lambda: not writes_log(rig.dsn))
            log = cramped_wal.places.log("postgres").read_text()
            assert "PANIC" in log
            assert "No space left on device" in log
            known = load.count
            eventually("more comes in meanwhile", lambda: load.count > known + 1_000)
            assert thread.failure is None
            ballast.unlink()
            cramped_wal.up()
            emitted = load.end()
            rig.catch_up(thread)
    finally:
        load.close()
    rig.assert_right(ledger, emitted=emitted)
    assert letters.letters == []


def writes_log(dsn: str) -> bool:
    """Whether the server still takes a few megabytes for its log."""
    try:
        with psycopg.connect(dsn) as connection:
            connection.execute("SELECT pg_logical_emit_message(false, 'test', repeat('x', 4 * 1024 * 1024))")
    except psycopg.OperationalError:
        return False
    return True


@pytest.fixture
def lazy(stack: LocalStack, database: str) -> Iterator[str]:
    """The DSN of a database whose commits are on the disk only seconds later, and not at all where the server crashes."""
    settings = {"synchronous_commit": "off", "wal_writer_delay": "10s", "wal_writer_flush_after": "1GB"}
    owner = stack.environment()["DATABASE_URL"]
    with psycopg.connect(owner, autocommit=True) as connection:
        for name, value in settings.items():
            connection.execute(sql.SQL("ALTER SYSTEM SET {} = {}").format(sql.Identifier(name), value))
        connection.execute("SELECT pg_reload_conf()")
    yield database
    with psycopg.connect(owner, autocommit=True) as connection:
        for name in settings:
            connection.execute(sql.SQL("ALTER SYSTEM RESET {}").format(sql.Identifier(name)))
        connection.execute("SELECT pg_reload_conf()")


@pytest.mark.long
@pytest.mark.parametrize("crashes", [1, 10])
def test_what_a_crashed_server_had_committed_and_not_yet_written_down_is_read_again(
    stack: LocalStack, kafka: str, topic_prefix: str, lazy: str, tmp_path: Path, crashes: int
) -> None:
    """`synchronous_commit = off`: rows and offsets are lost together, which the sink notices by what it had stored."""
    rig, ledger = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=lazy), Ledger()
    with psycopg.connect(rig.dsn, autocommit=True) as connection:
        connection.execute("CHECKPOINT")  # the tables themselves are not to be lost
    server = next(one for one in stack.services if one.name == "postgres")
    workers, load = Workers(rig, tmp_path), Load(rig, ledger, rubbish_every=500)
    went_back = 0
    try:
        worker = workers.start()
        for _ in range(crashes):
            reached = stored(rig)
            worker.wait_for("the worker writes", lambda reached=reached: stored(rig) > reached + 1_000)  # type: ignore[misc]
            found = server.running()
            assert found is not None
            found[0].send_signal(signal.SIGQUIT)
            eventually("the server is gone", lambda: server.running() is None)
            server.up()
            went_back += goes_on_or_ended(rig, worker)
        emitted, ends = load.end(), rig.ends()
        worker.wait_for("the worker catches up", lambda: rig.has_come_to(ends))
    finally:
        load.close()
        workers.end()
    print(f"{went_back} of {crashes} times the database went back")
    rig.assert_right(ledger, emitted=emitted)
    assert went_back > 0


def stored(rig: HistoryRig) -> int:
    """The sum of the offsets reached, asked in a session that does not outlive the answer."""
    with psycopg.connect(rig.dsn) as connection:
        return Witness(connection).stored()


def goes_on_or_ended(rig: HistoryRig, worker: Worker) -> bool:
    """Wait until the worker writes again; whether it ended before, because the database had gone back, and was restarted."""
    reached = stored(rig)
    eventually("the worker goes on or ends", lambda: worker.has_ended() or stored(rig) > reached)
    if not worker.has_ended():
        return False
    assert worker.exit_code() == 1
    assert "the database knows" in worker.log.read_text().splitlines()[-1]
    worker.restart()
    return True
