"""The sink of trades: what takes them from the tape to the dispatcher, and moves the offset behind what is done (I4, I10).

`process` returns when the orders are in their lanes, so that no symbol waits for another one's executor. The offset
stands in PostgreSQL and moves only behind trades all of whose orders are settled and told, in the tape's order.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from itertools import islice

from tradetape.schemas import Codec, DecodeError, RunMode, Trade, TradeDispatch
from tradetape.sinks.dispatch.dispatcher import Dispatcher
from tradetape.sinks.dispatch.executor import Executor, Following, Order, orders_of
from tradetape.sinks.dispatch.intents import Intents
from tradetape.sinks.dispatch.job import Attempt, Job
from tradetape.sinks.dispatch.lanes import PARALLEL, Lanes
from tradetape.sinks.dispatch.market_time import MarketTime
from tradetape.sinks.dispatch.offset_window import OffsetWindow
from tradetape.sinks.dispatch.telling import Telling
from tradetape.sinks.errors import ExecutorBusy
from tradetape.streams.backoff import Backoff
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.errors import Terminal, Transient
from tradetape.streams.processor import Partition
from tradetape.streams.progress import Progress
from tradetape.streams.record import Record
from tradetape.streams.topic_reader import TopicReader

logger = logging.getLogger("tradetape.sinks")

NAME = "dispatch"
DECODING = "VALUE_CONVERTER"
MAX_IN_FLIGHT = 1_000
"""How many orders wait in lanes; past it nothing more is read."""
ROOM_TIMEOUT_S = 1.0
RELEASE_TIMEOUT_S = 8.0
"""How long a partition is held back for its calls to end; below the ten seconds that a worker has to drain."""
LONGEST_RETRY_AFTER_S = 60.0
COMPLETED_AT_ONCE = 1_000
DOUBT_INTERVAL_US = 10_000_000


class DispatchSink:
    """Processor and keeper of its own offsets. `counts` says what became of trades and orders."""

    name = NAME

    def __init__(
        self,
        *,
        codec: Codec,
        intents: Intents,
        dispatcher: Dispatcher,
        executor: Executor,
        reader: TopicReader,
        telling: Telling,
        dead_letters: DeadLetters,
        run_mode: RunMode,
        market: MarketTime | None = None,
        progress: Progress | None = None,
        parallel: int = PARALLEL,
        max_in_flight: int = MAX_IN_FLIGHT,
    ) -> None:
        catalogue = codec.catalogue
        self._trades = catalogue.topic_name(catalogue.by_class(Trade))
        self._dispatches = catalogue.topic_name(catalogue.by_class(TradeDispatch))
        self.topics: tuple[str, ...] = (self._trades,)
        self.counts: Counter[str] = dispatcher.counts
        self.in_doubt = 0
        self._codec = codec
        self._intents = intents
        self._dispatcher = dispatcher
        self._executor = executor
        self._reader = reader
        self._telling = telling
        self._dead_letters = dead_letters
        self._run_mode = run_mode
        self._market = market
        self._progress = progress or Progress()
        self._max_in_flight = max_in_flight
        self._lock = threading.Lock()
        self._windows: dict[int, OffsetWindow] = {}
        self._told: list[Attempt] = []
        self._unreadable: list[tuple[Record, DecodeError]] = []
        self._failure: BaseException | None = None
        self._looked_at_us = 0
        self.lanes = Lanes(work=self._work, parallel=parallel)

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Take the partitions from their previous owner, and all that the tape knows of their orders."""
        numbers = [one.partition for one in partitions]
        beside = [Partition(self._dispatches, number) for number in numbers]
        self._check_partitions()
        starts = self._intents.claim([*partitions, *beside])
        for place in beside:
            self._complete(place, starts[place])
        if self._market is not None:
            self._market.take(numbers)
        if isinstance(self._executor, Following):
            self._executor.taken(numbers)
        with self._lock:
            self._windows |= {one.partition: OffsetWindow(starts[one] or 0) for one in partitions}
        return {one: starts[one] for one in partitions}

    def _check_partitions(self) -> None:
        """What the tape says of a trade lies on the partition of its number, or it could be missed."""
        counts = Counter(one.topic for one in self._reader.partitions([self._trades, self._dispatches]))
        if counts[self._trades] != counts[self._dispatches]:
            raise Terminal(
                f"{self._trades} has {counts[self._trades]} partitions and {self._dispatches} {counts[self._dispatches]}: "
                "they must be as many; `tradetape topics apply` creates what is missing"
            )

    def _complete(self, place: Partition, start: int | None) -> None:
        """Take in what the tape knows of intents: a database that was lost or restored sends nothing again."""
        begin, end = self._reader.begins([place])[place], self._reader.ends([place])[place]
        records = self._reader.read({place: max(start or 0, begin)}, {place: end})
        while batch := list(islice(records, COMPLETED_AT_ONCE)):
            events = [event for record in batch if (event := self._dispatch_of(record)) is not None]
            self._intents.complete(place, events, batch[-1].offset + 1)

    def _dispatch_of(self, record: Record) -> TradeDispatch | None:
        try:
            event = self._codec.decode(record.topic, record.value)
        except DecodeError as error:
            logger.error("passed over %s, which may have named an order: %s", record.place, error)
            return None
        assert isinstance(event, TradeDispatch)
        return event

    def released(self, partitions: Iterable[Partition]) -> None:
        """They are somebody else's now: what has not begun is theirs, what has begun is brought to its end."""
        numbers = {one.partition for one in partitions if one.topic == self._trades}
        if not self.lanes.drop(numbers, RELEASE_TIMEOUT_S):
            logger.error(
                "an executor has not answered for %.0f s: its order stays without an outcome", RELEASE_TIMEOUT_S
            )
        try:
            self._settle()
        except (Transient, Terminal) as error:
            logger.warning("offsets were not moved: %s", error, extra={"action": "release"})
        with self._lock:
            for number in numbers:
                self._windows.pop(number, None)
        self._intents.release(
            [Partition(topic, number) for topic in (self._trades, self._dispatches) for number in numbers]
        )
        if self._market is not None:
            self._market.release(list(numbers))
        if isinstance(self._executor, Following):
            self._executor.released(list(numbers))

    def process(self, batch: Sequence[Record]) -> None:
        """Put the orders of the batch into their lanes. Raises ExecutorBusy while these are full, DeadLettersRefused.

        The offsets wait for the next tick: moving them takes the session that an order needs for its intent.
        """
        self._check()
        for record in batch:
            window = self._windows.get(record.partition)
            if window is None or record.offset < window.accepted:
                continue
            if not self.lanes.has_room(self._max_in_flight, ROOM_TIMEOUT_S):
                raise ExecutorBusy(f"{self._max_in_flight} orders wait for {self._executor.name}")
            self._accept(record, window)
        self._bury()

    def _accept(self, record: Record, window: OffsetWindow) -> None:
        """Into the lanes with it."""
        orders: list[Order] = []
        try:
            trade = self._codec.decode(record.topic, record.value)
        except DecodeError as error:
            self._unreadable.append((record, error))
            parts = 1
        else:
            assert isinstance(trade, Trade)
            assert record.value is not None
            if self._is_ours(record, trade):
                orders = orders_of(trade, partition=record.partition, value=record.value)
            parts = len(orders)
        with self._lock:
            window.accept(record.offset, parts=parts)
        for order in orders:
            self.lanes.put(Job(order, offset=record.offset))

    def _bury(self) -> None:
        """What cannot be read goes to the dead letters, before its offset moves. Raises DeadLettersRefused."""
        for record, error in self._unreadable:
            self._dead_letters.send(record, error.reason, error, stage=DECODING)
        if self._unreadable:
            self._dead_letters.flush()
        for record, _ in self._unreadable:
            self._done(record.partition, record.offset)
        self._unreadable.clear()

    def _done(self, partition: int, offset: int) -> None:
        with self._lock:
            if (window := self._windows.get(partition)) is not None:
                window.done(offset)

    def _is_ours(self, record: Record, trade: Trade) -> bool:
        """Only trades of our own mode are dispatched, and nothing that was replayed."""
        if record.is_replayed:
            self.counts["replayed"] += 1
        elif trade.run_mode is not self._run_mode:
            self.counts["other_mode"] += 1
        else:
            return True
        return False

    def examine(self, record: Record) -> None:
        """Decode it."""
        self._codec.decode(record.topic, record.value)

    def pass_over(self, records: Sequence[Record]) -> None:
        """These are dead letters already."""
        with self._lock:
            for record in records:
                window = self._windows.get(record.partition)
                if window is not None and record.offset >= window.accepted:
                    window.accept(record.offset, parts=0)

    def tick(self, now_us: int) -> None:
        """Move the offsets behind what is done meanwhile. Raises what ended a lane."""
        self._check()
        self._settle()
        if now_us - self._looked_at_us > DOUBT_INTERVAL_US:
            self.in_doubt = self._intents.in_doubt()
            self._looked_at_us = now_us

    def close(self) -> None:
        """Let go of everything."""
        self.lanes.close()
        if self._market is not None:
            self._market.close()
        self._intents.close()
        self._telling.close()

    def _work(self, job: Job) -> None:
        """Bring one order to its end, however long what it needs is away. In a thread of the lanes."""
        backoff = Backoff()
        while not job.dropped.is_set() and self._failure is None:
            try:
                attempt = self._dispatcher.carry(job)
            except Transient as error:
                self._wait(job, error, backoff)
            except BaseException as error:  # noqa: BLE001  # raised where the engine sees it
                self._failure = error
            else:
                self._progress.goes_on()
                with self._lock:
                    self._told.append(attempt)
                self._done(job.order.partition, job.offset)
                return

    def _wait(self, job: Job, error: Transient, backoff: Backoff) -> None:
        wait_s = max(backoff.next_s(), min(getattr(error, "retry_after_s", 0.0), LONGEST_RETRY_AFTER_S))
        logger.warning("waiting: %s", error, extra={"action": "wait"})
        self._progress.waits(str(error))
        job.dropped.wait(wait_s)

    def _settle(self) -> None:
        """Step 5 of the dispatcher's: the offsets."""
        with self._lock:
            ends = {Partition(self._trades, number): window.end for number, window in self._windows.items()}
            told = self._told.copy()
        self._intents.settle(ends, told)
        with self._lock:
            del self._told[: len(told)]

    def _check(self) -> None:
        if self._failure is not None:
            raise self._failure
        if self._market is not None:
            self._market.check()
