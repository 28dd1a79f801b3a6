"""Folds trades, dispatches and fills into closed trades: one TradeClosed for each position, always under the same id.

Its memory is what lies on the tape, and nothing else. At the first record of a partition number all topics of that
number are read, from their beginning to their end, and what trades-closed does not hold yet is closed; so a kill
anywhere loses no close and doubles none, and no offset has to tell how far the memory had come. All topics are keyed
alike, so the records of one symbol have one partition number on each of them.
"""

from __future__ import annotations

import logging
import time
from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Literal, NamedTuple

from tradetape.schemas import Codec, DecodeError, EventError, RunMode
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.effects import Effects
from tradetape.streams.positions.book import Book, Closing
from tradetape.streams.positions.past import Past
from tradetape.streams.positions.position import Plain
from tradetape.streams.positions.price_range import PricesSeen
from tradetape.streams.processor import Partition
from tradetape.streams.reading_turn import ReadingTurn
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.streams")

CANDLE_MARGIN_MS = 3_600_000
"""How far the clock of whoever emits candles may run behind the venue's."""


CANDLE_WAIT_S = 0.1
CANDLE_WAITS = 10
"""How often a close waits for candles that are still to be expected: for a second in all, if any candles come at all."""


class _Memory:
    """What is known of one partition number: its books, and how far each topic is in them."""

    def __init__(self, counts: Counter[str]) -> None:
        self.books: defaultdict[tuple[str, str], Book] = defaultdict(lambda: Book(counts))
        self.next_offsets: dict[str, int] = {}

    def book(self, plain: Plain) -> Book:
        return self.books[plain["venue"], plain["symbol"]]

    def closings(self) -> list[tuple[Book, Closing]]:
        """Positions at their end, which are not on the tape yet."""
        return [(book, closing) for book in self.books.values() for closing in book.closings.values()]


class _Topics(NamedTuple):
    trades: str
    dispatches: str
    fills: str
    candles: str
    closes: str


