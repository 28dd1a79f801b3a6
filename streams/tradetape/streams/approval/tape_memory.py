"""The memory of approval as the tape has it: how a lost one is rebuilt, and how one that may be forgotten is looked up.

Trades, closes and dispatches are read whole, once; of the answers those of the days for which Redis keeps them.
"""

from __future__ import annotations

import logging
from collections.abc import Collection, Iterator

from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import (
    Catalogue,
    Codec,
    DecodeError,
    RunMode,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
)
from tradetape.streams.approval.answering import STAGE
from tradetape.streams.approval.book import Book
from tradetape.streams.approval.memory import Memory, Recalled
from tradetape.streams.effects import Output
from tradetape.streams.processor import Partition
from tradetape.streams.reading_turn import ReadingTurn
from tradetape.streams.record import Record
from tradetape.streams.topic_reader import TopicReader

logger = logging.getLogger("tradetape.streams")

LEARN_ANSWERS = 500
_READ = (SignalDecision, Trade, TradeDispatch, TradeClosed)
"""In this order, so that an end is read no sooner than what it ends."""


class TapeMemory:
    """Reads what approval said before, and what became of it, from topics of one run mode. Used by one thread."""

    def __init__(self, *, kafka: KafkaSettings, codec: Codec, run_mode: RunMode) -> None:
        self._codec = codec
        self._catalogue: Catalogue = codec.catalogue
        self._run_mode = run_mode
        self._reader = TopicReader(kafka)

    def close(self) -> None:
        """Close the connection."""
        self._reader.close()

    def first_decisions(self, signal_ids: Collection[str], since_ms: int) -> dict[str, Output]:
        """The first decision on each of the signals that has one, emitted at or after a time: the one that holds.

        Raises BrokersUnreachable, TopicMissing.
        """
        wanted, found = set(signal_ids), dict[str, Output]()
        partitions = self.partitions(SignalDecision)
        starts = self._reader.offsets_at(partitions, since_ms)
        for record in self._reader.read(starts, self._reader.ends(partitions)):
            event = self.event(record)
            if isinstance(event, SignalDecision) and event.signal_id in wanted:
                found.setdefault(event.signal_id, output_of(record))
        return found

    def partitions(self, event_class: type) -> list[Partition]:
        """The partitions of a topic. Raises TopicMissing, BrokersUnreachable."""
        return self._reader.partitions_of(self._catalogue.topic_name(self._catalogue.by_class(event_class)))

    def begins(self, event_class: type) -> dict[Partition, int]:
        """Where a topic begins."""
        return self._reader.begins(self.partitions(event_class))

    def ends(self, event_class: type) -> dict[Partition, int]:
        """Where a topic ends now."""
        return self._reader.ends(self.partitions(event_class))

    def read(self, starts: dict[Partition, int]) -> Iterator[Record]:
        """What came since; `starts` is moved there once all of it was given."""
        ends = self._reader.ends(list(starts))
        yield from self._reader.read(dict(starts), ends)
        starts.update(ends)

    def event(self, record: Record) -> SignalDecision | Trade | TradeDispatch | TradeClosed | None:
        """The event of a record; None for one that is of another mode, replayed, of another stage or unreadable."""
        if record.is_replayed:
            return None
        try:
            event = self._codec.decode(record.topic, record.value)
        except DecodeError as error:
            logger.warning("passed over %s: %s", record.place, error, extra={"action": "rebuild"})
            return None
        if event.run_mode != self._run_mode or not isinstance(event, _READ):
            return None
        return event if not isinstance(event, SignalDecision) or event.stage == STAGE else None


class Rebuilding:
    """One reading of the tape into one memory, which can be continued until nobody writes in between."""

    def __init__(self, tape: TapeMemory, memory: Memory, *, since_ms: int, turn: ReadingTurn) -> None:
        self.book = Book()
        self._turn = turn
        self._has_news = False
        self._tape = tape
        self._memory = memory
        self._since_ms = since_ms
        self._memory_identity: tuple[str, str, str] | None = None
        self._places = [tape.begins(event_class) for event_class in _READ]
        self._decisions: dict[str, Output] = {}
        self._trades: dict[str, Output] = {}
        self._refused: set[int] = set()
        """Hashes of refused signals: a later decision that passes one is void. Some 60 MB for a million."""

    def is_for(self, recalled: Recalled) -> bool:
        """Whether this memory holds the answers that were read so far; the first one that it is asked about does."""
        self._memory_identity = self._memory_identity or recalled.identity
        return self._memory_identity == recalled.identity

    def begun(self, generation: str, recalled: Recalled) -> None:
        """The memory that was lost has become a new one."""
        self._memory_identity = recalled._replace(is_valid=True, generation=generation).identity

    def go_on(self) -> bool:
        """Read to the present end; whether anything was new since that was last reached.

        Raises StillReading, to be called again, BrokersUnreachable, HistoryLost, StateUnavailable.
        """
        for place in self._places:
            for record in self._tape.read(place):
                self._has_news = True
                self._note(record)
                place[Partition(record.topic, record.partition)] = record.offset + 1
                self._turn.check(record.topic)
        self._learn()
        had_news, self._has_news = self._has_news, False
        return had_news

    def _note(self, record: Record) -> None:
        event = self._tape.event(record)
        if isinstance(event, SignalDecision):
            self._decided(event)
            self._answer(self._decisions, event.signal_id, record)
        elif isinstance(event, Trade):
            self.book.approved(event)
            self._answer(self._trades, event.signal_id, record)
        elif isinstance(event, TradeDispatch):
            self.book.dispatched(event)
        elif isinstance(event, TradeClosed):
            self.book.closed(event)

    def _decided(self, decision: SignalDecision) -> None:
        """The first decision on a signal holds."""
        number = hash(decision.signal_id)
        if decision.trade_id is None:
            self._refused.add(number)
        elif number not in self._refused:
            self.book.decided(decision)

    def _answer(self, answers: dict[str, Output], signal_id: str, record: Record) -> None:
        if record.timestamp_ms >= self._since_ms:
            answers.setdefault(signal_id, output_of(record))
            if len(answers) >= LEARN_ANSWERS:
                self._learn()

    def _learn(self) -> None:
        if self._decisions or self._trades:
            self._memory.learn(self._decisions, self._trades)
            self._decisions, self._trades = {}, {}


def output_of(record: Record) -> Output:
    """What was sent, of what arrived."""
    return Output(record.topic, record.key or b"", record.value or b"", record.timestamp_ms)
