"""`kill -9` of the real worker process, at points between its steps and at random ones, under load: every record
of the tape is stored once or a dead letter (I6, I7)."""

from __future__ import annotations

import signal
from collections.abc import Iterator
from pathlib import Path

import psycopg
import pytest

import failing_worker
from history_rig import HistoryRig
from history_workers import Load, Witness, Worker, Workers, let_live
from ledger import Ledger, Verdict

RUBBISH_EVERY = 50
LONG_SESSION = {"TRADETAPE_KAFKA_SESSION_TIMEOUT_MS": "60000"}


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


@pytest.fixture
def workers(rig: HistoryRig, tmp_path: Path) -> Iterator[Workers]:
    made = Workers(rig, tmp_path)
    yield made
    made.kill()


@pytest.fixture
def ledger() -> Ledger:
    return Ledger()


@pytest.fixture
def load(rig: HistoryRig, ledger: Ledger) -> Iterator[Load]:
    made = Load(rig, ledger, rubbish_every=RUBBISH_EVERY)
    yield made
    made.close()


@pytest.fixture
def witness(rig: HistoryRig) -> Iterator[Witness]:
    with psycopg.connect(rig.dsn, autocommit=True) as connection:
        yield Witness(connection)


def settled(rig: HistoryRig, load: Load, ledger: Ledger, last: Worker) -> Verdict:
    """End the load, let the last worker come to the end of the tape and leave in order; the verdict, which is right."""
    emitted, ends = load.end(), rig.ends()
    last.wait_for("the last worker catches up", lambda: rig.has_come_to(ends))
    last.send(signal.SIGTERM)
    assert last.exit_code() == 0
    verdict = rig.assert_right(ledger, emitted=emitted)
    assert verdict.counts["refused"] > 0
    return verdict


@pytest.mark.parametrize(
    ("points", "random_kills"), [(8, 4), pytest.param(len(failing_worker.POINTS), 8, marks=pytest.mark.long)]
)
def test_every_record_is_stored_once_though_its_worker_is_killed_between_two_steps_and_at_random(
    rig: HistoryRig, workers: Workers, load: Load, witness: Witness, ledger: Ledger, points: int, random_kills: int
) -> None:
    deaths = [*ledger.rng.sample(failing_worker.POINTS, points), *(["random"] * random_kills)]
    ledger.rng.shuffle(deaths)
    current, is_new = workers.start(), True
    for number, death in enumerate(deaths):
        if death != "random":
            if death.endswith("the claim") and not is_new:
                # It has made its claim long ago, and comes there no more.
                current.send(signal.SIGKILL)
                assert current.exit_code() == -signal.SIGKILL
                current = workers.start()
            current.arm(death, signal.SIGKILL)
            assert current.exit_code() == -signal.SIGKILL, f"at {death}: {current.log.read_text()[-3_000:]}"
            current, is_new = workers.start(), True
            continue
        # Every second worker is there before the one before it is dead.
        following = workers.start() if number % 2 else None
        if following is not None:
            claims = witness.claims()
            following.wait_for("the worker takes over", lambda claims=claims: witness.claims() > claims)  # type: ignore[misc]
        else:
            let_live(current, witness, ledger.rng, ledger.rng.choice(("starting", "writing", "writing", "working")))
        current.send(signal.SIGKILL)
        assert current.exit_code() in (-signal.SIGKILL, 1), "killed, or fenced off a moment before"
        current, is_new = following or workers.start(), following is None
    let_live(current, witness, ledger.rng, "working")
    settled(rig, load, ledger, current)


@pytest.mark.parametrize("point", [failing_worker.IN_COPY, "behind the fence"])
def test_a_worker_that_stood_still_while_another_took_over_ends_has_written_nothing_and_leaves_the_other_alone(
    rig: HistoryRig, workers: Workers, load: Load, witness: Witness, ledger: Ledger, point: str
) -> None:
    """SIGSTOP, as a paused machine is: when it goes on, it believes to be the owner still.

    Its group believes so too. One that finds its session over joins again and has partitions anew, by a claim of its own.
    """
    stale = workers.start(more=LONG_SESSION)
    stale.wait_for("the worker writes", lambda: witness.stored() > 0)
    stale.arm(point, signal.SIGSTOP)
    stale.wait_for("the worker stands still", stale.is_stopped)
    reached = witness.stored()
    owner = workers.start()
    owner.wait_for("the other worker writes", lambda: witness.stored() > reached + 1_000)
    sessions = witness.sessions()
    assert len(sessions) == 1, "the session of the one that stands still is ended"
    stale.send(signal.SIGCONT)

    assert stale.exit_code() == 1
    assert "was taken over by another sink" in stale.log.read_text() or "still ours" in stale.log.read_text()
    reached = witness.stored()
    owner.wait_for("the other worker goes on", lambda: witness.stored() > reached)
    assert witness.sessions() == sessions, "the owner's session is not ended by the other one"
    assert owner.starts == 1
    settled(rig, load, ledger, owner)


def test_a_worker_of_the_same_group_goes_on_where_a_killed_one_stopped(
    rig: HistoryRig, workers: Workers, load: Load, witness: Witness, ledger: Ledger
) -> None:
    first = workers.start(group="same")
    first.wait_for("the worker writes", lambda: witness.stored() > 0)
    first.send(signal.SIGKILL)
    assert first.exit_code() == -signal.SIGKILL
    reached = witness.stored()
    second = workers.start(group="same")
    second.wait_for("the next worker writes", lambda: witness.stored() > reached)
    settled(rig, load, ledger, second)