class Positions:
    """Processor from trades, trade-dispatches and fills to trades-closed; candles are looked up when a position closes.

    `counts` holds how many were closed, and why records were passed over.
    """

    copartitioned: Literal[True] = True

    def __init__(
        self,
        *,
        codec: Codec,
        past: Past,
        effects: Effects,
        dead_letters: DeadLetters,
        run_mode: RunMode,
        candle_waits: int = CANDLE_WAITS,
        turn: ReadingTurn | None = None,
        name: str = "positions",
    ) -> None:
        self.name = name
        self.counts: Counter[str] = Counter()
        catalogue = codec.catalogue
        records = ("Trade", "TradeDispatch", "Fill", "Candle", "TradeClosed")
        self._topics = _Topics(*(catalogue.topic_name(catalogue.by_record(record)) for record in records))
        self.topics: tuple[str, ...] = self._topics[:3]
        """Also the order in which they are read: a trade before its fills."""
        self._codec = codec
        self._past = past
        self._effects = effects
        self._dead_letters = dead_letters
        self._run_mode = run_mode.value
        self._candle_waits = candle_waits
        self._turn = turn or ReadingTurn()
        self._memories: dict[int, _Memory] = {}
        self._unfinished: dict[int, _Memory] = {}
        """Of those that are still being read."""

    def process(self, batch: Sequence[Record]) -> None:
        """Close what the batch brings to its end. Raises EffectsRefused, StillReading, BrokersUnreachable, HistoryLost."""
        self._turn.begin()
        decoded: defaultdict[int, list[tuple[Record, Plain | None]]] = defaultdict(list)
        refused: list[tuple[Record, DecodeError]] = []
        for record in batch:
            plain = None
            try:
                plain = self._codec.decode_fields(record.topic, record.value)
            except DecodeError as error:
                refused.append((record, error))
            decoded[record.partition].append((record, plain))
        for number, records in decoded.items():
            self._follow(number, records)
            self._close(number, self._memories[number].closings())
        # Last: while a dependency is away the batch comes again and again, and each time would repeat its dead letters.
        for record, why in refused:
            self._dead_letters.send(record, why.reason, why, stage="VALUE_CONVERTER")

    def examine(self, record: Record) -> None:
        """Decode it."""
        self._codec.decode_fields(record.topic, record.value)

    def pass_over(self, records: Sequence[Record]) -> None:
        """The offsets are Kafka's."""

    def _follow(self, number: int, records: Sequence[tuple[Record, Plain | None]]) -> None:
        """Bring the memory up to the batch."""
        memory = self._memories.get(number)
        if memory is None or self._has_missed(memory, [record for record, _ in records]):
            memory = self._memories[number] = self._rebuilt(number)
        for topic in self.topics:
            of_topic = [(record, plain) for record, plain in records if record.topic == topic]
            if topic == self._topics.fills and any(
                plain is not None and self._is_ours(plain) and memory.book(plain).lacks_trade_of(plain)
                for _, plain in of_topic
            ):
                self._catch_up(memory, number, self._topics.trades)
            for record, plain in of_topic:
                self._take(memory, record, plain)
        self._end_unfilled(memory, number)

    def _has_missed(self, memory: _Memory, records: Iterable[Record]) -> bool:
        """Whether somebody else was given records of this partition number in between."""
        reached = dict(memory.next_offsets)
        for record in records:
            start = reached[record.topic]
            if record.offset > start and self._past.holds_any(_place(record), start, record.offset):
                return True
            reached[record.topic] = max(start, record.offset + 1)
        return False

    def _rebuilt(self, number: int) -> _Memory:
        """The memory of a partition number, from all that is on the tape. Raises StillReading, to be called again."""
        memory = self._unfinished.setdefault(number, _Memory(self.counts))
        for plain in self._rest(memory, number, self._topics.closes):
            memory.book(plain).was_closed(plain["trade_id"])
        for topic in self.topics:
            self._catch_up(memory, number, topic)
        self._end_unfilled(memory, number)
        del self._unfinished[number]
        open_positions = sum(book.open_positions for book in memory.books.values())
        logger.info("partition %d: %d open positions", number, open_positions, extra={"action": "rebuild"})
        return memory

    def _rest(self, memory: _Memory, number: int, topic: str) -> Iterator[Plain]:
        """What a memory lacks of a topic that the engine does not bring."""
        place = Partition(topic, number)
        start, end = self._reached(memory, place), self._past.end(place)
        for record, plain in self._past.read(place, start, end):
            yield plain
            memory.next_offsets[topic] = record.offset + 1
            self._turn.check(f"{topic}[{number}]")
        memory.next_offsets[topic] = max(start, end)

    def _reached(self, memory: _Memory, place: Partition) -> int:
        """The offset up to which a topic is in a memory."""
        if place.topic not in memory.next_offsets:
            memory.next_offsets[place.topic] = self._past.begin(place)
        return memory.next_offsets[place.topic]

    def _catch_up(self, memory: _Memory, number: int, topic: str) -> None:
        """Take what is on the tape already, and has not come yet; when it comes it is known."""
        place = Partition(topic, number)
        start, end = self._reached(memory, place), self._past.end(place)
        for record, plain in self._past.read(place, start, end):
            self._take(memory, record, plain)
            self._turn.check(f"{topic}[{number}]")
        memory.next_offsets[topic] = max(start, end)

    def _take(self, memory: _Memory, record: Record, plain: Plain | None) -> None:
        if record.offset < memory.next_offsets[record.topic]:
            return
        memory.next_offsets[record.topic] = record.offset + 1
        if plain is None:
            return
        if not self._is_ours(plain):
            self.counts["other_mode"] += 1
            return
        book = memory.book(plain)
        take = {self._topics.trades: book.trade, self._topics.dispatches: book.dispatch, self._topics.fills: book.fill}
        take[record.topic](plain)

    def _is_ours(self, plain: Plain) -> bool:
        return bool(plain["run_mode"] == self._run_mode)

    def _end_unfilled(self, memory: _Memory, number: int) -> None:
        """A dispatch that came to nothing closes its position, unless a fill is on the tape that has not come yet."""
        if any(book.could_end_unfilled() for book in memory.books.values()):
            self._catch_up(memory, number, self._topics.trades)
            self._catch_up(memory, number, self._topics.fills)
            for book in memory.books.values():
                book.end_unfilled()

    def _close(self, number: int, closings: Sequence[tuple[Book, Closing]]) -> None:
        """Put closes on the tape, and forget their positions once they are there."""
        if closings:
            seen = self._prices(number, [closing for _, closing in closings])
            self._emit(closings, seen)

    def _prices(self, number: int, closings: Iterable[Closing]) -> Mapping[str, PricesSeen]:
        """What candles saw of each closing's life, by position."""
        seen: dict[str, PricesSeen] = {}
        by_key: defaultdict[bytes, list[PricesSeen]] = defaultdict(list)
        for closing in closings:
            if closing.life is not None:
                seen[closing.trade_id] = PricesSeen(closing.life)
                by_key[closing.key].append(seen[closing.trade_id])
        if seen:
            opened_at_us = min(closing.life.opened_at_us for closing in closings if closing.life is not None)
            self._look_at_candles(Partition(self._topics.candles, number), opened_at_us // 1_000, by_key)
        return seen

    def _look_at_candles(self, place: Partition, since_ms: int, by_key: Mapping[bytes, Sequence[PricesSeen]]) -> None:
        """Show candles to those that want them. The last ones may be on their way, and are waited for, but not for long."""
        start = self._past.emitted_at(place, since_ms - CANDLE_MARGIN_MS)
        for is_last in (*[False] * self._candle_waits, True):
            end = self._past.end(place)
            for record, candle in self._past.read(place, start, end, wanted=lambda one: one.key in by_key):
                for prices in by_key[record.key or b""]:
                    prices.see(candle)
            start = end
            if is_last or end == self._past.begin(place) or all(one.is_settled for of in by_key.values() for one in of):
                return
            time.sleep(CANDLE_WAIT_S)

    def _emit(self, closings: Sequence[tuple[Book, Closing]], seen: Mapping[str, PricesSeen]) -> None:
        events = []
        for _, closing in closings:
            prices = seen.get(closing.trade_id)
            events.append(closing.event(prices.range() if prices is not None else None))
        try:
            self._effects.emit(events)
        except EventError as error:
            if len(closings) > 1:
                for one in closings:
                    self._emit([one], seen)
                return
            # Amounts that no decimal of the tape can hold. Halting here would block every other symbol.
            logger.error("position %s cannot be closed: %s", closings[0][1].trade_id, error, extra={"action": "close"})
            self.counts["unrepresentable"] += 1
        else:
            self.counts["closed"] += len(closings)
        for book, closing in closings:
            book.closed(closing.trade_id)


def _place(record: Record) -> Partition:
    return Partition(record.topic, record.partition)
