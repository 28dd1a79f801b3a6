"""Decisions survive whatever dies (I4): bots under `kill -9` at random points, and a broker killed, stopped, restarted.

The ledger of what was emitted is kept here, outside of the bots' processes, and held against the topic: every event whose
`emit` returned is there, as it was returned, for each key and run in order, and repeats say the same.
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

import psutil
import pytest

from evidence import TapeEvidence
from ledger import Ledger, Said
from tradetape.console.local.kafka import Kafka
from tradetape.console.local.stack import LocalStack
from tradetape.console.topics import admin_client, apply
from tradetape.producers import Producer
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import CATALOGUE
from waiting import eventually

pytestmark = pytest.mark.local

BOT = Path(__file__).parents[1] / "tooling" / "bot_process.py"
SOURCES = ("bot-a", "bot-b", "bot-c")
DRAIN_S = 180.0


class Broker:
    """A Kafka of the test's own, to be ill-treated."""

    def __init__(self, home: Path) -> None:
        self._stack = LocalStack(home, fixed_ports=False)
        self._kafka = next(one for one in self._stack.services if isinstance(one, Kafka))
        self._stack.places.make()
        self.address = f"127.0.0.1:{self._kafka.up()}"

    def suffer(self) -> None:
        """Be killed and come back, hang for a while, and be killed again."""
        self.kill_and_restart(2.0)
        time.sleep(0.5)
        self.pause(3.0)
        time.sleep(0.5)
        self.kill_and_restart(0.0)

    def kill_and_restart(self, away_s: float) -> None:
        """SIGKILL, and a new process on the same port and data after a while."""
        self._process().kill()
        time.sleep(away_s)
        self._kafka.up()

    def pause(self, for_s: float) -> None:
        """SIGSTOP: connections stand, and nothing answers."""
        process = self._process()
        process.suspend()
        try:
            time.sleep(for_s)
        finally:
            process.resume()

    def down(self) -> None:
        """Stop it and remove its data."""
        self._stack.down(wipe=True)

    def _process(self) -> psutil.Process:
        found = self._kafka.running()
        assert found is not None, "the broker is down"
        return found[0]


@pytest.fixture
def broker() -> Iterator[Broker]:
    with tempfile.TemporaryDirectory(prefix="tradetape-broker-") as home:
        made = Broker(Path(home))
        try:
            yield made
        finally:
            made.down()


class Bot:
    """One source's process, started again from the first event that it has not confirmed, whenever it was killed."""

    def __init__(
        self, source: str, broker: Broker, prefix: str, folder: Path, ledger: Ledger, *, events: int, pace_s: float
    ) -> None:
        self.kills = 0
        self._said = ledger.said["TradeSignal"]
        self._next = 0
        self._events = events
        self._command = [sys.executable, str(BOT), broker.address, prefix, str(folder), source]
        self._pace_s = pace_s
        self._errors = folder / f"{source}.log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        command = [*self._command, str(self._next), str(self._events), str(self._pace_s)]
        with self._errors.open("ab") as errors:
            process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=errors, text=True)
        self._reader = threading.Thread(target=self._read, args=(process,))
        self._reader.start()
        return process

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        with process.stdout as lines:
            for line in lines:
                words = line.split()
                # A line that the kill cut off says nothing.
                if line.endswith("\n"):
                    number, event_id, run_id, seq, digest = words
                    self._said[run_id, int(seq)] = Said(event_id, bytes.fromhex(digest))
                    self._next = int(number) + 1

    def suffer(self, blows: list[int]) -> None:
        """Be killed and started again each time that it has come so far."""
        for blow in blows:
            eventually(f"event {blow} is emitted", partial(self._has_come_to, blow), timeout_s=DRAIN_S)
            self._kill_and_restart()

    def _has_come_to(self, number: int) -> bool:
        return self._next >= number

    def _kill_and_restart(self) -> None:
        if self.is_done():
            return
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self._reader.join(30)
        self.kills += 1
        self.process = self._start()

    def is_done(self) -> bool:
        """Whether its last event is confirmed."""
        return self._next == self._events

    def end(self) -> None:
        """Wait until it has closed; nothing may be on its stderr."""
        assert self.process.wait(60) == 0
        self._reader.join(30)
        assert self._errors.read_text() == ""

    def kill(self) -> None:
        """For the way out of a test that failed."""
        if self.process.poll() is None:
            self.process.kill()
            self.process.wait(30)


def ill_treat(broker: Broker, bots: list[Bot], *, events: int, kills: int, rng: random.Random) -> None:
    """Kill each bot so many times at random moments, and the broker in between in each way."""
    # By what a bot has done, not by time: however fast the machine is, it is killed on the way.
    blows = [sorted(rng.randrange(events * 2 // 3) for _ in range(kills)) for _ in bots]
    with ThreadPoolExecutor(1 + len(bots)) as pool:
        suffering = [
            pool.submit(broker.suffer),
            *(pool.submit(bot.suffer, of) for bot, of in zip(bots, blows, strict=True)),
        ]
        for one in suffering:
            # What went wrong there is told here.
            one.result()


def suffer(broker: Broker, prefix: str, folder: Path, *, events: int, kills: int, pace_s: float) -> None:
    ledger, catalogue = Ledger(), CATALOGUE.with_prefix(prefix)
    kafka = KafkaSettings(bootstrap_servers=broker.address)
    apply(admin_client(kafka), catalogue)
    bots = [Bot(source, broker, prefix, folder, ledger, events=events, pace_s=pace_s) for source in SOURCES]
    try:
        ill_treat(broker, bots, events=events, kills=kills, rng=ledger.rng)
        eventually("every event is emitted", lambda: all(bot.is_done() for bot in bots), timeout_s=DRAIN_S)
        for bot in bots:
            bot.end()
        for source in SOURCES:
            # The source's next producer sends what the last one had to leave behind.
            with Producer(
                bootstrap_servers=broker.address, source=source, catalogue=catalogue, outbox_dir=folder
            ) as successor:
                assert successor.flush(DRAIN_S)
                assert successor.health().outbox.parked == 0
        verdict = TapeEvidence(kafka, catalogue).verdict(ledger)
        print(verdict)
        assert verdict.is_right, verdict
        # Not empty talk: there were kills, and what they repeated was found to be the same.
        assert verdict.counts["emitted"] >= len(SOURCES) * events
        assert [bot.kills for bot in bots] == [kills] * len(SOURCES)
    finally:
        for bot in bots:
            bot.kill()


def test_no_decision_is_lost_whoever_is_killed(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    suffer(broker, topic_prefix, tmp_path, events=3_000, kills=3, pace_s=0.002)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_no_decision_is_lost_of_two_hundred_thousand(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    suffer(broker, topic_prefix, tmp_path, events=66_667, kills=20, pace_s=0.0)
