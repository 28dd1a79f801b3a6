"""The local stack comes up again with its data, whatever was killed, lost, damaged or taken in between."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
import tempfile
import time
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import psycopg
import pytest
import redis
from confluent_kafka import Consumer, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from tradetape.console.errors import ServiceFailed
from tradetape.console.local import process as processes
from tradetape.console.local.ports import LOOPBACK, PortBook
from tradetape.console.local.stack import LocalStack
from waiting import eventually

pytestmark = pytest.mark.local

SERVICES = ("kafka", "postgres", "redis")
"""Those that a plain `up` starts; the registry has tests of its own."""
DEADLINE_S = 60.0
UP = "import sys; from pathlib import Path; from tradetape.console.local.stack import LocalStack; LocalStack(Path(sys.argv[1]), fixed_ports=False).up()"


@pytest.fixture(scope="module")
def local() -> Iterator[LocalStack]:
    """A stack of this file's own. Each test brings it up itself, so their order does not matter."""
    with tempfile.TemporaryDirectory(prefix="tradetape-lifecycle-") as folder:
        stack = LocalStack(Path(folder) / "home", fixed_ports=False)
        try:
            yield stack
        finally:
            stack.down(wipe=True)


@pytest.fixture
def new_home() -> Iterator[Path]:
    """The home of a stack that never ran."""
    with tempfile.TemporaryDirectory(prefix="tradetape-lifecycle-") as folder:
        home = Path(folder) / "home"
        try:
            yield home
        finally:
            LocalStack(home, fixed_ports=False).down(wipe=True)


def pids(stack: LocalStack) -> dict[str, int | None]:
    return {one.name: one.pid for one in stack.status() if one.name in SERVICES}


def ports(stack: LocalStack) -> dict[str, int | None]:
    return {one.name: one.port for one in stack.status() if one.name in SERVICES}


def kill(pid: int | None) -> None:
    assert pid is not None
    process = psutil.Process(pid)
    process.kill()
    eventually(
        f"{pid} is gone",
        lambda: not processes.lives(process),
    )


def servers_of(stack: LocalStack) -> list[int]:
    """Every process whose command line or folder names this stack."""
    places = (str(stack.places.home), str(stack.places.postgres()))
    found = []
    for process in psutil.process_iter(["cmdline", "ppid"]):
        command = process.info["cmdline"] or []
        if any(argument.startswith(places) for argument in command) and "-c" not in command[1:2]:
            found.append(process.pid)
    return found


