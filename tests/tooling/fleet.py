"""Replicas of the workers of history and current state under one load: they come, go, and are judged by what they leave.

History is judged by the ledger. Of current state each series has to hold the event that was emitted last.
"""

from __future__ import annotations

import signal
from pathlib import Path

import redis

from history_rig import HistoryRig
from history_workers import Load, Witness, Worker, Workers
from ledger import Ledger, Verdict
from streams_rig import WorkerProcess
from tradetape.console.demo.hashes import find_hashes
from tradetape.streams.state.keys import Keys
from waiting import eventually

VENUE = "v"
"""What the load is of."""
CATCH_UP_S = 300.0


class Fleet:
    """The replicas. `engines` names what state is kept by, each with a group and Redis keys of its own."""

    def __init__(self, rig: HistoryRig, *, redis_url: str, folder: Path, engines: tuple[str, ...] = ("kafka",)) -> None:
        self.history: list[Worker] = []
        self.states: dict[str, list[WorkerProcess]] = {engine: [] for engine in engines}
        self.left: list[int] = []
        """What those ended with who were asked to leave."""
        self._rig = rig
        self._redis_url = redis_url
        self._folder = folder
        self._workers = Workers(rig, folder)
        self._made = 0

    def add_history(self) -> None:
        """One more."""
        self.history.append(self._workers.start(group="fleet"))

    def add_state(self, engine: str) -> None:
        """One more."""
        self._made += 1
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self._rig.kafka.bootstrap_servers, "REDIS_URL": self._redis_url,
            "TRADETAPE_TOPIC_PREFIX": self._rig.catalogue.prefix, "TRADETAPE_REDIS_PREFIX": self._redis_prefix(engine),
        }  # fmt: skip
        words = [
            "-m",
            "tradetape.console",
            "work",
            "state",
            "--engine",
            engine,
            "--group",
            f"{self._rig.catalogue.prefix}{engine}",
        ]
        log = self._folder / f"state-{engine}-{self._made}.log"
        self.states[engine].append(WorkerProcess(words, environment=environment, log=log))

    def drop_history(self, worker: Worker) -> None:
        """Ask one to leave once it is at work, and wait until it has."""
        self.history.remove(worker)
        await_begun(worker.process.pid)
        worker.process.terminate()
        self.left.append(worker.exit_code())

    def drop_state(self, engine: str, worker: WorkerProcess) -> None:
        """Ask one to leave once it is at work, and wait until it has."""
        self.states[engine].remove(worker)
        await_begun(worker.pid)
        self.left.append(worker.stop())

    def is_at_work(self) -> bool:
        """Whether all live; a sink that another one's claim ended is started again, as its supervisor would."""
        dead = [one.log for one in self.history if not one.is_at_work()]
        dead += [one.log for workers in self.states.values() for one in workers if one.has_ended]
        assert not dead, "\n".join(f"{one.name}: {one.read_text()[-2_000:]}" for one in dead)
        return True

    def await_progress(self, witness: Witness) -> None:
        """Wait until something is stored that is not stored yet."""
        reached = witness.stored()
        eventually("the history goes on", lambda: self.is_at_work() and witness.stored() > reached)

    def judge(self, load: Load, ledger: Ledger) -> Verdict:
        """Wait until all that is on the tape is in its place; what the ledger says then. Ends the load."""
        emitted, ends = load.end(), self._rig.ends()
        # First, for its keys expire.
        for engine in self.states:
            self._await_state(engine, set(load.newest.values()))
        eventually(
            "the history catches up", lambda: self.is_at_work() and self._rig.has_come_to(ends), timeout_s=CATCH_UP_S
        )
        verdict = self._rig.verdict(ledger)
        print(verdict)
        assert verdict.is_right, verdict
        assert verdict.counts["emitted"] == verdict.counts["stored"] == emitted
        return verdict

    def _await_state(self, engine: str, newest: set[str]) -> None:
        keys = Keys(self._redis_prefix(engine))
        with redis.Redis.from_url(self._redis_url) as client:

            def held() -> set[str]:
                return {one.fields["_id"] for one in find_hashes(client, keys, VENUE).hashes.values()}

            eventually(
                f"{engine} keeps each series' newest",
                lambda: self.is_at_work() and held() == newest,
                timeout_s=CATCH_UP_S,
            )

    def _redis_prefix(self, engine: str) -> str:
        return f"{self._rig.catalogue.prefix.rstrip('.')}-{engine}"

    def end(self) -> list[int]:
        """Ask all that are left to leave; what they ended with."""
        codes = [one.stop() for workers in self.states.values() for one in workers]
        return [*codes, *self._workers.end()]

    def kill(self) -> None:
        """For the way out of a test."""
        self._workers.kill()
        for workers in self.states.values():
            for one in workers:
                if not one.has_ended:
                    one.kill()


def await_begun(pid: int) -> None:
    """Until a worker is no longer loading its packages: it catches TERM then, as Linux tells."""
    status = Path(f"/proc/{pid}/status")

    def caught() -> int:
        line = next(one for one in status.read_text().splitlines() if one.startswith("SigCgt:"))
        return int(line.split()[1], 16)

    eventually("the worker begins", lambda: bool(caught() >> (signal.SIGTERM - 1) & 1))
