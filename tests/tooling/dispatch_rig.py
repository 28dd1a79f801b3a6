"""What tests of the dispatch share: trades on a tape of the test's own, dispatchers in threads or processes, and executors.

What the tape says of orders is read with a plain consumer and fastavro, as in history_rig.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from history_rig import EngineThread, HistoryRig, at_work, login_of
from tradetape.console.workers import dispatch_executors
from tradetape.producers import Producer
from tradetape.producers.settings import Settings
from tradetape.schemas import Action, Candle, Codec, Direction, Event, Fill, RunMode, Trade, TradeDispatch
from tradetape.sinks.dispatch.dispatcher import Dispatcher
from tradetape.sinks.dispatch.executor import Answer, Executor, Order
from tradetape.sinks.dispatch.intents import Intents
from tradetape.sinks.dispatch.sink import NAME, DispatchSink
from tradetape.sinks.dispatch.telling import Telling
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.effects import KafkaEffects
from tradetape.streams.engines.kafka import KafkaEngine
from tradetape.streams.groups import TopicIds
from tradetape.streams.progress import Progress
from tradetape.streams.topic_reader import TopicReader
from waiting import eventually

NOON = datetime(2025, 6, 1, 12, tzinfo=UTC)


def trade(number: int = 0, *, symbol: str = "BTCUSDT", **more: Any) -> Trade:
    """An approved trade; another number is another signal."""
    given: dict[str, Any] = {
        "venue": "v", "symbol": symbol, "event_time": NOON + timedelta(seconds=number), "run_mode": RunMode.PAPER,
        "signal_id": f"signal-{symbol}-{number}", "strategy_id": "s", "action": Action.ENTER, "direction": Direction.LONG,
        "quantity": "2", "approved_at": NOON, "approved_by": "test", "idempotency_key": f"key-{symbol}-{number}",
    }  # fmt: skip
    return Trade(**{**given, **more})


def bar(minute: int, *, symbol: str = "BTCUSDT", **more: Any) -> Candle:
    """The finished candle that opens so many minutes after noon."""
    opened = NOON + timedelta(minutes=minute)
    prices = {"open": "100", "high": "110", "low": "90", "close": "105", "volume": "50"}
    return Candle(
        venue="v", symbol=symbol, timeframe="1m", open_time=opened, close_time=opened + timedelta(minutes=1),
        is_final=True, run_mode=RunMode.PAPER, **{**prices, **more},
    )  # fmt: skip


class Scripted:
    """An executor that does as the test says; `calls` holds the key of every call."""

    name = "scripted"

    def __init__(self, act: Callable[[Order], Answer] | None = None, *, is_idempotent: bool = False) -> None:
        self.is_idempotent = is_idempotent
        self.calls: list[str] = []
        self.act = act or (lambda order: Answer(external_id=f"x-{order.key}"))

    def submit(self, order: Order) -> Answer:
        """Note the call, then act."""
        self.calls.append(order.key)
        return self.act(order)


class DispatchRig(HistoryRig):
    """One test's trades, intents and dispatchers."""

    def __init__(self, *, kafka: str, prefix: str, dsn: str) -> None:
        super().__init__(kafka=kafka, prefix=prefix, dsn=dsn)
        self.dispatch_dsn = login_of(dsn, "tradetape_dispatch")
        self.codec = Codec(self.catalogue)
        self._groups = 0

    def emit(self, *events: Event, source: str = "approval") -> list[Any]:
        """Put events on the tape; as stamped."""
        with Producer(
            bootstrap_servers=self.kafka.bootstrap_servers, source=source, catalogue=self.catalogue,
            overflow="wait", run_mode=RunMode.PAPER,
        ) as tape:  # fmt: skip
            stamped = [tape.emit(one) for one in events]
            assert tape.flush(30)
        return stamped

    def sink_of(self, executor: Executor, *, run_mode: RunMode = RunMode.PAPER, **more: Any) -> DispatchSink:
        """A dispatcher to an executor of the test's, for which it is one o'clock."""
        codec = self.codec
        intents = Intents(
            dsn=self.dispatch_dsn, sink=NAME, topic_uuid=TopicIds(self.kafka),
            trades_topic=codec.catalogue.topic_name(codec.catalogue.by_class(Trade)),
        )  # fmt: skip
        telling = Telling(KafkaEffects(worker=NAME, codec=codec, kafka=self.kafka))
        dispatcher = Dispatcher(
            intents=intents, tell=telling.tell, executor=executor, now_us=lambda: time.time_ns() // 1_000,
            clock=lambda _: int((NOON + timedelta(hours=1)).timestamp() * 1_000_000),
        )  # fmt: skip
        return DispatchSink(
            codec=codec, intents=intents, dispatcher=dispatcher, executor=executor, reader=TopicReader(self.kafka),
            telling=telling, dead_letters=MemoryDeadLetters(NAME), run_mode=run_mode, **more,
        )  # fmt: skip

    def sink_by(self, *words: str, run_mode: str = "PAPER", **more: Any) -> DispatchSink:
        """The dispatcher that `tradetape work dispatch` makes of these options, and of more settings."""
        parser = argparse.ArgumentParser()
        dispatch_executors.add_arguments(parser)
        settings = Settings(
            kafka_bootstrap_servers=self.kafka.bootstrap_servers,
            database_url=self.dispatch_dsn,
            run_mode=run_mode,
            **more,
        )
        letters: Any = MemoryDeadLetters(NAME)
        return dispatch_executors.sink_of(
            parser.parse_args(words), settings, self.kafka, self.codec, letters, Progress()
        )

    @contextmanager
    def dispatching(self, sink: DispatchSink) -> Iterator[EngineThread]:
        """The dispatcher at work under the Kafka engine; what it raises is raised at the end."""
        self._groups += 1
        engine = KafkaEngine(
            processor=sink, kafka=self.kafka, group=f"{self.catalogue.prefix}{self._groups}",
            dead_letters=sink._dead_letters,
        )  # fmt: skip
        with at_work(engine, close=sink.close) as thread:
            yield thread

    def dispatch_all(self, sink: DispatchSink) -> None:
        """Run a dispatcher until its offsets are behind every trade that is on the tape now."""
        ends = self.ends(self.topic(Trade))
        with self.dispatching(sink) as thread:
            eventually("the trades are dispatched", lambda: self.has_come_to(ends) or thread.failure is not None)

    def topic(self, event_class: type[Event]) -> str:
        return self.catalogue.topic_name(self.catalogue.by_class(event_class))

    def on_tape(self, event_class: type[Event]) -> list[dict[str, Any]]:
        """The events of a class, each once, in the order of the tape."""
        found: dict[str, dict[str, Any]] = {}
        for record in self.tape(self.topic(event_class)):
            fields = self.fields(record)
            found.setdefault(fields["event_id"], fields)
        return list(found.values())

    def outcomes(self, trade_id: str, leg_index: int = 0) -> list[str]:
        """What the tape says of an order, in order."""
        return [
            one["outcome"]
            for one in self.on_tape(TradeDispatch)
            if (one["trade_id"], one["leg_index"]) == (trade_id, leg_index)
        ]

    def fills(self) -> list[dict[str, Any]]:
        """The fills on the tape, by time."""
        return sorted(self.on_tape(Fill), key=lambda one: (one["event_time"], one["venue_trade_id"]))

    def repeats(self, event_class: type[Event]) -> Counter[str]:
        """How often each event lies on the tape."""
        return Counter(self.fields(record)["event_id"] for record in self.tape(self.topic(event_class)))

    def intents(self) -> list[Any]:
        """The table."""
        return self.rows("SELECT * FROM tradetape.dispatch_intents ORDER BY trade_id, leg_index, attempt")

    def worker_environment(self) -> dict[str, str]:
        """What a worker's process finds its services by."""
        return {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers, "DATABASE_URL": self.dispatch_dsn,
            "TRADETAPE_TOPIC_PREFIX": self.catalogue.prefix, "TRADETAPE_RUN_MODE": "PAPER", "TRADETAPE_LOG_FORMAT": "text",
        }  # fmt: skip