def store(stack: LocalStack) -> str:
    """Put one and the same new word into every service, acknowledged; the word."""
    word = f"w{uuid.uuid4().hex[:12]}"
    environment = stack.environment()
    admin = AdminClient({"bootstrap.servers": environment["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 0})
    admin.create_topics([NewTopic(word, 1, 1)])[word].result(DEADLINE_S)
    producer = Producer({"bootstrap.servers": environment["KAFKA_BOOTSTRAP_SERVERS"], "acks": "all", "log_level": 0})
    producer.produce(word, word.encode())
    assert producer.flush(DEADLINE_S) == 0
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        connection.execute("CREATE TABLE IF NOT EXISTS words (word text)")
        connection.execute("INSERT INTO words VALUES (%s)", [word])
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        client.set(word, word)
    return word


def assert_stored(stack: LocalStack, word: str) -> None:
    environment = stack.environment()
    consumer = Consumer({"bootstrap.servers": environment["KAFKA_BOOTSTRAP_SERVERS"], "group.id": word})
    consumer.assign([TopicPartition(word, 0, 0)])
    message = consumer.poll(DEADLINE_S)
    consumer.close()
    assert message is not None
    assert message.value() == word.encode()
    with psycopg.connect(environment["DATABASE_URL"]) as connection:
        assert connection.execute("SELECT count(*) FROM words WHERE word = %s", [word]).fetchone() == (1,)
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        assert client.get(word) == word.encode()


def test_a_second_up_is_harmless(local: LocalStack) -> None:
    environment = local.up()
    before = pids(local)
    assert all(before.values())
    assert local.up() == environment
    assert pids(local) == before


def test_only_loopback_is_listened_on(local: LocalStack) -> None:
    local.up()
    for pid in pids(local).values():
        sockets = psutil.Process(pid).net_connections(kind="inet")
        listening = {one.laddr.ip for one in sockets if one.status == psutil.CONN_LISTEN}
        assert {address.removeprefix("::ffff:") for address in listening} == {LOOPBACK}


@pytest.mark.parametrize("service", SERVICES)
def test_a_killed_service_comes_back_with_its_data_and_the_others_stay(local: LocalStack, service: str) -> None:
    local.up()
    word, before, addresses = store(local), pids(local), ports(local)
    kill(before[service])
    assert pids(local)[service] is None

    local.up()
    after = pids(local)
    assert after[service] not in (None, before[service])
    assert {name: pid for name, pid in after.items() if name != service} == {
        name: pid for name, pid in before.items() if name != service
    }
    assert ports(local) == addresses
    assert_stored(local, word)


def test_after_a_crash_of_all_services_the_next_up_has_their_data(local: LocalStack) -> None:
    local.up()
    word = store(local)
    for pid in pids(local).values():
        kill(pid)
    assert local.environment() == {}
    local.up()
    assert_stored(local, word)


def lives(pid: int) -> bool:
    """Whether a process runs; one that has ended and that nobody has taken note of does not."""
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


def test_down_stops_everything_and_the_data_stays(local: LocalStack) -> None:
    local.up()
    word, before = store(local), pids(local)
    assert local.down() == list(SERVICES)
    assert servers_of(local) == []
    assert not any(lives(pid) for pid in before.values() if pid)
    assert local.environment() == {}
    assert local.down() == []
    local.up()
    assert_stored(local, word)


@pytest.mark.parametrize("damage", ["removed", pytest.param("garbage", marks=pytest.mark.long), "another port"])
def test_a_lost_or_wrong_book_of_ports_costs_no_data_and_no_second_server(local: LocalStack, damage: str) -> None:
    local.up()
    word = store(local)
    book = local.places.home / "ports.json"
    if damage == "removed":
        book.unlink()
    elif damage == "garbage":
        book.write_bytes(b"\xff{")
    else:
        book.write_text('{"kafka": 1, "postgres": 2, "redis": []}', encoding="utf-8")
    local.up()
    eventually("there is one server of a kind", lambda: len(servers_of(local)) == len(SERVICES))
    assert_stored(local, word)


def test_a_port_that_somebody_took_is_left_to_them(local: LocalStack) -> None:
    local.up()
    word, before = store(local), ports(local)
    local.down()
    taken = []
    for port in before.values():
        assert port is not None
        listener = socket.create_server((LOOPBACK, port))
        taken.append(listener)
    try:
        local.up()
        assert set(ports(local).values()).isdisjoint(before.values())
        assert_stored(local, word)
    finally:
        for listener in taken:
            listener.close()


def test_a_failed_start_quotes_the_log_and_mends_once_the_cause_is_gone(local: LocalStack) -> None:
    local.up()
    word = store(local)
    local.down()
    tape = local.places.home / "redis" / "appendonly.aof"
    whole = tape.read_bytes()
    tape.write_bytes(b"*rubbish\r\n" + whole)
    with pytest.raises(
        ServiceFailed, match=r"(?s)redis ended while it started; the end of .*redis\.log.*Bad file format"
    ):
        local.up()
    tape.write_bytes(whole)
    local.up()
    assert_stored(local, word)


def test_a_server_that_its_command_line_does_not_tell_yet_is_waited_for(
    local: LocalStack, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = processes.find

    def young_ones_unseen(marker: str) -> psutil.Process | None:
        # As the system shows a process in the middle of exec, for longer.
        one = found(marker)
        return one if one is not None and time.time() - one.create_time() > 1.0 else None

    local.up()
    word = store(local)
    local.down()
    monkeypatch.setattr(processes, "find", young_ones_unseen)
    local.up()
    assert_stored(local, word)


def test_wipe_leaves_no_data_behind(local: LocalStack) -> None:
    local.up()
    word = store(local)
    local.down(wipe=True)
    assert not local.places.postgres().exists()
    left = [path for path in local.places.home.rglob("*") if path.is_file() and path.name != "lock"]
    assert left == []
    environment = local.up()
    with redis.Redis.from_url(environment["REDIS_URL"]) as client:
        assert client.get(word) is None


@pytest.mark.long
@pytest.mark.parametrize("runs", [True, False], ids=["while it runs", "while it is down"])
def test_a_home_removed_by_hand_does_not_stop_the_next_up(local: LocalStack, runs: bool) -> None:
    local.up()
    if not runs:
        local.down()
    shutil.rmtree(local.places.home)
    local.up()
    eventually("no server of the lost home lives on", lambda: len(servers_of(local)) == len(SERVICES))
    assert_stored(local, store(local))


@pytest.mark.skipif(os.geteuid() != 0, reason="only root has this difficulty")
def test_root_may_keep_its_home_closed_and_postgres_runs_as_nobody(local: LocalStack) -> None:
    local.up()
    parent = local.places.home.parent
    assert stat.S_IMODE(parent.stat().st_mode) == 0o700
    assert stat.S_IMODE(local.places.home.stat().st_mode) == 0o700
    pid = pids(local)["postgres"]
    assert psutil.Process(pid).uids().effective != 0


def test_the_password_can_be_read_by_its_owner_alone(local: LocalStack) -> None:
    password = psycopg.conninfo.conninfo_to_dict(local.up()["DATABASE_URL"])["password"]
    assert isinstance(password, str)
    folders = (local.places.home, local.places.postgres())
    files = [path for folder in folders for path in folder.rglob("*") if path.is_file() and path.stat().st_size < 4096]
    holding = [path for path in files if password.encode() in path.read_bytes()]
    assert holding
    for path in holding:
        assert stat.S_IMODE(path.stat().st_mode) == 0o600, path


STAGES: dict[str, Callable[[LocalStack], object]] = {
    "storage is formatted": lambda stack: list(stack.places.home.glob("kafka/new.*/*.properties")),
    "initdb runs": lambda stack: list(stack.places.postgres().glob("data.new.*/PG_VERSION")),
    "a server has started": lambda stack: any(pids(stack).values()),
}


@pytest.mark.parametrize(
    "stage", [one if one == "a server has started" else pytest.param(one, marks=pytest.mark.long) for one in STAGES]
)
def test_the_next_up_takes_over_from_one_that_was_killed(new_home: Path, stage: str) -> None:
    stack = LocalStack(new_home, fixed_ports=False)
    killed = subprocess.Popen([sys.executable, "-c", UP, str(new_home)])
    try:
        eventually("the stage is reached", lambda: bool(STAGES[stage](stack)) or killed.poll() is not None)
        assert killed.poll() is None, "it was too quick to be killed"
    finally:
        killed.kill()
        assert killed.wait() == -signal.SIGKILL
    stack.up()
    eventually("there is one server of a kind", lambda: len(servers_of(stack)) == len(SERVICES))
    assert_stored(stack, store(stack))


def test_two_ups_at_once_start_one_stack(new_home: Path) -> None:
    both = [subprocess.Popen([sys.executable, "-c", UP, str(new_home)]) for _ in range(2)]
    assert [one.wait(DEADLINE_S) for one in both] == [0, 0]
    stack = LocalStack(new_home, fixed_ports=False)
    assert all(pids(stack).values())
    eventually("there is one server of a kind", lambda: len(servers_of(stack)) == len(SERVICES))


@pytest.mark.long
def test_a_port_that_another_stack_took_a_moment_before_is_left_to_it(
    stack: LocalStack, new_home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    theirs = ports(stack)
    late = LocalStack(new_home, fixed_ports=False)
    choose, chosen = PortBook.choose, set[str]()

    def choose_late(book: PortBook, name: str, preferred: int | None) -> int:
        if name in theirs and name not in chosen and book._path.parent == new_home:
            chosen.add(name)
            with book._lock:
                return book._remember(name, theirs[name] or 0)
        return choose(book, name, preferred)

    monkeypatch.setattr(PortBook, "choose", choose_late)
    late.up()
    assert chosen == set(SERVICES)
    assert not set(ports(late).values()) & set(theirs.values())
    assert None not in pids(late).values()
    assert ports(stack) == theirs
