"""`kill -9` of the real worker process, at random points and under load: every record of the tape is stored once (I6)."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from history_rig import HistoryRig
from tradetape.producers import Producer
from tradetape.schemas import IndicatorUpdate, MarketCondition
from waiting import eventually

KILLS = 20
EVENTS_PER_S = 1_500
STEP_S = 0.02
START = datetime(2025, 5, 31, 23, 50, tzinfo=UTC)
SYMBOLS = tuple(f"COIN{number}USDT" for number in range(16))


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


class Worker:
    """One process of `tradetape work history`, started again when it was fenced off, as its supervisor would."""

    def __init__(self, rig: HistoryRig, log: Path, *, group: str) -> None:
        self.log = log
        environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": rig.kafka.bootstrap_servers,
            "DATABASE_URL": rig.sink_dsn,
            "TRADETAPE_TOPIC_PREFIX": rig.catalogue.prefix,
        }
        self._environment = environment
        self._command = [sys.executable, "-m", "tradetape.console", "work", "history", "--group", group]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        with self.log.open("ab") as output:
            return subprocess.Popen(self._command, env=self._environment, stdout=output, stderr=output)

    def is_at_work(self) -> bool:
        """Whether it lives. Two workers that claim at the same moment may end the one whose turn it is."""
        code = self.process.poll()
        if code == 1 and "another sink" in self.log.read_text().splitlines()[-1]:
            self.process = self._start()
            return True
        return code is None

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """What it ended with."""
        return self.process.wait(60)


MakeWorker = Callable[..., Worker]


@pytest.fixture
def workers(rig: HistoryRig, tmp_path: Path) -> Iterator[MakeWorker]:
    """Starts workers, each in a consumer group of its own unless told; kills what is left of them.

    In a group of its own a worker has its partitions at once, also while another one still holds them: a group would
    hide from the database most of what the fence is for.
    """
    made: list[Worker] = []

    def make(*, group: str | None = None) -> Worker:
        made.append(Worker(rig, tmp_path / f"{len(made)}.log", group=group or f"{rig.catalogue.prefix}{len(made)}"))
        return made[-1]

    yield make
    for one in made:
        if one.process.poll() is None:
            one.process.kill()
            one.process.wait(10)


@pytest.fixture
def load(rig: HistoryRig) -> Iterator[Load]:
    with rig.producer() as tape:
        load = Load(tape)
        yield load
        load.end()


class Load:
    """Emits into two tables, at about EVENTS_PER_S, until it is ended."""

    def __init__(self, tape: Producer) -> None:
        self._tape = tape
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Stop and deliver; how many events are on the tape."""
        self._over.set()
        self._thread.join(30)
        assert self._tape.flush(30)
        health = self._tape.health()
        assert health.delivered == health.emitted
        return health.delivered

    def _run(self) -> None:
        number = 0
        while not self._over.wait(STEP_S):
            for _ in range(int(EVENTS_PER_S * STEP_S / 2)):
                number += 1
                self._emit(START + timedelta(milliseconds=100 * number), SYMBOLS[number % len(SYMBOLS)])

    def _emit(self, at: datetime, symbol: str) -> None:
        update = IndicatorUpdate(
            venue="v", symbol=symbol, timeframe="1m", bar_close_time=at, values={"rsi_14": 50.0, "my_own": 1.0}
        )
        self._tape.emit(update)
        self._tape.emit(MarketCondition(venue="v", symbol=symbol, scope="s", condition="c", event_time=at))


class Witness:
    """Looks at the workers from inside of the database."""

    def __init__(self, connection: psycopg.Connection) -> None:
        self._connection = connection

    def claims(self) -> int:
        """How often partitions were taken."""
        return self._number("SELECT coalesce(sum(epoch), 0) FROM tradetape.sink_offsets")

    def stored(self) -> int:
        """The sum of the offsets reached."""
        return self._number("SELECT coalesce(sum(next_offset), 0) FROM tradetape.sink_offsets")

    def is_writing(self) -> bool:
        """Whether a worker is inside of a transaction now."""
        return bool(
            self._number(
                "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'tradetape-history' "
                "AND datname = current_database() AND backend_xid IS NOT NULL"
            )
        )

    def _number(self, query: str) -> int:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


@pytest.fixture
def witness(rig: HistoryRig) -> Iterator[Witness]:
    with psycopg.connect(rig.dsn, autocommit=True) as connection:
        yield Witness(connection)


