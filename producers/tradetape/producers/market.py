"""Market updates on their way: straight to the client while it has room, else through the newest-wins buffer (I5).

Whoever emits takes the client's reports along, now and then. The client takes the interpreter's lock for each report by
itself, so a thread that took thousands of them beside a busy bot would keep it waiting for milliseconds.

The client takes few, so that what waits for a broker that is away waits where a newer one can replace it. Memory is
bounded by the client's queue, the buffer and the recent updates together. A decision may name an update that is on its
way or was dropped: `take_along` gives it to the outbox, `fate_of` says whether it arrived by itself meanwhile (I8).
"""

from __future__ import annotations

import threading
import time
from collections import Counter, OrderedDict
from collections.abc import Callable, Iterable
from enum import Enum

import msgspec
from confluent_kafka import KafkaError, KafkaException, Message

from tradetape.producers.client import Client, is_beyond_use
from tradetape.producers.connection import KafkaSettings, logger
from tradetape.producers.newest_wins import NewestWins, Update

CLIENT_RECORDS = 30_000
"""How many may be in the client's hands; those cannot be replaced by newer ones any more."""
RECENT_EVENTS = 8_192
"""How many updates back a decision may name its inputs and have them taken along."""
SLICE_RECORDS = 25
"""How many are handed over before whoever emits gets a turn."""
LINGER_MS = 1
"""A bot's events are few, and 5 ms would be most of their way to Redis."""
POLL_S = 0.02
BUSY_POLL_S = 0.001
"""How often there is a look at what waits; twice as long each time that nothing moved, up to the other."""
SERVED_EVERY = 16
"""After how many emits the caller takes what the client has to report,"""
SERVED_AT_MOST = 1_000
"""as long as that can be no more reports than a small part of a millisecond takes."""
WAIT_STEP_S = 0.002
TROUBLE_S = 1.0

OnDrop = Callable[[Update, str], None]


class Fate(Enum):
    """What became of a market update."""

    ARRIVED = "arrived"
    UNDERWAY = "underway"
    LOST = "lost"
    """It was dropped, it failed, or nothing is known of it."""


