"""What the candles of the held partitions say: the time of each market, and every finished bar to whoever wants it.

A consumer of its own that joins no group follows the candles of exactly those partitions whose trades are ours. It can
be sent back, so listeners are told of a bar again and go by its offset.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from confluent_kafka import Consumer, KafkaError, TopicPartition

from tradetape.producers.connection import KafkaSettings, on_error
from tradetape.producers.connection import logger as kafka_logger
from tradetape.schemas import Candle, Codec, DecodeError, times
from tradetape.streams import topic_reader
from tradetape.streams.backoff import Backoff
from tradetape.streams.errors import BrokersUnreachable, Transient
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record, from_message
from tradetape.streams.topic_reader import TopicReader

logger = logging.getLogger("tradetape.sinks")

LOOK_BACK_US = times.DAY_US
"""How far back candles are read when a partition is taken: a market without a newer one has no time yet."""
MARGIN_US = times.DAY_US
"""No candle is emitted more than this before its close."""
CATCH_UP_TIMEOUT_S = 60.0
POLL_TIMEOUT_S = 0.1
BATCH_RECORDS = 2_000
FIXED: Mapping[str, Any] = {**topic_reader.FIXED, "auto.offset.reset": "earliest"}


class Bar(msgspec.Struct, frozen=True, gc=False):
    """A finished candle and where it lies."""

    candle: Candle
    partition: int
    offset: int


class MarketTime:
    """Follows candles in a thread of its own. `listener` is called in it with each finished bar."""

    def __init__(self, *, kafka: KafkaSettings, codec: Codec, reader: TopicReader, now_us: Callable[[], int]) -> None:
        self._kafka = kafka
        self._codec = codec
        self._reader = reader
        self._now_us = now_us
        self._topic = codec.catalogue.topic_name(codec.catalogue.by_class(Candle))
        self._listener: Callable[[Bar], None] | None = None
        self._times_us: dict[tuple[str, str], int] = {}
        self._positions: dict[int, int] = {}
        self._moved = threading.Condition()
        self._commands: queue.SimpleQueue[Callable[[Consumer], None]] = queue.SimpleQueue()
        self._stop = threading.Event()
        self._failure: BaseException | None = None
        self._thread: threading.Thread | None = None

    def listen(self, listener: Callable[[Bar], None]) -> None:
        """Call this with each finished bar. It may raise Transient, and is called again."""
        self._listener = listener

    def time_us(self, venue: str, symbol: str) -> int | None:
        """The event time of the market's newest candle that was read, in microseconds since 1970; None for none."""
        return self._times_us.get((venue, symbol))

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

    def go_back(self, partition: int, event_time_us: int) -> None:
        """Read again every candle of a partition that closes at or after a time. Raises BrokersUnreachable."""
        place = Partition(self._topic, partition)
        start = self._reader.offsets_at([place], (event_time_us - MARGIN_US) // 1_000)[place]
        self._do(lambda consumer: self._seek(consumer, partition, start))

    def go_back_to(self, partition: int, offset: int) -> None:
        """Read again from an offset on."""
        self._do(lambda consumer: self._seek(consumer, partition, offset))

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
        for message in [] if first is None else [first, *consumer.consume(BATCH_RECORDS - 1, 0)]:
            if (error := message.error()) is None:
                self._take(from_message(message))
            elif error.code() != KafkaError._PARTITION_EOF:
                logger.warning("candles: %s", error.str(), extra={"action": "poll"})
        with self._moved:
            self._moved.notify_all()

    def _take(self, record: Record) -> None:
        if record.partition not in self._positions:
            return
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                self._heed(record)
                break
            except Transient as error:
                logger.warning("waiting: %s", error, extra={"action": "wait"})
                self._stop.wait(backoff.next_s())
        self._positions[record.partition] = record.offset + 1

    def _heed(self, record: Record) -> None:
        """Move the market's time, and tell the listener. Raises Transient, after which the record is heeded again."""
        try:
            candle = self._codec.decode(record.topic, record.value)
        except DecodeError:
            # A dead letter of those who store candles.
            return
        assert isinstance(candle, Candle)
        assert candle.event_time is not None
        market, time_us = (candle.venue, candle.symbol), times.from_datetime(candle.event_time)
        self._times_us[market] = max(self._times_us.get(market, 0), time_us)
        if candle.is_final and self._listener is not None:
            self._listener(Bar(candle, record.partition, record.offset))