def wait_for(worker: Worker, what: str, condition: Callable[[], bool]) -> None:
    """Wait for what the worker does; with its log where it does not."""
    try:
        eventually(what, lambda: condition() or not worker.is_at_work())
        assert worker.is_at_work()
    except AssertionError as error:
        raise AssertionError(f"{error}\n{worker.log.read_text()[-3_000:]}") from error


def let_take_over(worker: Worker, witness: Witness) -> None:
    """Come to where a worker has taken the partitions of another."""
    claims = witness.claims()
    wait_for(worker, "the worker takes over", lambda: witness.claims() > claims)


def let_live(worker: Worker, witness: Witness, rng: random.Random, way: str) -> None:
    """Come to a random point of a worker's life: at its start, in a transaction, or anywhere in its work."""
    if way == "starting":
        time.sleep(rng.uniform(0, 1.0))
        return
    reached = witness.stored()
    wait_for(worker, "the worker writes", lambda: witness.stored() > reached)
    if way == "writing":
        time.sleep(rng.uniform(0, 0.1))
        wait_for(worker, "the worker is in a transaction", witness.is_writing)
    else:
        time.sleep(rng.uniform(0, 0.5))


def test_every_record_is_stored_once_though_its_worker_is_killed_twenty_times(
    rig: HistoryRig, workers: MakeWorker, load: Load, witness: Witness
) -> None:
    rng = random.Random(20_250_601)
    current = workers()
    for number in range(KILLS):
        # Every third worker is there before the one before it is dead.
        following = workers() if number % 3 == 2 else None
        if following is not None:
            let_take_over(following, witness)
        else:
            let_live(current, witness, rng, rng.choice(("starting", "writing", "writing", "working")))
        current.send(signal.SIGKILL)
        assert current.exit_code() in (-signal.SIGKILL, 1), "killed, or fenced off a moment before"
        current = following or workers()
    let_live(current, witness, rng, "working")
    emitted, ends = load.end(), rig.ends()

    wait_for(current, "the last worker catches up", lambda: rig.has_come_to(ends))
    current.send(signal.SIGTERM)
    assert current.exit_code() == 0

    stored = rig.assert_every_event_once()
    assert stored == emitted, f"{len(rig.tape())} records on the tape; ends then {ends}, now {rig.ends()}"
    assert rig.ends(rig.catalogue.dead_letters_topic) == {}


def test_a_worker_that_stood_still_while_another_took_over_ends_and_has_written_nothing(
    rig: HistoryRig, workers: MakeWorker, load: Load, witness: Witness
) -> None:
    """SIGSTOP, as a paused machine is: when it goes on, it believes to be the owner still."""
    stale = workers()
    wait_for(stale, "the worker writes", lambda: witness.stored() > 0)
    wait_for(stale, "the worker is in a transaction", witness.is_writing)
    stale.send(signal.SIGSTOP)
    reached = witness.stored()
    owner = workers()
    wait_for(owner, "the other worker writes", lambda: witness.stored() > reached + 1_000)
    stale.send(signal.SIGCONT)

    assert stale.exit_code() == 1
    assert "was taken over by another sink" in stale.log.read_text() or "still ours" in stale.log.read_text()
    emitted, ends = load.end(), rig.ends()
    wait_for(owner, "the other worker catches up", lambda: rig.has_come_to(ends))
    owner.send(signal.SIGTERM)
    assert owner.exit_code() == 0
    assert rig.assert_every_event_once() == emitted


def test_a_worker_of_the_same_group_goes_on_where_a_killed_one_stopped(
    rig: HistoryRig, workers: MakeWorker, load: Load, witness: Witness
) -> None:
    first = workers(group=f"{rig.catalogue.prefix}same")
    wait_for(first, "the worker writes", lambda: witness.stored() > 0)
    first.send(signal.SIGKILL)
    assert first.exit_code() == -signal.SIGKILL
    reached = witness.stored()
    second = workers(group=f"{rig.catalogue.prefix}same")
    wait_for(second, "the next worker writes", lambda: witness.stored() > reached)
    emitted, ends = load.end(), rig.ends()
    wait_for(second, "the next worker catches up", lambda: rig.has_come_to(ends))
    second.send(signal.SIGTERM)
    assert second.exit_code() == 0
    assert rig.assert_every_event_once() == emitted
