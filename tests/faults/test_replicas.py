"""Replicas of the workers of history and current state come and go under load: partitions move, and no event is lost,
doubled or overtaken by an older one (I3, I6)."""

from __future__ import annotations

import time
from collections import Counter
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest

from fleet import Fleet
from history_rig import HistoryRig
from history_workers import Load, Witness
from ledger import Ledger

EVENTS_PER_S = 600
MOST_REPLICAS = 3
STATE = ("kafka", "faust")


class Shifts:
    """One replica more or less of something, one at a time."""

    def __init__(self, fleet: Fleet, ledger: Ledger) -> None:
        self.done: Counter[str] = Counter()
        self._fleet = fleet
        self._rng = ledger.rng

    def change(self) -> None:
        """A replica comes, or one that chance names goes."""
        kind = self._rng.choice(("history", *self._fleet.states))
        of_history, of_state = self._fleet.history, self._fleet.states.get(kind, [])
        count = len(of_history if kind == "history" else of_state)
        comes = count == 1 or (count < MOST_REPLICAS and self._rng.random() < 0.5)
        self.done[f"{kind} {'came' if comes else 'went'}"] += 1
        if kind == "history":
            self._fleet.add_history() if comes else self._fleet.drop_history(self._rng.choice(of_history))
        else:
            self._fleet.add_state(kind) if comes else self._fleet.drop_state(kind, self._rng.choice(of_state))


@pytest.mark.long
@pytest.mark.timeout(900)
def test_replicas_that_come_and_go_lose_and_double_nothing(
    kafka: str, topic_prefix: str, postgres: str, redis_url: str, tmp_path: Path
) -> None:
    rig, ledger = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres), Ledger()
    fleet = Fleet(rig, redis_url=redis_url, folder=tmp_path, engines=STATE)
    load = Load(
        rig, ledger, events_per_s=EVENTS_PER_S, start=datetime.now(UTC), step=timedelta(seconds=1 / EVENTS_PER_S)
    )
    shifts, began = Shifts(fleet, ledger), time.monotonic()
    try:
        fleet.add_history()
        for engine in STATE:
            fleet.add_state(engine)
        with psycopg.connect(rig.dsn, autocommit=True) as connection:
            witness = Witness(connection)
            fleet.await_progress(witness)
            while time.monotonic() < began + 60 or len(shifts.done) < 6:
                shifts.change()
                fleet.await_progress(witness)
        fleet.judge(load, ledger)
        codes = fleet.end()
    finally:
        load.close()
        fleet.kill()
    print(dict(shifts.done), codes, fleet.left)
    assert {*codes, *fleet.left} == {0}
