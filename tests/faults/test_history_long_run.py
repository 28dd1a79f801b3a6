"""Three sinks of one group under load, killed at every point and at random, stopped and woken again as zombies, over and
over: lost 0, doubled 0, phantom 0, out of order 0 (I6, I7)."""

from __future__ import annotations

import signal
import time
from collections import Counter
from collections.abc import Callable
from itertools import cycle
from pathlib import Path

import psycopg
import pytest

import failing_worker
from history_rig import HistoryRig
from history_workers import Load, Witness, Worker, Workers
from ledger import Ledger
from waiting import eventually

MEMBERS = 3
POINT_TIMEOUT_S = 10.0
"""A member that has no partitions comes to no point: it is struck where it is."""
LOST_AFTER_S = 20.0
"""Within this the group gives the partitions of a silent member to others."""
RUBBISH_EVERY = 2_000


class Storm:
    """Strikes the members of one group, one to all of them at a time, and starts again what ended."""

    def __init__(self, members: list[Worker], witness: Witness, ledger: Ledger, *, kills: int, zombies: int) -> None:
        self.done: Counter[str] = Counter()
        self.points: Counter[str] = Counter()
        self._members = members
        self._witness = witness
        self._rng = ledger.rng
        self._left = {"kill": kills, "zombie": zombies}
        points = [*failing_worker.POINTS, "random", "random", "random"]
        self._rng.shuffle(points)
        self._deaths = cycle(points)
        self._stops = cycle([failing_worker.IN_COPY, "behind the fence", "random", "before the fence"])

    def rage(self) -> None:
        """Until all blows are dealt; after each of them the group has to come to work again."""
        while any(self._left.values()):
            self._strike(self._rng.sample(self._members, self._rng.choice((1, 2, 2, 3))))
            reached = self._witness.stored()
            eventually("the group goes on", lambda reached=reached: self._goes_on(reached))  # type: ignore[misc]

    def _goes_on(self, reached: int) -> bool:
        assert all(one.is_at_work() for one in self._members), self.report()
        return self._witness.stored() > reached

    def _strike(self, victims: list[Worker]) -> None:
        kinds = [name for name, left in self._left.items() for _ in range(left)]
        blows = dict(zip(victims, self._rng.sample(kinds, min(len(kinds), len(victims))), strict=False))
        zombies = [one for one, kind in blows.items() if kind == "zombie"]
        for victim, kind in blows.items():
            self._left[kind] -= 1
            self.done[kind] += 1
            number = signal.SIGKILL if kind == "kill" else signal.SIGSTOP
            victim.prepare(next(self._deaths if kind == "kill" else self._stops), number)
        for victim, kind in blows.items():
            self._await(victim, victim.has_ended if kind == "kill" else victim.is_stopped)
        for victim in blows.keys() - set(zombies):
            victim.restart()
        for zombie in zombies:
            self._wake(zombie)

    def _await(self, victim: Worker, has_happened: Callable[[], bool]) -> None:
        deadline = time.monotonic() + POINT_TIMEOUT_S
        while not (has_happened() or victim.has_ended()) and time.monotonic() < deadline:
            time.sleep(0.02)
        self.points[victim.struck(has_happened())] += 1
        eventually("it is struck", lambda: has_happened() or victim.has_ended())

    def _wake(self, zombie: Worker) -> None:
        """Once others have taken what it believes to hold."""
        if zombie.has_ended():
            # Fenced off by another one's claim before it came to its point.
            zombie.restart()
            return
        deadline = time.monotonic() + LOST_AFTER_S
        while self._witness.has_session_of(zombie) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.done["zombie that was replaced"] += not self._witness.has_session_of(zombie)
        zombie.send(signal.SIGCONT)

    def report(self) -> str:
        """What was done, and the logs of the members."""
        logs = (f"{one.log.name}: {one.log.read_text()[-1_500:]}" for one in self._members)
        return "\n".join([str(dict(self.done)), *logs])


@pytest.mark.long
@pytest.mark.timeout(3_600)
@pytest.mark.parametrize(
    ("kills", "zombies", "events", "events_per_s"),
    [pytest.param(100, 20, 2_000_000, 4_500, id="whole"), pytest.param(12, 3, 100_000, 2_500, id="small")],
)
def test_whatever_is_killed_or_wakes_up_again_each_event_is_stored_once(
    kafka: str,
    topic_prefix: str,
    postgres: str,
    tmp_path: Path,
    kills: int,
    zombies: int,
    events: int,
    events_per_s: int,
) -> None:
    rig, ledger, began = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres), Ledger(), time.monotonic()
    workers, load = Workers(rig, tmp_path), Load(rig, ledger, events_per_s=events_per_s, rubbish_every=RUBBISH_EVERY)
    try:
        with psycopg.connect(rig.dsn, autocommit=True) as connection:
            witness = Witness(connection)
            members = [workers.start(group="fleet") for _ in range(MEMBERS)]
            members[0].wait_for("the group writes", lambda: witness.stored() > 0)
            storm = Storm(members, witness, ledger, kills=kills, zombies=zombies)
            storm.rage()
            print(f"the storm took {time.monotonic() - began:.0f} s, {load.count} events until then")
            eventually("all is emitted", lambda: load.count >= events, timeout_s=1_800)
            emitted, ends = load.end(), rig.ends()
            eventually(
                "the group catches up",
                lambda: all(one.is_at_work() for one in members) and rig.has_come_to(ends),
                timeout_s=300,
            )
    finally:
        load.close()
        codes = workers.end()
    print(dict(storm.done), dict(storm.points), f"{sum(one.starts for one in members)} starts", codes)
    print(f"{time.monotonic() - began:.0f} s")
    verdict = rig.assert_right(ledger, emitted=emitted)
    assert emitted >= events
    assert verdict.counts["refused"] > 0
    assert (storm.done["kill"], storm.done["zombie"]) == (kills, zombies)
