"""As much of a Kafka broker as a topic needs that was made a moment ago: its partitions have no leader yet, and then have.

It coordinates groups as well, until it is said to do so no longer.

It speaks the protocol of Kafka 0.11 (https://kafka.apache.org/protocol), the oldest that knows idempotent producers, and
takes batches by Kafka's rule: any as the first of a producer, then only the one that is next.
"""

from __future__ import annotations

import select
import socketserver
import struct
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import cast

TOPIC = "scripted"
LED, LEADERLESS = 0, 1
"""Its partitions: one whose leader metadata names from the start, and one that may have to wait for its leader."""
PRODUCE, LIST_OFFSETS, METADATA, OFFSET_FETCH, FIND_COORDINATOR, API_VERSIONS, INIT_PRODUCER_ID = 0, 2, 3, 9, 10, 18, 22
VERSIONS = {
    PRODUCE: (3, 3), 1: (4, 4), LIST_OFFSETS: (1, 1), METADATA: (0, 2), OFFSET_FETCH: (1, 1), FIND_COORDINATOR: (0, 0),
    API_VERSIONS: (0, 0), INIT_PRODUCER_ID: (0, 0),
}  # fmt: skip
"""Which versions of which request it knows; those of fetches (1) are named only because librdkafka asks for them."""
NONE, LEADER_NOT_AVAILABLE, NOT_LEADER, UNSUPPORTED_VERSION, OUT_OF_ORDER = 0, 5, 6, 35, 45
NOBODY = -1
NOBODY_LISTENS = 1
"""A port on which no broker is."""
END, COMMITTED = 12, 7
"""Where each partition ends, and where each group is in it."""
PATIENCE_S = 0.5
"""How long it waits for a second batch before it answers the first."""
PRODUCER_ID, NODE, AWAY = 1, 1, 2
SEQUENCE_AT = 53
"""Where a batch has the number of its first record, and behind it the count of them."""


class ScriptedBroker(socketserver.ThreadingTCPServer):
    """Refuses the first batch for want of a leader, has one from then on, and keeps count of what it stored."""

    allow_reuse_address = daemon_threads = True

    def __init__(self, leaderless_answers: int, hang_ups: int) -> None:
        super().__init__(("127.0.0.1", 0), _Connection)
        self.leader_is_away = False
        """Whether metadata names another broker as the leader, to which nobody can connect."""
        self.hang_ups = hang_ups
        """How many questions for offsets are still answered by the end of the connection."""
        self.leaderless_answers = leaderless_answers
        """How many answers about the topic's metadata still name no leader of the partition LEADERLESS."""
        self.coordinates = True
        """Whether it answers for groups; otherwise such a question ends the connection."""
        self.stored = 0
        self.has_been_asked = threading.Event()
        """Whether a batch has come."""
        self._has_leader = False
        self._next: int | None = None

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.server_address[1]}"

    def take(self, sequence: int, count: int) -> int:
        """Store a batch if it may be; the error code."""
        if not self._has_leader:
            self._has_leader = True
            return NOT_LEADER
        if self._next not in (None, sequence):
            return OUT_OF_ORDER
        self._next = sequence + count
        self.stored += count
        return NONE


