"""From the outbox to Kafka: a thread that hands over, waits for the broker's word, and only then removes (I4).

It never gives a record up: what a topic cannot take holds that topic's lane or is parked, and both stay on the disk.

It works in slices and lets other threads run between them. Whoever emits gives the interpreter's lock away while SQLite
writes, and would get it back only after whatever the pump does at one go, or after the 5 ms that the interpreter grants.
"""

from __future__ import annotations

import math
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial

from confluent_kafka import KafkaError, KafkaException, Message

from tradetape.producers.client import Client, is_beyond_use
from tradetape.producers.connection import KafkaSettings, logger
from tradetape.producers.errors import OutboxError
from tradetape.producers.market import Fate
from tradetape.producers.outbox.lane import Failure, Lane
from tradetape.producers.outbox.store import OutboxStore, Stored

SLICE_RECORDS = 20
"""How many records are read and handed over, or removed, before other threads get a turn."""
TURN_S = 0.0001
"""How long such a turn is: a thread that waits for the interpreter's lock has it by then."""
ROUND_SLICES = 10
"""How many slices make a round; their reports come at one go, so they are few."""
ROUND_BYTES = 1_048_576
POLL_S, LONGEST_POLL_S = 0.005, 0.02
"""How long a record that comes while others are on their way may wait until the pump looks: twice as long each time while
nothing is reported, since each look takes the interpreter from whoever emits."""
IDLE_S = 0.5
REMOVAL_S = 0.05
"""How long what arrived may wait to be removed with what arrives meanwhile: a removal writes to the disk, and holds the lock
that `emit` needs. After a crash that much more comes twice."""
TROUBLE_S = 1.0
"""How long the pump leaves a disk alone that refused it."""
INPUT_GRACE_S = 2.0
"""How long an input waits to hear that it arrived as a market update, before it is sent a second time."""
HOUSEKEEPING_S = 0.1
"""Often: the longer the log is beyond its measure, the longer it takes to cut, and whoever emits just then waits for it."""


