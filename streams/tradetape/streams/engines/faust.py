"""The Faust engine, in the one recipe that was seen to lose nothing when it is killed, and no other.

`stream.noack()`, iterate `events()`, acknowledge only after success; a crash of the agent ends the process; one agent,
concurrency 1; raw keys and values; no tables, windows, `take()` or `async with event`. Every part of that is load-bearing:
with `take()`, with concurrency 2 or with stream_wait_empty=False, Faust 0.15.3 commits offsets of records whose
processing failed (faust-streaming issues 312, 606).
"""

from __future__ import annotations

import asyncio
import logging
import os
import tempfile
import threading
import time
import warnings
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Any, TextIO, TypeVar

import faust
import msgspec
from aiokafka.errors import KafkaConnectionError
from faust.exceptions import AlreadyConfiguredWarning, ConsumerNotStarted

from tradetape.producers.connection import KafkaSettings
from tradetape.schemas.stamping import wall_clock_us
from tradetape.streams.backoff import Backoff
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.engines.earlier_records import EarlierRecords
from tradetape.streams.engines.faust_access import credentials_of
from tradetape.streams.errors import BadRecord, BrokersUnreachable, Terminal, Transient
from tradetape.streams.processor import Copartitioned, OffsetKeeper, Partition, Processor, tick
from tradetape.streams.progress import Progress
from tradetape.streams.quarantine import Quarantine
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.streams")

SETTINGS: dict[str, Any] = {
    "agent_supervisor": "mode.CrashingSupervisor",
    "stream_wait_empty": True,
    "stream_buffer_maxsize": 4_096,
    "broker_max_poll_records": 500,
    "broker_commit_interval": 1.0,
    "broker_commit_every": 1_000,
    "broker_session_timeout": 10.0,
    "broker_heartbeat_interval": 3.0,
    "broker_request_timeout": 90.0,
    "broker_max_poll_interval": 300.0,
    "broker_check_crcs": True,
    "consumer_max_fetch_size": 1_048_576,
    "consumer_auto_offset_reset": "earliest",
    # A topic that was made just before or after the start is found after so long, and not after its default of 5 minutes.
    "consumer_metadata_max_age_ms": 5_000,
    "topic_disable_leader": True,
    "topic_allow_declare": False,
    "table_standby_replicas": 0,
    "store": "memory://",
    "web_enabled": False,
    "key_serializer": "raw",
    "value_serializer": "raw",
}
COPARTITIONED: dict[str, Any] = {
    # Without it, and without tables, Faust deals partitions out in turns, whatever their numbers; with it, by its own
    # assignor, which gives those of one number on all topics to one member.
    "table_standby_replicas": 1,
}


Result = TypeVar("Result")
LEAST_STOP_TIMEOUT_S = 1.0


class FaustLimits(msgspec.Struct, frozen=True, kw_only=True):
    """The bounds of the engine, each in the unit of its name (I13)."""

    max_batch_records: int = 500
    queue_records: int = 1_000
    watch_interval_s: float = 0.1
    tick_interval_s: float = 1.0
    stop_timeout_s: float = 8.0
    """Faust's own stop waits without bound for what is being processed."""
    unreachable_after_s: float = 120.0
    suspect_records: int = 20_000
    """How many a child process looks at first after every assignment (quarantine.py): more than Faust reads between two commits.

    Faust's offsets carry no mark that would say how the last worker ended.
    """


class _Worker(faust.Worker):
    def install_signal_handlers(self) -> None:
        """Signals are the worker process' own business: it tells us to stop."""