class Market:
    """The way of market updates. A thread of its own empties the buffer, and serves the client while nobody emits."""

    def __init__(self, settings: KafkaSettings, *, max_events: int, max_bytes: int, on_drop: OnDrop) -> None:
        """`on_drop` is called with each update that will not arrive, and the reason. Raises SettingsError."""
        self.dropped: Counter[str] = Counter()
        """By reason: overflow, closed, or librdkafka's name of an error."""
        self.delivered = 0
        """How many updates the broker has acknowledged, as far as the client has told."""
        self._settings = settings
        self._on_drop = on_drop
        self._buffer = NewestWins(max_events=max_events, max_bytes=max_bytes)
        # Reentrant: giving a client up makes it report, in the middle of what holds the lock.
        self._lock = threading.RLock()
        self._underway: OrderedDict[str, Update] = OrderedDict()
        """By event id, those that are not known to have arrived; some of them may have."""
        self._lost: OrderedDict[str, Update] = OrderedDict()
        self._taken: set[str] = set()
        """What decisions took along, and of it what arrived by itself."""
        self._arrived: set[str] = set()
        self._handed_over = 0
        self._room = 0
        """How many the client takes without being asked; none while it is given nothing."""
        self._failed = 0
        self.offered = 0
        """How many updates were accepted; after every SERVED_EVERY-th, `serve` is for whoever emitted it."""
        self._served_at = 0
        self._is_settling = False
        self._still_turns = 0
        self._unreported = 0
        self._is_broken = False
        self._given_up: list[Update] = []
        self.client = self._connect()
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="tradetape-market", daemon=True)
        self._thread.start()

    def offer(self, update: Update, *, may_drop: bool = True) -> bool:
        """Send or queue an update. Where there is no room, older ones are dropped for it, or it is refused (False)."""
        with self._lock:
            if not (may_drop or self._buffer.has_room_for(update)):
                return False
            self.offered += 1
            # Forgotten one by one: thousands at a time would take whoever emits just then a millisecond.
            self._underway[update.event_id] = update
            if len(self._underway) > RECENT_EVENTS:
                self._underway.popitem(last=False)
            if self._buffer.bytes == 0 and (self._room > 0 or self._finds_room()) and self._hand_over(update):
                return True
            for dropped in self._buffer.put(update):
                self._drop(dropped, "overflow")
            return True

    def serve(self) -> None:
        """Take what the client has to report, if it is not too much. For whoever emits, outside of its own lock."""
        if self.client.unreported() <= SERVED_AT_MOST:
            self._served_at = self.offered
            self._serve()

    def fate_of(self, event_id: str) -> Fate:
        """What became of an update that was taken along; who asks of one on its way will soon be told."""
        with self._lock:
            if event_id in self._arrived:
                return Fate.ARRIVED
            if event_id in self._lost or event_id not in self._underway:
                return Fate.LOST
            self._is_settling, self._room = True, 0
            return Fate.UNDERWAY

    def take_along(self, event_ids: Iterable[str]) -> list[Update]:
        """Those of the recent updates that are not known to have arrived, and that no decision has taken along yet.

        They are taken now: the outbox sends them, unless they arrive by themselves before.
        """
        with self._lock:
            found = [
                update
                for one in event_ids
                if one not in self._taken and (update := self._lost.get(one) or self._underway.get(one)) is not None
            ]
            if len(self._taken) > RECENT_EVENTS:
                # Only those still on their way matter; a decision that names another takes it along once more.
                self._taken &= self._underway.keys()
                self._arrived.clear()
            self._taken.update(one.event_id for one in found)
            return found

    def give_back(self, updates: Iterable[Update]) -> None:
        """The decision that took them along was not accepted."""
        with self._lock:
            self._taken.difference_update(one.event_id for one in updates)

    def queued(self) -> int:
        """How many updates wait or are on their way."""
        with self._lock:
            # The client's count holds its own errors too.
            on_the_way = min(self.client.unreported(), self._handed_over - self._failed - self.delivered)
            return len(self._buffer) + max(on_the_way, 0)

    def wait_empty(self, timeout_s: float) -> bool:
        """Wait until nothing waits or is on its way; False when something still does."""
        deadline = time.monotonic() + timeout_s
        while self.queued():
            if time.monotonic() >= deadline or self._stopping.is_set():
                return False
            self._serve()
            time.sleep(WAIT_STEP_S)
        return True

    def stop(self) -> None:
        """End the thread and give up what waits or is on its way; it is counted."""
        self._stopping.set()
        self._thread.join(timeout=1.0)
        # Nothing is handed to another client any more.
        self._is_broken = False
        self.client.purge()
        self._count_delivered()
        with self._lock:
            while self._buffer:
                self._drop(self._buffer.pop_first(), "closed")

    def _run(self) -> None:
        while not self._stopping.is_set():
            try:
                self._turn()
            except Exception:  # noqa: BLE001  # whatever it is, the next update must not stay behind for it
                logger.exception("MARKET [goes on after an error of its own]")
                self._stopping.wait(TROUBLE_S)

    def _turn(self) -> None:
        served_at = self._served_at
        self._stopping.wait(self._pause_s())
        if self._served_at == served_at:
            self._serve()
        if self._is_broken:
            self._replace_client()
        with self._lock:
            self._settle()
            has_moved = self._empty_a_slice()
        unreported = self.client.unreported()
        self._still_turns = 0 if has_moved or unreported != self._unreported else self._still_turns + 1
        self._unreported = unreported

    def _pause_s(self) -> float:
        if not (self._buffer or self._is_settling):
            self._still_turns = 0
            return POLL_S
        return min(BUSY_POLL_S * 2.0 ** min(self._still_turns, 10), POLL_S)

    def _serve(self) -> None:
        try:
            self.client.poll(0)
        except KafkaException as error:
            if not is_beyond_use(error):
                raise
            self._broke(error)
        self._count_delivered()

    def _broke(self, error: KafkaException) -> None:
        """The client sends nothing any more. It is replaced later: giving it up takes time, and this may be who emits."""
        logger.warning("CLIENT [%s; going on with another one]", error.args[0].str())
        with self._lock:
            self._is_broken, self._room = True, 0

    def _count_delivered(self) -> None:
        """What was handed over and neither failed nor waits; a report for each would slow `emit` down.

        The client's count holds its own errors as well until they are served, so this one may lag and never leads.
        """
        with self._lock:
            arrived = self._handed_over - self._failed - self.client.unreported()
        if arrived > self.delivered:
            self.delivered = arrived
            self.client.answered()

    def _settle(self) -> None:
        """When the client holds nothing, all that it was given has arrived or is known to have failed."""
        if self.client.unreported() == 0:
            if self._underway and not self._buffer:
                self._arrived |= self._taken & self._underway.keys()
                self._underway.clear()
            self._is_settling = False

    def _empty_a_slice(self) -> bool:
        """Hand the next over; whether there was one that could be."""
        for number in range(SLICE_RECORDS):
            first = self._buffer.first()
            if first is None or not (self._room > 0 or self._finds_room()) or not self._hand_over(first):
                return number > 0
            self._buffer.pop_first()
        return True

    def _finds_room(self) -> bool:
        if self._is_settling or self._is_broken:
            return False
        self._room = CLIENT_RECORDS - self.client.unreported()
        return self._room > 0

    def _hand_over(self, update: Update) -> bool:
        """Give it to the client, or to nobody where its topic takes none; False when it has to wait."""
        try:
            self.client.produce(
                update.topic, update.payload, update.key,
                timestamp=update.timestamp_ms, on_delivery=_Underway(self, update),
            )  # fmt: skip
        except BufferError:
            return False
        except KafkaException as error:
            if not is_beyond_use(error):
                self._drop(update, error.args[0].name())
                return True
            self._broke(error)
            return False
        self._handed_over += 1
        self._room -= 1
        return True

    def failed(self, update: Update, error: KafkaError) -> None:
        """The client gave an update up, and reports it."""
        with self._lock:
            self._failed += 1
            if self._is_broken:
                self._given_up.append(update)
            else:
                self._drop(update, "closed" if self._stopping.is_set() else error.name())

    def _drop(self, update: Update, reason: str) -> None:
        self.dropped[reason] += 1
        self._underway.pop(update.event_id, None)
        self._lost[update.event_id] = update
        if len(self._lost) > RECENT_EVENTS:
            self._lost.popitem(last=False)
        self._on_drop(update, reason)

    def _replace_client(self) -> None:
        """A client with a fatal error sends no more; another one begins with what that one could not report."""
        self.client.purge()
        with self._lock:
            self.client, self._is_broken = self._connect(), False
            again, self._given_up = self._given_up, []
            for update in again:
                if not self._hand_over(update):
                    self._drop(update, "overflow")

    def _connect(self) -> Client:
        return Client("market", self._settings, only_failures=True, is_gapless=False, linger_ms=LINGER_MS)


class _Underway(msgspec.Struct, frozen=True, gc=False):
    """The report of one update; a `partial` takes three times as long to make, and the host's garbage collector visits it."""

    market: Market
    update: Update

    def __call__(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self.market.failed(self.update, error)