class Pump:
    """Sends what an outbox holds. `fate_of` tells what became of a market update, by event id."""

    def __init__(
        self,
        store: OutboxStore,
        settings: KafkaSettings,
        *,
        fate_of: Callable[[str], Fate],
        on_arrival: Callable[[str, str], None],
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`on_arrival` is called with the topic and the event id of each record that arrived. Raises SettingsError."""
        self.delivered = 0
        self._store = store
        self._settings = settings
        self._fate_of = fate_of
        self._on_arrival = on_arrival
        self._clock = clock
        self._lanes: dict[str, Lane] = {}
        self._unremoved: dict[str, list[Stored]] = {}
        """What arrived and is still in the outbox, by topic. A next round begins behind it."""
        self._removal_at = math.inf
        self._waiters = 0
        self._asked_since: dict[str, float] = {}
        self._housekeeping_at = 0.0
        self._poll_s = POLL_S
        self._client = self._connect()
        self._wake = threading.Event()
        self._stopping = threading.Event()
        self._progress = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="tradetape-outbox", daemon=True)
        self._thread.start()

    @property
    def client(self) -> Client:
        """The client that records go through."""
        return self._client

    def wake(self) -> None:
        """Something was added."""
        self._wake.set()

    def held(self) -> dict[str, str]:
        """Why nothing goes to a topic, by topic."""
        return {lane.topic: lane.held_by for lane in list(self._lanes.values()) if lane.held_by is not None}

    def wait_for(self, number: int, timeout_s: float) -> bool:
        """Wait until no record up to this number waits any more; False when some still do. Raises OutboxUnavailable."""
        deadline = self._clock() + timeout_s
        with self._awaited():
            while self._store.waits_up_to(number):
                left = deadline - self._clock()
                if left <= 0 or self._stopping.is_set():
                    return False
                with self._progress:
                    self._progress.wait(min(left, IDLE_S))
        return True

    @contextmanager
    def _awaited(self) -> Iterator[None]:
        """While somebody waits, each removal is made at once."""
        with self._progress:
            self._waiters += 1
        self._wake.set()
        try:
            yield
        finally:
            with self._progress:
                self._waiters -= 1

    def stop(self) -> None:
        """End the thread and give up what is on its way; it stays in the outbox."""
        self._stopping.set()
        self._wake.set()
        self._thread.join(timeout=TROUBLE_S + 1.0)
        self._client.purge()
        try:
            self._settle_all()
            self._remove_all()
        except OutboxError as error:
            logger.warning("OUTBOX [%s]", error)

    def _run(self) -> None:
        pause_s = 0.0
        while not self._stopping.is_set():
            try:
                pause_s = self._turn(pause_s)
            except OutboxError as error:
                logger.warning("OUTBOX [%s]", error)
                pause_s = TROUBLE_S
            except Exception:  # noqa: BLE001  # whatever it is, decisions must not stay behind for it
                logger.exception("PUMP [goes on after an error of its own]")
                pause_s = TROUBLE_S

    def _turn(self, pause_s: float) -> float:
        """Wait for so long at most, then do what there is to do; after how many seconds there may be more."""
        try:
            self._take_reports(pause_s)
            return self._step()
        except KafkaException as error:
            if not is_beyond_use(error):
                raise
            # Another one goes on from the oldest unreported record of each lane.
            logger.warning("CLIENT [%s; going on with another one]", error.args[0].str())
            self._client.purge()
            self._client = self._connect()
            return 0.0

    def _take_reports(self, pause_s: float) -> None:
        """Wait for reports while there are any to come, otherwise for a record, for so long."""
        if any(lane.is_busy for lane in self._lanes.values()):
            self._poll_s = POLL_S if self._client.poll(self._poll_s) else min(2 * self._poll_s, LONGEST_POLL_S)
        else:
            self._client.poll(0)
            self._wake.wait(pause_s)
        self._wake.clear()

    def _step(self) -> float:
        """Do what can be done now; after how many seconds there may be more."""
        self._settle_all()
        now_s = self._clock()
        if now_s >= self._housekeeping_at:
            self._housekeeping_at = now_s + HOUSEKEEPING_S
            self._store.fold_log()
        pause_s = max(min(IDLE_S, self._removal_at - now_s), 0.0)
        for topic in self._store.topics():
            lane = self._lanes.setdefault(topic, Lane(topic))
            if lane.may_send(now_s) and self._send_round(lane):
                pause_s = POLL_S
        return pause_s

    def _settle_all(self) -> None:
        for lane in self._lanes.values():
            settled = lane.settle(self._clock())
            if settled is None:
                continue
            self._removable(lane.topic, settled.arrived)
            if not settled.is_whole:
                # What is to go again lies among what arrived, not behind it.
                self._removal_at = -math.inf
            for record, failure in settled.refused:
                self._store.park(lane.topic, record, failure.text)
                logger.error("PARKED %s on %s [%s]", record.event_id, lane.topic, failure.text)
                self._tell_progress()
            if lane.held_by is not None:
                logger.warning("HELD %s [%s]", lane.topic, lane.held_by)
        if self._waiters or self._clock() >= self._removal_at:
            self._remove_all()

    def _removable(self, topic: str, arrived: list[Stored]) -> None:
        if not arrived:
            return
        unremoved = self._unremoved.setdefault(topic, [])
        unremoved += arrived
        due_s = -math.inf if len(unremoved) >= SLICE_RECORDS else self._clock() + REMOVAL_S
        self._removal_at = min(self._removal_at, due_s)

    def _remove_all(self) -> None:
        for topic in list(self._unremoved):
            self._remove(topic)
        self._removal_at = math.inf

    def _remove(self, topic: str) -> None:
        """Until the disk takes a removal that is due, there is no next round, or it might repeat the last one."""
        unremoved = self._unremoved[topic]
        while unremoved:
            self._store.remove(topic, unremoved[:SLICE_RECORDS])
            del unremoved[:SLICE_RECORDS]
            if unremoved:
                time.sleep(TURN_S)
        del self._unremoved[topic]
        self._tell_progress()

    def _tell_progress(self) -> None:
        with self._progress:
            self._progress.notify_all()

    def _send_round(self, lane: Lane) -> bool:
        """Hand the next records over, slice after slice; whether there is reason to look again soon."""
        unremoved = self._unremoved.get(lane.topic, ())
        if self._store.waiting(lane.topic) <= len(unremoved):
            return False
        first = last = max((one.number for one in unremoved), default=0)
        room_bytes = ROUND_BYTES
        for _ in range(ROUND_SLICES):
            waiting = self._store.oldest(lane.topic, after=last, limit=SLICE_RECORDS, max_bytes=room_bytes)
            if not waiting:
                break
            last = waiting[-1].number
            room_bytes -= sum(len(record.payload) for record in waiting)
            chosen = lane.round_of(waiting)
            if not self._send_slice(lane, chosen) or len(chosen) < SLICE_RECORDS or room_bytes <= 0:
                break
            time.sleep(TURN_S)
        return last > first

    def _send_slice(self, lane: Lane, records: list[Stored]) -> bool:
        """Hand these over; False where one of them, and all behind it, has to wait."""
        for record in records:
            if record.is_input:
                fate = self._fate(record)
                if fate is Fate.UNDERWAY:
                    return False
                if fate is Fate.ARRIVED:
                    self._removable(lane.topic, [record])
                    continue
            if not self._send(lane, record):
                return False
        return True

    def _fate(self, record: Stored) -> Fate:
        fate = self._fate_of(record.event_id)
        since = self._asked_since.setdefault(record.event_id, self._clock())
        if fate is Fate.UNDERWAY and self._clock() - since < INPUT_GRACE_S:
            return fate
        del self._asked_since[record.event_id]
        return Fate.LOST if fate is Fate.UNDERWAY else fate

    def _send(self, lane: Lane, record: Stored) -> bool:
        try:
            self._client.produce(
                lane.topic, record.payload, record.key,
                timestamp=record.timestamp_ms, on_delivery=partial(self._reported, lane, record),
            )  # fmt: skip
        except BufferError:
            return False
        except KafkaException as error:
            if is_beyond_use(error):
                raise
            lane.sent(record)
            lane.reported(record, Failure(error.args[0].name(), error.args[0].str()))
            return True
        lane.sent(record)
        return True

    def _reported(self, lane: Lane, record: Stored, error: KafkaError | None, _: Message) -> None:
        if error is None:
            lane.reported(record, None)
            self.delivered += 1
            self._client.answered()
            self._on_arrival(lane.topic, record.event_id)
        else:
            lane.reported(record, Failure(error.name(), error.str()))

    def _connect(self) -> Client:
        # A decision waits for nobody: its trade is all the later for it.
        # And none overtakes another: a round may travel as several batches.
        return Client("decision", self._settings, only_failures=False, is_gapless=True, linger_ms=0)