class FaustEngine:
    """Feeds one processor from its topics until it is told to stop."""

    def __init__(
        self,
        *,
        processor: Processor,
        kafka: KafkaSettings,
        group: str,
        dead_letters: DeadLetters,
        progress: Progress | None = None,
        limits: FaustLimits | None = None,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> None:
        if isinstance(processor, OffsetKeeper):
            raise Terminal(
                f"{processor.name} keeps its own offsets, which Faust cannot start from; use the engine `kafka`"
            )
        self._processor = processor
        self._kafka = kafka
        # As for librdkafka: what weakens a guarantee is refused here.
        self._credentials = credentials_of(kafka.client_config({}))
        self._group = group
        self._dead_letters = dead_letters
        self._progress = progress or Progress()
        self._limits = limits or FaustLimits()
        self._now_us = now_us
        self._stop = threading.Event()
        self._drained = asyncio.Event()
        self._drained.set()
        """No batch is at hand: what was processed is acknowledged, and nothing else has begun."""
        self._done: dict[Partition, int] = {}
        self._quarantine = Quarantine(processor)
        self._earlier = EarlierRecords(self._limits.suspect_records)
        self._has_joined = False
        """The group, whose coordinator is a broker that answers."""
        self._thread = ThreadPoolExecutor(1, thread_name_prefix=f"tradetape-{processor.name}")

    def run(self, stop: threading.Event) -> None:
        """Read until `stop` is set, then drain within bounds. Raises what the processor raises but Transient and BadRecord."""
        self._stop = stop
        with tempfile.TemporaryDirectory(prefix="tradetape-faust-") as folder, asyncio.Runner() as runner:
            runner.run(self._run(folder))
        self._thread.shutdown(wait=False)

    async def _run(self, folder: str) -> None:
        with open(os.devnull, "w", encoding="utf-8") as nowhere:
            await self._run_app(self._app(folder), nowhere)

    async def _run_app(self, app: Any, nowhere: TextIO) -> None:
        # Faust's progress spinner writes escape sequences to what it takes for a terminal.
        worker = _Worker(
            app, override_logging=False, redirect_stdouts=False, quiet=True, stdout=nowhere, stderr=nowhere,
            loop=asyncio.get_running_loop(),
        )  # fmt: skip
        failure: BaseException | None = None
        started = asyncio.ensure_future(worker.start())
        try:
            failure = await self._watch(app, worker, started)
        finally:
            started.cancel()
            await asyncio.gather(started, return_exceptions=True)
            await self._end(app, worker)
        if failure is not None:
            raise failure

    async def _watch(self, app: Any, worker: Any, started: asyncio.Future[Any]) -> BaseException | None:
        """Wait until we are told to stop or something crashed; what crashed it."""
        began = time.monotonic()
        while not self._stop.is_set():
            await asyncio.sleep(self._limits.watch_interval_s)
            if (reason := worker.crash_reason or app.crash_reason) is not None:
                return _as_exception(reason)
            if started.done() and (error := started.exception()) is not None:
                return _as_exception(error)
            # Not whether the start is done: it goes on for as long as the worker runs.
            if not self._has_joined and time.monotonic() - began > self._limits.unreachable_after_s:
                return BrokersUnreachable(f"no broker has answered for {self._limits.unreachable_after_s:.0f} s")
            self._observe(app)
        return None

    async def _end(self, app: Any, worker: Any) -> None:
        """Let the batch at hand finish, commit, leave the group, all within bounds.

        Offsets follow acknowledgements, so what is cut off here is merely read again. What Faust has read ahead and
        nobody has begun with is not waited for: its own stop would, without bound.
        """
        deadline = time.monotonic() + self._limits.stop_timeout_s
        if app.crash_reason is None and worker.crash_reason is None:
            await _at_most(self._limits.stop_timeout_s, self._drained.wait())
            if self._done:
                await _at_most(max(deadline - time.monotonic(), LEAST_STOP_TIMEOUT_S), _commit(app))
        with warnings.catch_warnings():
            # It warns that parts of Faust may have used the old value, which they shall have until now.
            warnings.simplefilter("ignore", AlreadyConfiguredWarning)
            app.conf.stream_wait_empty = False
        if not await _at_most(max(deadline - time.monotonic(), LEAST_STOP_TIMEOUT_S), worker.stop()):
            logger.warning("Faust did not stop within %.0f s; leaving it", self._limits.stop_timeout_s)

    def _app(self, folder: str) -> Any:
        brokers = [f"kafka://{one.strip()}" for one in self._kafka.bootstrap_servers.split(",")]
        is_copartitioned = isinstance(self._processor, Copartitioned)
        settings = {**SETTINGS, **(COPARTITIONED if is_copartitioned else {})}
        app = faust.App(
            self._group, broker=brokers, datadir=folder, broker_credentials=self._credentials, **settings
        )  # fmt: skip
        # No partition has a standby. With any it would fill up the members one after the other, and leave the last idle.
        app.assignor.replicas = 0
        topic = app.topic(*self._processor.topics, key_serializer="raw", value_serializer="raw")
        app.agent(topic, name=f"tradetape.{self._processor.name}", concurrency=1)(self._feed)
        app.task(self._tick)
        for rebalanced in (app.on_partitions_revoked, app.on_partitions_assigned):
            rebalanced.connect(self._on_rebalance)
        return app

    async def _feed(self, stream: Any) -> None:
        """The agent. What already waits becomes a batch; the stream's own iterator is never cancelled while we read."""
        unacknowledged = stream.noack()
        waiting: asyncio.Queue[Any] = asyncio.Queue(self._limits.queue_records)

        async def gather() -> None:
            async for event in unacknowledged.events():
                await waiting.put(event)

        reading = asyncio.ensure_future(gather())
        try:
            while True:
                events = await self._next_batch(waiting, reading)
                batch = [_record(event) for event in events]
                if await self._deliver(batch, self._suspects(stream.app, batch)):
                    for event in events:
                        await unacknowledged.ack(event)
                self._drained.set()
                if self._stop.is_set():
                    # Until Faust stops us: it takes an agent that returns for one to be started again.
                    await asyncio.Event().wait()
        finally:
            reading.cancel()

    async def _next_batch(self, waiting: asyncio.Queue[Any], reading: asyncio.Future[None]) -> list[Any]:
        first = asyncio.ensure_future(waiting.get())
        await asyncio.wait({first, reading}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            first.cancel()
            if self._stop.is_set():
                return []
            reading.result()
            raise Terminal("Faust's stream ended")
        self._drained.clear()
        events = [first.result()]
        while len(events) < self._limits.max_batch_records and not waiting.empty():
            events.append(waiting.get_nowait())
        return events

    async def _on_rebalance(self, *_: Any, **__: Any) -> None:
        self._has_joined = True
        self._earlier.forget()

    def _suspects(self, app: Any, batch: Sequence[Record]) -> list[Record]:
        """What whoever had these partitions before us may have died of."""

        def end(one: Partition) -> int | None:
            found: int | None = app.consumer.highwater(faust.types.TP(one.topic, one.partition))
            return found

        return self._earlier.among(batch, end)

    async def _deliver(self, batch: Sequence[Record], suspects: Sequence[Record]) -> bool:
        """Step 1 process, step 2 await every dead letter; step 3, the acknowledgement, follows in the agent.

        False when we were told to stop before that: nothing of the batch may be acknowledged.
        """
        killers, buried = list[BadRecord](), list[Record]()
        if suspects:
            killers = await self._in_thread(self._quarantine.killers, suspects)
        backoff = Backoff()
        while not self._stop.is_set():
            try:
                await self._in_thread(self._quarantine.attempt, batch, killers, buried, self._dead_letters)
            except Transient as error:
                logger.warning("waiting: %s", error, extra={"action": "wait"})
                self._progress.waits(str(error))
                await asyncio.sleep(backoff.next_s())
                continue
            for record in batch:
                self._done[Partition(record.topic, record.partition)] = record.offset + 1
            self._progress.moved(batch)
            return True
        return False

    async def _tick(self) -> None:
        while not self._stop.is_set():
            await self._in_thread(tick, self._processor, self._now_us())
            await asyncio.sleep(self._limits.tick_interval_s)

    async def _in_thread(self, call: Callable[..., Result], *arguments: Any) -> Result:
        return await asyncio.get_running_loop().run_in_executor(self._thread, call, *arguments)

    def _observe(self, app: Any) -> None:
        self._progress.polled()
        try:
            assigned = sorted(Partition(one.topic, one.partition) for one in app.consumer.assignment())
        except ConsumerNotStarted:
            return
        if assigned != sorted(self._progress.lag):
            self._progress.assigned(assigned)
        highest = {one: app.consumer.highwater(faust.types.TP(one.topic, one.partition)) for one in assigned}
        self._progress.behind(
            {one: max(0, (high or 0) - self._done.get(one, high or 0)) for one, high in highest.items()}
        )


def _record(event: Any) -> Record:
    message = event.message
    return Record(
        message.topic,
        message.partition,
        message.offset,
        message.key,
        message.value,
        tuple(message.headers or ()),
        round(message.timestamp * 1_000),
    )


async def _commit(app: Any) -> None:
    """Commit what is acknowledged now. While a commit is under way Faust's only waits for that one, so ask twice."""
    await app.consumer.commit()
    await app.consumer.commit()


async def _at_most(timeout_s: float, awaited: Awaitable[Any]) -> bool:
    """Wait for something, but not for long; whether it came to its end."""
    waiting = asyncio.ensure_future(awaited)
    done, _ = await asyncio.wait({waiting}, timeout=timeout_s)
    waiting.cancel()
    for one in done:
        one.result()
    return bool(done)


def _as_exception(reason: BaseException | str) -> BaseException:
    if isinstance(reason, KafkaConnectionError):
        return BrokersUnreachable(f"Kafka: {reason}")
    return reason if isinstance(reason, BaseException) else Terminal(str(reason))
