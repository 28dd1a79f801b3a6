"""Who may write a partition, and from where on: the claim and the fence.

Offsets stand in PostgreSQL beside the rows. A claim raises the partition's epoch, and every write ends with a statement
that finds its own epoch and the offset it left, or the whole transaction is undone. The previous owner's session is
ended: nothing else frees a writer that was paused in the middle of COPY, whose uncommitted keys would block ours.
"""

from __future__ import annotations

import sys
from collections import deque
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import psycopg

from tradetape.sinks.errors import Fenced, WentBack
from tradetape.sinks.history.queries import query
from tradetape.streams.errors import HistoryLost
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record

UNANSWERED_REMEMBERED = 16
"""How many sessions, whose attempt to retake was not answered, are known as ours."""


class Holding(NamedTuple):
    """A partition that this sink holds: its topic's UUID, our epoch, and the first offset not yet stored (None: no row yet)."""

    uuid: str
    epoch: int
    next_offset: int | None


class Offsets:
    """The partitions that one sink holds."""

    def __init__(self, sink: str, topic_uuid: Callable[[str], str]) -> None:
        self._sink = sink
        self._topic_uuid = topic_uuid
        self.held: dict[Partition, Holding] = {}
        self._unanswered: deque[dict[str, Any]] = deque(maxlen=UNANSWERED_REMEMBERED)

    def claim(self, connection: psycopg.Connection, partitions: Sequence[Partition]) -> dict[Partition, int | None]:
        """Take partitions from whoever held them; where to go on in each, None for the beginning."""
        uuids = {one: self._topic_uuid(one.topic) for one in partitions}
        owners = self._owners(connection, uuids)
        self._end(connection, owners)
        session = _session(connection)
        taken: dict[Partition, Holding] = {}
        with connection.transaction():
            for one, uuid in uuids.items():
                parameters = {
                    "sink": self._sink,
                    "topic": one.topic,
                    "uuid": uuid,
                    "partition": one.partition,
                    **session,
                }
                epoch, next_offset = _only(connection.execute(query("claim"), parameters).fetchone())
                taken[one] = Holding(uuid, epoch, next_offset)
        # Only now: epochs of a transaction that was undone would fence us off from our own partitions.
        self.held |= taken
        # One that was between two statements a moment ago may be in a transaction now.
        self._end(connection, owners)
        return {one: self.held[one].next_offset for one in partitions}

    def _owners(self, connection: psycopg.Connection, uuids: Mapping[Partition, str]) -> list[dict[str, Any]]:
        parameters = {
            "sink": self._sink,
            "uuids": list(uuids.values()),
            "partitions": [one.partition for one in uuids],
        }
        rows = connection.execute(query("owners"), parameters).fetchall()
        return [{"pid": pid, "backend_start": backend_start} for pid, backend_start in rows]

    def _end(self, connection: psycopg.Connection, owners: Iterable[Mapping[str, Any]]) -> None:
        for owner in owners:
            connection.execute(query("terminate"), owner)

    def retake(self, connection: psycopg.Connection) -> None:
        """Go on after a reconnect. Raises Fenced where another sink took over, WentBack where rows of ours are gone.

        Also settles a COMMIT that got no answer: next_offset says whether it happened.
        """
        session = _session(connection)
        tried = {
            "tried_pids": [one["pid"] for one in self._unanswered],
            "tried_starts": [one["backend_start"] for one in self._unanswered],
        }
        self._unanswered.append(session)
        taken: dict[Partition, Holding] = {}
        with connection.transaction():
            for one, holding in self.held.items():
                parameters = {
                    "sink": self._sink,
                    "uuid": holding.uuid,
                    "partition": one.partition,
                    "epoch": holding.epoch,
                    **session,
                    **tried,
                }
                row = connection.execute(query("retake"), parameters).fetchone()
                if row is None:
                    raise _not_ours(connection, one, parameters)
                epoch, next_offset = row
                if (next_offset or 0) < (holding.next_offset or 0):
                    raise WentBack(
                        f"{one.topic}[{one.partition}]: {holding.next_offset} was stored, the database knows {next_offset}"
                    )
                taken[one] = Holding(holding.uuid, epoch, next_offset)
        self.held |= taken
        self._unanswered.clear()

    def unstored(self, records: Sequence[Record]) -> list[Record]:
        """Those of the partitions held that are not stored yet."""
        starts: dict[tuple[str, int], int] = {place: one.next_offset or 0 for place, one in self.held.items()}
        return [one for one in records if one.offset >= starts.get((one.topic, one.partition), sys.maxsize)]

    def release(self, partitions: Iterable[Partition]) -> dict[Partition, Holding]:
        """Forget partitions that belong to somebody else now; how they were held."""
        return {one: self.held.pop(one) for one in partitions if one in self.held}

    def disown(self, connection: psycopg.Connection, released: Mapping[Partition, Holding]) -> None:
        """Say that nothing of this session can write to them any more: it lives on, for what else it holds."""
        parameters = {
            "sink": self._sink,
            "uuids": [one.uuid for one in released.values()],
            "partitions": [one.partition for one in released],
            "epochs": [one.epoch for one in released.values()],
        }
        connection.execute(query("release"), parameters)

    def check_topics(self) -> None:
        """Raises HistoryLost where a topic that we hold was made anew: offsets of the old one say nothing of the new one."""
        for topic, uuid in {place.topic: holding.uuid for place, holding in self.held.items()}.items():
            if self._topic_uuid(topic) != uuid:
                raise HistoryLost(f"{topic} was made anew; start again, and it is read from its beginning")

    def advance(self, connection: psycopg.Connection, ends: Mapping[Partition, int]) -> None:
        """The last statement of a write: move to `ends`, or raise Fenced, which undoes the transaction."""
        holdings = [self.held[one] for one in ends]
        parameters = {
            "sink": self._sink,
            "uuids": [one.uuid for one in holdings],
            "partitions": [one.partition for one in ends],
            "epochs": [one.epoch for one in holdings],
            "olds": [one.next_offset for one in holdings],
            "news": list(ends.values()),
        }
        moved = connection.execute(query("advance"), parameters).rowcount
        if moved != len(ends):
            raise Fenced(f"only {moved} of {len(ends)} partitions are still ours; another sink took over")

    def advanced(self, ends: Mapping[Partition, int]) -> None:
        """The write is committed."""
        for one, end in ends.items():
            self.held[one] = self.held[one]._replace(next_offset=end)


def _session(connection: psycopg.Connection) -> dict[str, Any]:
    pid, backend_start = _only(connection.execute(query("session")).fetchone())
    return {"pid": pid, "backend_start": backend_start}


def _only(row: tuple[Any, ...] | None) -> tuple[Any, ...]:
    assert row is not None
    return row


def _not_ours(connection: psycopg.Connection, one: Partition, parameters: Mapping[str, Any]) -> Fenced | WentBack:
    """Why a partition is not held any more. A claim raises the epoch, a crash or a restored backup lowers it."""
    row = connection.execute(query("epoch"), parameters).fetchone()
    known, held = row[0] if row else 0, parameters["epoch"]
    if known < held:
        return WentBack(f"{one.topic}[{one.partition}]: claim {held} was made, the database knows {known}")
    return Fenced(f"{one.topic}[{one.partition}] was taken over by another sink")