class _Connection(socketserver.StreamRequestHandler):
    def handle(self) -> None:
        while head := self.rfile.read(4):
            request = self.rfile.read(*struct.unpack(">i", head))
            key, version, correlation, name_length = struct.unpack_from(">hhih", request)
            if self._hangs_up(key):
                return
            answer = struct.pack(">i", correlation) + self._answer(key, version, request[10 + max(name_length, 0) :])
            self.wfile.write(struct.pack(">i", len(answer)) + answer)

    def _hangs_up(self, key: int) -> bool:
        broker = cast("ScriptedBroker", self.server)
        if key == LIST_OFFSETS:
            broker.hang_ups -= 1
            return broker.hang_ups >= 0
        return key in (FIND_COORDINATOR, OFFSET_FETCH) and not broker.coordinates

    def _answer(self, key: int, version: int, body: bytes) -> bytes:
        broker = cast("ScriptedBroker", self.server)
        low, high = VERSIONS[key]
        if key == API_VERSIONS:
            known = b"".join(struct.pack(">hhh", one, *span) for one, span in VERSIONS.items())
            error = NONE if low <= version <= high else UNSUPPORTED_VERSION
            return struct.pack(">hi", error, len(VERSIONS)) + known
        assert low <= version <= high, (key, version)
        if key == METADATA:
            return _metadata(broker)
        if key == LIST_OFFSETS:
            partitions = [number for number, _ in struct.iter_unpack(">iq", _behind_topic(body))]
            return _of_topic([struct.pack(">ihqq", one, NONE, -1, END) for one in partitions])
        if key == FIND_COORDINATOR:
            return struct.pack(">hi", NONE, NODE) + _host(broker)
        if key == OFFSET_FETCH:
            partitions = [number for (number,) in struct.iter_unpack(">i", _behind_topic(body))]
            return _of_topic(
                [struct.pack(">iq", one, COMMITTED) + _text("") + struct.pack(">h", NONE) for one in partitions]
            )
        if key == INIT_PRODUCER_ID:
            return struct.pack(">ihqh", 0, NONE, PRODUCER_ID, 0)
        batch = body[body.index(TOPIC.encode()) + len(TOPIC) + 12 :]
        if not broker.has_been_asked.is_set():
            broker.has_been_asked.set()
            select.select([self.connection], [], [], PATIENCE_S)
        error = broker.take(*struct.unpack_from(">ii", batch, SEQUENCE_AT))
        return _of_topic([struct.pack(">ihqq", LED, error, broker.stored, -1)]) + struct.pack(">i", 0)


def _behind_topic(body: bytes) -> bytes:
    """What a request asks of each of the topic's partitions."""
    return body[body.index(TOPIC.encode()) + len(TOPIC) + 4 :]


def _of_topic(places: Sequence[bytes]) -> bytes:
    """An answer about partitions of the topic."""
    return struct.pack(">i", 1) + _text(TOPIC) + struct.pack(">i", len(places)) + b"".join(places)


def _host(broker: ScriptedBroker) -> bytes:
    return _text("127.0.0.1") + struct.pack(">i", broker.server_address[1])


def _metadata(broker: ScriptedBroker) -> bytes:
    away = struct.pack(">i", AWAY) + _text("127.0.0.1") + struct.pack(">ih", NOBODY_LISTENS, -1)
    brokers = struct.pack(">ii", 2, NODE) + _host(broker) + struct.pack(">h", -1) + away
    leads = AWAY if broker.leader_is_away else NODE
    is_led = broker.leaderless_answers <= 0
    broker.leaderless_answers -= 1
    led = struct.pack(">hiiiiii", NONE, LED, leads, 1, NODE, 1, NODE)
    error, leader = (NONE, leads) if is_led else (LEADER_NOT_AVAILABLE, NOBODY)
    other = struct.pack(">hiiiiii", error, LEADERLESS, leader, 1, NODE, 1, NODE)
    topic = struct.pack(">h", NONE) + _text(TOPIC) + struct.pack(">bi", 0, 2) + led + other
    return brokers + struct.pack(">hii", -1, NODE, 1) + topic


def _text(value: str) -> bytes:
    return struct.pack(">h", len(value)) + value.encode()


@contextmanager
def scripted_broker(*, leaderless_answers: int = 0, hang_ups: int = 0) -> Iterator[ScriptedBroker]:
    """One that listens for the length of a block."""
    with ScriptedBroker(leaderless_answers, hang_ups) as broker:
        serving = threading.Thread(target=broker.serve_forever, args=(0.05,), daemon=True)
        serving.start()
        try:
            yield broker
        finally:
            broker.shutdown()
            serving.join()
