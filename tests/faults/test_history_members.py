"""Sinks of one group that come and go: a partition changes hands without an event lost and without a standstill (I6)."""

from __future__ import annotations

import random
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psycopg
import pytest

from history_rig import HistoryRig
from history_workers import Load, Witness, Worker, Workers
from ledger import Ledger
from tradetape.streams.dead_letters import MemoryDeadLetters
from waiting import eventually

STORM_S = 180.0
TURN_S = 2.0
"""So often a member comes or goes, where the machine is quick enough."""
MOST_GUESTS = 3
LEAST_SHARE = 0.3
"""Of what comes in, how much is stored even in the middle of the storm."""
LOOK_S = 0.05


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def test_members_that_come_and_go_cost_neither_progress_nor_an_event(rig: HistoryRig) -> None:
    ledger, letters = Ledger(), MemoryDeadLetters()
    load = Load(rig, ledger)
    try:
        with rig.working(rig.sink(dead_letters=letters)) as stays:
            for _ in range(3):
                guest = rig.sink(dead_letters=letters)
                with rig.working(guest):
                    eventually("the guest writes", lambda guest=guest: guest.counts["stored"] > 0)  # type: ignore[misc]
            emitted = load.end()
            rig.catch_up(stays)
    finally:
        load.close()
    rig.assert_right(ledger, emitted=emitted)
    assert letters.letters == []


class Storm:
    """Members of one group that come and go beside one that stays. Each has its share before the next one comes or goes."""

    def __init__(self, workers: Workers, witness: Witness, rng: random.Random) -> None:
        self.came = 0
        self._workers = workers
        self._witness = witness
        self._rng = rng
        self._guests: list[Worker] = []

    def rage(self, stays: Worker) -> None:
        """For its time."""
        over = time.monotonic() + STORM_S
        while (now := time.monotonic()) < over:
            assert stays.is_at_work(), stays.log.read_text()[-3_000:]
            if self._guests and (len(self._guests) == MOST_GUESTS or self._rng.random() < 0.5):
                self._let_go()
            else:
                self._have_come()
            time.sleep(max(0.0, now + TURN_S - time.monotonic()))
        while self._guests:
            self._let_go()

    def _have_come(self) -> None:
        guest = self._workers.start(group="fleet")
        guest.wait_for("the guest has partitions", lambda: self._witness.has_session_of(guest))
        self._guests.append(guest)
        self.came += 1

    def _let_go(self) -> None:
        guest = self._guests.pop(self._rng.randrange(len(self._guests)))
        if guest.is_at_work():
            guest.send(signal.SIGTERM)
        # One that was fenced off and is just starting again has no ear for it yet.
        assert guest.exit_code() in (0, -signal.SIGTERM), guest.log.read_text()[-3_000:]


class Pauses:
    """The longest time for which each partition stood still."""

    def __init__(self) -> None:
        self.longest_s: dict[tuple[str, int], float] = {}
        self._moved_at: dict[tuple[str, int], tuple[int, float]] = {}

    def look(self, reached: dict[tuple[str, int], int]) -> None:
        """How far each has come now."""
        now = time.monotonic()
        for place, end in reached.items():
            last, moved_at = self._moved_at.get(place, (end, now))
            self.longest_s[place] = max(self.longest_s.get(place, 0.0), now - moved_at)
            self._moved_at[place] = (end, now if end != last else moved_at)

    @contextmanager
    def watched(self, dsn: str) -> Iterator[None]:
        """Look all the time, from a thread."""
        over = threading.Event()

        def watch() -> None:
            with psycopg.connect(dsn, autocommit=True) as connection:
                asked = "SELECT topic, partition, next_offset FROM tradetape.sink_offsets WHERE next_offset IS NOT NULL"
                while not over.wait(LOOK_S):
                    self.look({(topic, one): end for topic, one, end in connection.execute(asked).fetchall()})

        thread = threading.Thread(target=watch)
        thread.start()
        try:
            yield
        finally:
            over.set()
            thread.join()


@pytest.mark.long
@pytest.mark.timeout(600)
def test_a_storm_of_members_costs_a_part_of_the_pace_and_not_one_event(rig: HistoryRig, tmp_path: Path) -> None:
    ledger, pauses = Ledger(), Pauses()
    workers, load = Workers(rig, tmp_path), Load(rig, ledger, rubbish_every=2_000)
    try:
        with psycopg.connect(rig.dsn, autocommit=True) as connection:
            witness = Witness(connection)
            storm = Storm(workers, witness, ledger.rng)
            stays = workers.start(group="fleet")
            stays.wait_for("the group writes", lambda: witness.stored() > 0)
            stored, came = witness.stored(), load.count
            with pauses.watched(rig.dsn):
                storm.rage(stays)
            share = (witness.stored() - stored) / (load.count - came)
            waits = stays.log.read_text().count("waiting: PostgreSQL")
            print(f"{storm.came} came and went, {witness.claims()} claims, {share:.0%} stored meanwhile,")
            print(
                f"longest pauses {sorted(round(one, 1) for one in pauses.longest_s.values())}; {waits} waits, {stays.starts} starts"
            )
            emitted, ends = load.end(), rig.ends()
            stays.wait_for("it catches up", lambda: rig.has_come_to(ends))
    finally:
        load.close()
        workers.end()
    rig.assert_right(ledger, emitted=emitted)
    assert share >= LEAST_SHARE
