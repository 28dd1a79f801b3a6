"""What the candles of the held partitions say: the time of each market, and every finished bar to whoever wants it.

A consumer of its own that joins no group follows the candles of exactly those partitions whose trades are ours. It can
be sent back, so listeners are told of a bar again and go by its offset. A market that nobody wants bars of costs little:
of what comes together only its newest candle is decoded.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections import defaultdict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tradetape.producers.connection import KafkaSettings, on_error
from tradetape.producers.connection import logger as kafka_logger
from tradetape.schemas import Candle, Codec, DecodeError, times
from tradetape.schemas.names import record_key
from tradetape.streams import topic_reader
from tradetape.streams.backoff import Backoff
from tradetape.streams.errors import BrokersUnreachable, Transient
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record, from_message
from tradetape.streams.topic_reader import TopicReader

logger = logging.getLogger("tradetape.sinks")
T = TypeVar("T")

LOOK_BACK_US = times.DAY_US
"""How far back candles are read when a partition is taken: a market without a newer one has no time yet."""
MARGIN_US = times.DAY_US
"""No candle is emitted more than this before its close."""
CATCH_UP_TIMEOUT_S = 60.0
POLL_TIMEOUT_S = 0.1
BATCH_RECORDS = 2_000
MARKS_KEPT = 256
"""Of each market: how far back it is known from where on to read again."""
FIXED: Mapping[str, Any] = {**topic_reader.FIXED, "auto.offset.reset": "earliest"}


class Bar(msgspec.Struct, frozen=True, gc=False):
    """A finished candle and where it lies."""

    candle: Candle
    partition: int
    offset: int


class Listener(Protocol):
    """Who is told of bars, in the thread that follows them."""

    def wants(self, key: bytes) -> bool:
        """Whether it is to be told of the bars of a market, given as the key of its records."""

    def on_bar(self, bar: Bar) -> None:
        """A finished bar. May raise Transient, and is told again."""


class Mark(NamedTuple):
    """A market's time, and the offset of the candle that said so: those before it are no newer."""

    time_us: int
    offset: int


