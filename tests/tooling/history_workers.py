"""History workers as processes that a test kills, stops and starts; the load that they work under; a witness of theirs."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psutil
import psycopg

import failing_worker
from history_rig import HistoryRig
from ledger import Ledger
from tradetape.schemas import Action, Candle, Direction, IndicatorUpdate, MarketCondition, TradeSignal
from waiting import eventually

STEP_S = 0.02
EVENTS_PER_S = 1_500
START = datetime(2025, 5, 31, 23, 50, tzinfo=UTC)
SYMBOLS = tuple(f"COIN{number}USDT" for number in range(16))
ENTRY = str(Path(failing_worker.__file__))


class Worker:
    """One process of `tradetape work history`, started again when it was fenced off, as its supervisor would."""

    def __init__(self, rig: HistoryRig, log: Path, *, group: str, more: Mapping[str, str] | None = None) -> None:
        self.log = log
        self.starts = 0
        self._prepared = "", signal.SIGKILL
        self._failpoint = log.with_suffix(".failpoint")
        self._environment = {
            **os.environ,
            "KAFKA_BOOTSTRAP_SERVERS": rig.kafka.bootstrap_servers,
            "DATABASE_URL": rig.sink_dsn,
            "TRADETAPE_TOPIC_PREFIX": rig.catalogue.prefix,
            failing_worker.VARIABLE: str(self._failpoint),
            **(more or {}),
        }
        self._command = [sys.executable, ENTRY, "work", "history", "--group", group]
        self.process = self._start()

    def _start(self) -> subprocess.Popen[bytes]:
        self.starts += 1
        with self.log.open("ab") as output:
            return subprocess.Popen(self._command, env=self._environment, stdout=output, stderr=output)

    def is_at_work(self) -> bool:
        """Whether it lives. Two workers that claim at the same moment may end the one whose turn it is."""
        code = self.process.poll()
        if code == 1 and "another sink" in self.log.read_text().splitlines()[-1]:
            self.process = self._start()
            return True
        return code is None

    def restart(self) -> None:
        """What a supervisor does."""
        assert self.process.poll() is not None
        self.process = self._start()

    def arm(self, point: str, number: signal.Signals) -> None:
        """Have it send itself a signal the next time it comes to a point."""
        assert point in failing_worker.POINTS
        failing_worker.arm(self._failpoint, point, number)

    def prepare(self, point: str, number: signal.Signals) -> None:
        """Arm it, or, where it is "random", send the signal at once."""
        self._prepared = point, number
        if point == "random":
            self.send(number)
        else:
            self.arm(point, number)

    def struck(self, has_happened: bool) -> str:
        """Where the prepared signal met it; sends the signal where it never came to the point."""
        point, number = self._prepared
        self._failpoint.unlink(missing_ok=True)
        if not has_happened and not self.has_ended():
            self.send(number)
        return point if has_happened else "missed"

    def has_ended(self) -> bool:
        """Whether its process is gone."""
        return self.process.poll() is not None

    def is_stopped(self) -> bool:
        """Whether it stands still."""
        try:
            return psutil.Process(self.process.pid).status() == psutil.STATUS_STOPPED
        except psutil.NoSuchProcess:
            return False

    def send(self, number: signal.Signals) -> None:
        """Send it a signal."""
        self.process.send_signal(number)

    def exit_code(self) -> int:
        """What it ended with."""
        return self.process.wait(60)

    def kill(self) -> None:
        """For the way out of a test."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def wait_for(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for what it does; with its log where it does not."""
        try:
            eventually(what, lambda: condition() or not self.is_at_work())
            assert self.is_at_work()
        except AssertionError as error:
            raise AssertionError(f"{error}\n{self.log.read_text()[-3_000:]}") from error


class Workers:
    """Starts workers, each in a consumer group of its own unless told; kills what is left of them.

    In a group of its own a worker has its partitions at once, also while another one still holds them: a group would
    hide from the database most of what the fence is for.
    """

    def __init__(self, rig: HistoryRig, folder: Path) -> None:
        self.made: list[Worker] = []
        self._rig = rig
        self._folder = folder

    def start(self, *, group: str | None = None, more: Mapping[str, str] | None = None) -> Worker:
        """One more."""
        number = len(self.made)
        name = f"{self._rig.catalogue.prefix}{group or number}"
        self.made.append(Worker(self._rig, self._folder / f"{number}.log", group=name, more=more))
        return self.made[-1]

    def end(self) -> list[int]:
        """Ask all that are left to leave in order; what they ended with."""
        left = [one for one in self.made if not one.has_ended()]
        for one in left:
            # One that stands still would not hear it.
            one.send(signal.SIGCONT)
            one.send(signal.SIGTERM)
        try:
            return [one.exit_code() for one in left]
        finally:
            self.kill()

    def kill(self) -> None:
        """End them all."""
        for one in self.made:
            one.kill()


