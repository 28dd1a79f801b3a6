"""Decisions survive whatever dies (I4): bots under `kill -9` at random points, and a broker killed, stopped, restarted.

The ledger of what was emitted is kept here, outside of the bots' processes, and compared with the topic by a plain
consumer: every event whose `emit` returned is there, for each key and run in order, and repeats have one event id.
"""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import psutil
import pytest
from confluent_kafka import Consumer, Message, TopicPartition

from tradetape.console.local.kafka import Kafka
from tradetape.console.local.stack import LocalStack
from tradetape.console.topics import admin_client, apply
from tradetape.producers import Producer
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import CATALOGUE, Catalogue, Codec
from waiting import eventually

BOT = Path(__file__).parents[1] / "tooling" / "bot_process.py"
SOURCES = ("bot-a", "bot-b", "bot-c")
PARTITIONS = 4
DRAIN_S = 180.0


class Emitted(NamedTuple):
    """What a bot said of one event after `emit` had returned."""

    number: int
    event_id: str
    run_id: str
    seq: int


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

    def __init__(self, source: str, broker: Broker, prefix: str, folder: Path, *, events: int, pace_s: float) -> None:
        self.source = source
        self.ledger: list[Emitted] = []
        self.kills = 0
        self._events = events
        self._command = [sys.executable, str(BOT), broker.address, prefix, str(folder), source]
        self._pace_s = pace_s
        self._errors = folder / f"{source}.log"
        self.process = self._start()

    def _start(self) -> subprocess.Popen[str]:
        first = self.ledger[-1].number + 1 if self.ledger else 0
        command = [*self._command, str(first), str(self._events), str(self._pace_s)]
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
                if len(words) == 4 and line.endswith("\n"):
                    self.ledger.append(Emitted(int(words[0]), words[1], words[2], int(words[3])))

    def kill_and_restart(self) -> None:
        """SIGKILL wherever it is."""
        if self.is_done():
            return
        self.process.send_signal(signal.SIGKILL)
        self.process.wait(30)
        self._reader.join(30)
        self.kills += 1
        self.process = self._start()

    def is_done(self) -> bool:
        """Whether its last event is confirmed."""
        return bool(self.ledger) and self.ledger[-1].number == self._events - 1

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


def ill_treat(broker: Broker, bots: list[Bot], *, kills: int, rng: random.Random) -> None:
    """Kill each bot so many times at random moments, and the broker in between in each way."""
    blows = [bot.kill_and_restart for bot in bots for _ in range(kills)]
    rng.shuffle(blows)
    with ThreadPoolExecutor(1) as pool:
        suffering = pool.submit(broker.suffer)
        for blow in blows:
            time.sleep(rng.uniform(0.0, 1.2))
            blow()
        # What went wrong there is told here.
        suffering.result()


def on_the_topic(address: str, topic: str) -> list[Message]:
    consumer = Consumer({"bootstrap.servers": address, "group.id": "checker", "enable.auto.commit": False})
    try:
        places = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        total = sum(consumer.get_watermark_offsets(place, timeout=30)[1] for place in places)
        consumer.assign(places)
        found: list[Message] = []
        deadline = time.monotonic() + 60
        while len(found) < total:
            assert time.monotonic() < deadline
            found += consumer.consume(5_000, 0.5)
        return found
    finally:
        consumer.close()


def check(bots: list[Bot], messages: list[Message], catalogue: Catalogue, topic: str) -> None:
    """The ledger against the topic."""
    codec = Codec(catalogue)
    seen: dict[tuple[Any, ...], list[int]] = defaultdict(list)
    named: dict[tuple[str, int], str] = {}
    firsts: set[tuple[str, int]] = set()
    for message in messages:
        fields = codec.decode_fields(topic, message.value())
        place = (fields["producer_run_id"], fields["producer_seq"])
        assert named.setdefault(place, fields["event_id"]) == fields["event_id"], "a repeat is the same event"
        if place not in firsts:
            firsts.add(place)
            seen[message.key(), fields["producer_run_id"]].append(fields["producer_seq"])
    assert all(numbers == sorted(numbers) for numbers in seen.values()), "order for each key and run"
    on_topic = set(named.values())
    for bot in bots:
        confirmed = {one.event_id for one in bot.ledger}
        assert confirmed - on_topic == set(), f"{bot.source}: emitted and not on the topic"
        assert all(named[one.run_id, one.seq] == one.event_id for one in bot.ledger)
    assert len(on_topic) == sum(len({one.event_id for one in bot.ledger}) for bot in bots)


def suffer(broker: Broker, prefix: str, folder: Path, *, events: int, kills: int, pace_s: float, seed: int) -> None:
    catalogue = CATALOGUE.with_prefix(prefix)
    kafka = KafkaSettings(bootstrap_servers=broker.address)
    apply(admin_client(kafka), catalogue, partitions=PARTITIONS)
    print(f"seed {seed}")
    rng = random.Random(seed)
    bots = [Bot(source, broker, prefix, folder, events=events, pace_s=pace_s) for source in SOURCES]
    try:
        ill_treat(broker, bots, kills=kills, rng=rng)
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
        topic = f"{prefix}trade-signals"
        messages = on_the_topic(broker.address, topic)
        check(bots, messages, catalogue, topic)
        # Not empty talk: there were kills, and what they repeated was found to be the same.
        assert sum(bot.kills for bot in bots) >= len(SOURCES) * kills * 2 // 3
    finally:
        for bot in bots:
            bot.kill()


def test_no_decision_is_lost_whoever_is_killed(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1, 10**6)
    suffer(broker, topic_prefix, tmp_path, events=3_000, kills=3, pace_s=0.002, seed=seed)


@pytest.mark.long
@pytest.mark.timeout(1_800)
def test_no_decision_is_lost_of_two_hundred_thousand(broker: Broker, topic_prefix: str, tmp_path: Path) -> None:
    seed = int(os.environ.get("SEED", "0")) or random.randrange(1, 10**6)
    suffer(broker, topic_prefix, tmp_path, events=66_667, kills=20, pace_s=0.0, seed=seed)