class MarketTime:
    """Follows candles in a thread of its own, which also tells the listener."""

    def __init__(self, *, kafka: KafkaSettings, codec: Codec, reader: TopicReader, now_us: Callable[[], int]) -> None:
        self._kafka = kafka
        self._codec = codec
        self._reader = reader
        self._now_us = now_us
        self._topic = codec.catalogue.topic_name(codec.catalogue.by_class(Candle))
        self._listener: Listener | None = None
        self._times_us: dict[bytes, int] = {}
        """By the key of a market's records."""
        self._marks: defaultdict[int, defaultdict[bytes, deque[Mark]]] = defaultdict(
            lambda: defaultdict(lambda: deque(maxlen=MARKS_KEPT))
        )
        """By partition and market, the oldest first."""
        self._positions: dict[int, int] = {}
        self._moved = threading.Condition()
        self._commands: queue.SimpleQueue[Callable[[Consumer], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def listen(self, listener: Listener) -> None:
        """Tell this of bars."""
        self._listener = listener

    def time_us(self, venue: str, symbol: str) -> int | None:
        """The event time of the market's newest candle that was read, in microseconds since 1970; None for none."""
        return self._times_us.get(record_key(venue, symbol))

    def take(self, partitions: list[int]) -> None:
        """Follow these, from a day back on; returns when all that is there was read. Raises BrokersUnreachable."""
        places = [Partition(self._topic, number) for number in partitions]
        starts = self._reader.offsets_at(places, (self._now_us() - LOOK_BACK_US) // 1_000)
        ends = self._reader.ends(places)
        self._do(lambda consumer: self._assign(consumer, {one.partition: at for one, at in starts.items()}))
        wanted = {one.partition: end for one, end in ends.items() if end > starts[one]}
        with self._moved:
            caught_up = self._moved.wait_for(
                lambda: (
                    self._failure is not None
                    or all(self._positions.get(number, -1) >= end for number, end in wanted.items())
                ),
                CATCH_UP_TIMEOUT_S,
            )
        self.check()
        if not caught_up:
            raise BrokersUnreachable(f"Kafka: the candles of {self._topic} were not read in {CATCH_UP_TIMEOUT_S:.0f} s")

    def release(self, partitions: list[int]) -> None:
        """Follow these no more."""
        self._do(lambda consumer: self._unassign(consumer, partitions))

    def tell_from(self, partition: int, key: bytes, event_time_us: int, ready: Callable[[], None]) -> None:
        """Call `ready` in the thread that tells, before it tells the market's first bar that closes after a time.

        Bars that have gone by are read again. Raises BrokersUnreachable.
        """
        start = 0
        if self._mark_before(partition, key, event_time_us) is None:
            place = Partition(self._topic, partition)
            start = self._reader.offsets_at([place], (event_time_us - MARGIN_US) // 1_000)[place]

        def begin(consumer: Consumer) -> None:
            # What was a mark a moment ago is one still, or a newer one has taken its place.
            mark = self._mark_before(partition, key, event_time_us)
            self._seek(consumer, partition, start if mark is None else mark.offset + 1)
            ready()

        self._do(begin)

    def tell_from_offset(self, partition: int, offset: int, ready: Callable[[], None]) -> None:
        """The same, before it tells the first bar from an offset on."""

        def begin(consumer: Consumer) -> None:
            self._seek(consumer, partition, offset)
            ready()

        self._do(begin)

    def _mark_before(self, partition: int, key: bytes, event_time_us: int) -> Mark | None:
        """The last mark of a market that is no newer than a time."""
        of_partition = self._marks.get(partition)
        marks = of_partition.get(key) if of_partition else None
        # A copy, since the thread that follows adds to it.
        return max((one for one in tuple(marks or ()) if one.time_us <= event_time_us), default=None)

    def check(self) -> None:
        """Raise what ended the thread."""
        if self._failure is not None:
            raise self._failure

    def close(self) -> None:
        """Stop following."""
        self._stop.set()
        if self._thread is not None:
            self._thread.join(5.0)

    def _do(self, command: Callable[[Consumer], None]) -> None:
        if self._thread is None:
            self._thread = threading.Thread(target=self._run, name="tradetape-market", daemon=True)
            self._thread.start()
        self._commands.put(command)

    def _assign(self, consumer: Consumer, starts: Mapping[int, int]) -> None:
        new = {number: at for number, at in starts.items() if number not in self._positions}
        consumer.incremental_assign([TopicPartition(self._topic, number, at) for number, at in new.items()])
        self._positions |= new

    def _unassign(self, consumer: Consumer, partitions: list[int]) -> None:
        gone = [number for number in partitions if self._positions.pop(number, None) is not None]
        for number in gone:
            self._marks.pop(number, None)
        consumer.incremental_unassign([TopicPartition(self._topic, number) for number in gone])

    def _seek(self, consumer: Consumer, partition: int, offset: int) -> None:
        if self._positions.get(partition, -1) > offset:
            # Taken anew, since a seek is refused while the partition is only being taken.
            consumer.incremental_unassign([TopicPartition(self._topic, partition)])
            consumer.incremental_assign([TopicPartition(self._topic, partition, offset)])
            self._positions[partition] = offset

    def _run(self) -> None:
        consumer = Consumer(
            {**self._kafka.client_config(topic_reader.DEFAULTS, fixed=FIXED), "error_cb": on_error()},
            logger=kafka_logger,
        )
        try:
            while not self._stop.is_set():
                self._turn(consumer)
        except BaseException as error:  # raised where the engine sees it
            logger.exception("the candles are not followed any more")
            with self._moved:
                self._failure = error
                self._moved.notify_all()
        finally:
            consumer.close()

    def _turn(self, consumer: Consumer) -> None:
        while not self._commands.empty():
            self._commands.get()(consumer)
        first = consumer.poll(POLL_TIMEOUT_S)
        records = []
        for message in [] if first is None else [first, *consumer.consume(BATCH_RECORDS - 1, 0)]:
            if (error := message.error()) is None:
                records.append(from_message(message))
            elif error.code() != KafkaError._PARTITION_EOF:
                logger.warning("candles: %s", error.str(), extra={"action": "poll"})
        self._tell_time([one for one in records if one.partition in self._positions])
        for record in records:
            self._take(record)
        with self._moved:
            self._moved.notify_all()

    def _tell_time(self, records: Sequence[Record]) -> None:
        """The time of each market, by its newest candle among these that can be read."""
        told = set[bytes]()
        for record in reversed(records):
            key = record.key or b""
            if key in told:
                continue
            candle = self._patiently(partial(self._candle, record))
            if candle is not None:
                told.add(key)
                assert candle.event_time is not None
                time_us = max(self._times_us.get(key, 0), times.from_datetime(candle.event_time))
                self._times_us[key] = time_us
                marks = self._marks[record.partition][key]
                if not marks or record.offset > marks[-1].offset:
                    marks.append(Mark(time_us, record.offset))

    def _take(self, record: Record) -> None:
        if record.partition not in self._positions:
            return
        if self._listener is not None and self._listener.wants(record.key or b""):
            listener = self._listener
            self._patiently(lambda: self._heed(record, listener))
        self._positions[record.partition] = record.offset + 1

    def _heed(self, record: Record, listener: Listener) -> None:
        candle = self._candle(record)
        if candle is not None and candle.is_final:
            listener.on_bar(Bar(candle, record.partition, record.offset))

    def _candle(self, record: Record) -> Candle | None:
        """None for what cannot be read: a dead letter of those who store candles. Raises RegistryUnreachable."""
        try:
            candle = self._codec.decode(record.topic, record.value)
        except DecodeError:
            return None
        return candle if isinstance(candle, Candle) else None

    def _patiently(self, attempt: Callable[[], T]) -> T | None:
        """What the attempt gives; it is made again while something is away. None once it is time to stop."""
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                return attempt()
            except Transient as error:
                logger.warning("waiting: %s", error, extra={"action": "wait"})
                self._stop.wait(backoff.next_s())
        return None