class Load:
    """Emits into three tables, at about so many events a second, until it is ended; keeps the ledger of them.

    With `rubbish_every` it also puts a record that nobody can read onto a topic, once in so many events; with
    `signal_every` as many of them are trade signals. The first event's time is `start`, each is `step` behind the last.
    """

    def __init__(
        self,
        rig: HistoryRig,
        ledger: Ledger,
        *,
        events_per_s: int = EVENTS_PER_S,
        rubbish_every: int | None = None,
        signal_every: int | None = None,
        start: datetime = START,
        step: timedelta = timedelta(milliseconds=50),
    ) -> None:
        self.newest: dict[tuple[str, str], str] = {}
        """The id of the newest event of each record and symbol: what current state holds in the end."""
        self._rig = rig
        self._ledger = ledger
        self._events_a_step = max(1, int(events_per_s * STEP_S))
        self._rubbish_every = rubbish_every
        self._signal_every = signal_every
        self._start = start
        self._step = step
        self._tape = rig.open_producer()
        self._over = threading.Event()
        self.count = 0
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def end(self) -> int:
        """Stop and deliver; how many events are on the tape."""
        self._over.set()
        self._thread.join(30)
        assert self._tape.flush(60)
        health = self._tape.health()
        assert health.delivered == health.emitted == self.count
        return self.count

    def close(self) -> None:
        """For the way out of a test."""
        self._over.set()
        self._thread.join(30)
        self._tape.close()

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due += STEP_S
            for _ in range(self._events_a_step):
                self._emit()
                if self._rubbish_every and self.count % self._rubbish_every == 0:
                    self._put_rubbish()

    def _emit(self) -> None:
        self.count += 1
        at, symbol = self._start + self.count * self._step, SYMBOLS[self.count % len(SYMBOLS)]
        event: Candle | IndicatorUpdate | MarketCondition | TradeSignal
        if self._signal_every and self.count % self._signal_every == 0:
            event = TradeSignal(
                strategy_id="load", venue="v", symbol=symbol, timeframe="1m", bar_close_time=at, action=Action.ENTER,
                direction=Direction.LONG, reference_price="1.5",
            )  # fmt: skip
        elif self.count % 3 == 0:
            event = MarketCondition(venue="v", symbol=symbol, scope="s", condition="c", event_time=at)
        elif self.count % 3 == 1:
            values = {"rsi_14": self.count % 100 + 0.5, "my_own": 1.0}
            event = IndicatorUpdate(venue="v", symbol=symbol, timeframe="1m", bar_close_time=at, values=values)
        else:
            price = f"{self.count}.{self.count % 1_000:03}"
            event = Candle(
                venue="v", symbol=symbol, timeframe="1m", open_time=at - timedelta(minutes=1), close_time=at,
                is_final=True, open=price, high=price, low=price, close=price, volume=1,
            )  # fmt: skip
        stamped = self._tape.emit(event)
        self._ledger.emitted(stamped)
        self.newest[type(stamped).__name__, symbol] = str(stamped.event_id)

    def _put_rubbish(self) -> None:
        value = b"\xff%d" % self.count
        event_type = self._rig.catalogue.by_class(MarketCondition)
        self._rig.put(self._rig.catalogue.topic_name(event_type), [(b"v:COIN0USDT", value)])
        self._ledger.rubbish[event_type.record][value] += 1


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

    def has_session_of(self, worker: Worker) -> bool:
        """Whether a worker's process has a session."""
        ports = [one.laddr.port for one in psutil.Process(worker.process.pid).net_connections("tcp")]
        query = "SELECT count(*) FROM pg_stat_activity WHERE client_port = ANY (%s) AND application_name = 'tradetape-history'"
        row = self._connection.execute(query, [ports]).fetchone()
        assert row is not None
        return bool(row[0])

    def sessions(self) -> set[tuple[int, datetime]]:
        """What tells the sessions of workers, which live now, from all others."""
        query = (
            "SELECT pid, backend_start FROM pg_stat_activity WHERE application_name = 'tradetape-history' "
            "AND datname = current_database()"
        )
        return {(pid, start) for pid, start in self._connection.execute(query).fetchall()}

    def _number(self, query: str) -> int:
        row = self._connection.execute(query.encode()).fetchone()
        assert row is not None
        return int(row[0])


def let_live(worker: Worker, witness: Witness, rng: random.Random, way: str) -> None:
    """Come to a random point of a worker's life: at its start, in a transaction, or anywhere in its work."""
    if way == "starting":
        time.sleep(rng.uniform(0, 1.0))
        return
    reached = witness.stored()
    worker.wait_for("the worker writes", lambda: witness.stored() > reached)
    if way == "writing":
        time.sleep(rng.uniform(0, 0.1))
        worker.wait_for("the worker is in a transaction", witness.is_writing)
    else:
        time.sleep(rng.uniform(0, 0.5))
