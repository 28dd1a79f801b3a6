"""Gathers what Kafka, PostgreSQL and Redis hold of one run, each read by itself, and compares them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import msgspec
import psycopg
import redis

from tradetape.console.demo import rows
from tradetape.console.demo.hashes import expected_hashes, find_hashes
from tradetape.console.demo.reconciliation import RecordLine, reconcile_record
from tradetape.console.demo.rows import Journal
from tradetape.console.demo.state_reconciliation import StateLine, reconcile_state
from tradetape.console.demo.topic_content import Place, TopicContent, contents_of, dead_letter_places
from tradetape.schemas import Codec
from tradetape.streams.state.keys import Keys
from tradetape.streams.topic_reader import Offsets, TopicReader

HISTORY_WORKER = "history"


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What the three agree on, and where they differ."""

    records: tuple[RecordLine, ...]
    state: StateLine
    journal: Journal | None

    @property
    def faults(self) -> tuple[str, ...]:
        """Every difference, as a sentence."""
        return (*(fault for line in self.records for fault in line.faults), *self.state.faults)

    @property
    def differences(self) -> int:
        """How many there are; 0 means that nothing was lost, doubled or altered."""
        return sum(line.difference for line in self.records) + self.state.difference


class Prover:
    """Reads the three services as a stranger would."""

    def __init__(
        self, *, codec: Codec, reader: TopicReader, history: psycopg.Connection, state: redis.Redis, keys: Keys
    ) -> None:
        self._codec = codec
        self._reader = reader
        self._history = history
        self._state = state
        self._keys = keys

    def prove(self, *, venue: str, emitted: Mapping[str, Sequence[str]], starts: Offsets, ends: Offsets) -> Proof:
        """Compare what one venue's bot emitted, by record, with what lies on the tape, in the tables and in Redis."""
        contents, dead = self._read_tape(venue, starts, ends)
        lines = tuple(
            reconcile_record(
                content,
                emitted=emitted.get(content.event_type.record, ()),
                rows=rows.event_ids(self._history, content.event_type, venue),
                dead_letters=dead.get(content.topic, set()),
            )
            for content in contents.values()
            if content.id_at or content.unreadable or emitted.get(content.event_type.record)
        )
        expected = expected_hashes(contents.values(), self._codec, self._keys)
        state = reconcile_state(expected, find_hashes(self._state, self._keys, venue))
        return Proof(records=lines, state=state, journal=rows.newest_signal(self._history, venue))

    def _read_tape(
        self, venue: str, starts: Offsets, ends: Offsets
    ) -> tuple[dict[str, TopicContent], Mapping[str, set[Place]]]:
        contents = contents_of(self._codec, venue)
        letters = []
        for record in self._reader.read(starts, ends):
            if record.topic == self._codec.catalogue.dead_letters_topic:
                letters.append(record)
            else:
                contents[record.topic].add(record)
        return contents, dead_letter_places(letters, worker=HISTORY_WORKER, venue=venue)