class OrderServer:
    """A far side in a process of its own, which notes every call on disk before it answers."""

    def __init__(self, folder: Path, *, plan: Mapping[str, Any] | None = None) -> None:
        self._book = folder / "calls.jsonl"
        self._plan = folder / "plan.json"
        self._book.touch()
        self.plan(plan or {})
        self._process = subprocess.Popen(
            [sys.executable, str(Path(__file__).with_name("order_server.py")), str(self._book), str(self._plan)],
            stdout=subprocess.PIPE, text=True, env={**os.environ, "PYTHONUNBUFFERED": "1"},
        )  # fmt: skip
        assert self._process.stdout is not None
        self.port = int(self._process.stdout.readline())

    def plan(self, plan: Mapping[str, Any]) -> None:
        """How to answer from now on; see order_server.py."""
        fresh = self._plan.with_suffix(".new")
        fresh.write_text(json.dumps(plan))
        fresh.replace(self._plan)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/orders"

    def calls(self) -> list[dict[str, Any]]:
        """Every request, in order."""
        return [json.loads(line) for line in self._book.read_text().splitlines()]

    def posts(self) -> list[str]:
        """The key of every order that was posted."""
        return [one["key"] for one in self.calls() if one["method"] == "POST"]

    def accepted(self) -> Counter[str]:
        """How many orders were taken under each key; a repeat to an idempotent far side is none."""
        return Counter(one["key"] for one in self.calls() if one["is_order"])

    def close(self) -> None:
        """End it."""
        self._process.send_signal(signal.SIGTERM)
        self._process.wait(10)
        assert self._process.stdout is not None
        self._process.stdout.close()
