"""Gathers what Kafka, PostgreSQL and Redis hold of one run, each read by itself, and compares them."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence

import msgspec
import psycopg
import redis

from tradetape.console.demo import journal, rows
from tradetape.console.demo.hashes import expected_hashes, find_hashes
from tradetape.console.demo.journal import Step
from tradetape.console.demo.reconciliation import RecordLine, reconcile_record
from tradetape.console.demo.state_reconciliation import StateLine, reconcile_state
from tradetape.console.demo.topic_content import Place, TopicContent, contents_of, dead_letter_places
from tradetape.console.demo.trading import Trading, expected_ids
from tradetape.console.demo.trading_reconciliation import TradingLine, reconcile_trading
from tradetape.schemas import Codec
from tradetape.streams.state.keys import Keys
from tradetape.streams.topic_reader import Offsets, TopicReader

HISTORY_WORKER = "history"


class Proof(msgspec.Struct, frozen=True, kw_only=True):
    """What the three agree on, and where they differ."""

    records: tuple[RecordLine, ...]
    trading: TradingLine
    state: StateLine
    journal: tuple[Step, ...]
    """One closed trade, fill by fill; empty where none was closed."""

    @property
    def faults(self) -> tuple[str, ...]:
        """Every difference, as a sentence."""
        of_records = (fault for line in self.records for fault in line.faults)
        return (*of_records, *self.trading.faults, *self.state.faults)

    @property
    def differences(self) -> int:
        """How many there are; 0 means that nothing was lost, doubled or altered."""
        return sum(line.difference for line in self.records) + self.trading.difference + self.state.difference


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

    def prove(
        self,
        *,
        venue: str,
        emitted: Mapping[str, Sequence[str]],
        made: Collection[str],
        starts: Offsets,
        ends: Offsets,
    ) -> Proof:
        """Compare what one venue's bot emitted, and all that follows, with what lies on the tape, in the tables and in Redis.

        `made` names the records that somebody at work makes of what the bot emits.
        """
        contents, dead = self._read_tape(venue, starts, ends)
        trading = Trading.of(contents, self._codec.catalogue)
        expected = {
            **{content.event_type.record: content.derived for content in contents.values()},
            **self._following(trading, emitted.get("TradeSignal", ()), made),
        }
        expected |= {record: {*expected[record], *ids} for record, ids in emitted.items()}
        lines = tuple(
            reconcile_record(
                content,
                expected=expected.get(content.event_type.record, ()),
                rows=rows.event_ids(self._history, content.event_type, venue),
                dead_letters=dead.get(content.topic, set()),
            )
            for content in contents.values()
            if content.id_at or content.unreadable or expected.get(content.event_type.record)
        )
        hashes = expected_hashes(contents.values(), self._codec, self._keys)
        return Proof(
            records=lines,
            trading=reconcile_trading(trading, update_ids=self._content(contents, "IndicatorUpdate").ids, made=made),
            state=reconcile_state(hashes, find_hashes(self._state, self._keys, venue)),
            journal=tuple(journal.newest(self._history, venue)),
        )

    def _following(self, trading: Trading, signal_ids: Iterable[str], made: Collection[str]) -> dict[str, set[str]]:
        book = rows.paper_orders(self._history, trading.trades)
        following = expected_ids(trading, signal_ids, book, self._codec.catalogue)
        return {record: ids for record, ids in following.items() if record in made}

    def _content(self, contents: Mapping[str, TopicContent], record: str) -> TopicContent:
        return contents[self._codec.catalogue.topic_name(self._codec.catalogue.by_record(record))]

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
