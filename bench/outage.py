"""A bot's day in bad weather: what `emit` costs it in each, what is lost, and how soon all is back to normal.

One producer lives through every weather twice, at 2,000 market updates and 100 decisions a second, then through an outage.
A process beside it runs an empty loop of calls as long at the same time: what that one's tail shows is the machine's, not
ours.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from array import array
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import reduce
from pathlib import Path
from typing import NamedTuple

import psutil
from confluent_kafka import Consumer, TopicPartition

from bench.empty_loop import Kind
from bench.errors import BenchFailed
from bench.options import Options
from bench.progress import say
from bench.report import Report
from bench.sample import VENUE, symbol, update
from bench.services import PARTITIONS, Services
from bench.timing import NS_PER_MS, paced, percentiles
from bench.weather import ExposedBroker, Weather, exposed_broker
from tradetape.console.local.places import default_cache
from tradetape.console.topics import admin_client, apply
from tradetape.producers import Producer
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Catalogue,
    Codec,
    Direction,
    Event,
    IndicatorUpdate,
    RunMode,
    TradeSignal,
)

MARKET_PER_S, DECISIONS_PER_S = 2_000, 100
SERIES = 500
TURN_S = 0.01
MARKETS_A_TURN, DECISIONS_A_TURN = int(MARKET_PER_S * TURN_S), int(DECISIONS_PER_S * TURN_S)
WARM_UP_S = 1.0
WEATHER_S, QUICK_WEATHER_S = 30.0, 3.0
ROUNDS, QUICK_ROUNDS = 2, 1
OUTAGE_S, QUICK_OUTAGE_S, FULL_OUTAGE_S = 60.0, 5.0, 600.0
MARKET_LIMIT_MS, DECISION_LIMIT_MS = 1.0, 2.0
DRAIN_LIMIT_S = 60.0
HOST_MEMORY_LIMIT_MB = 60.0
MB = 1024 * 1024
FIRST_CLOSE = datetime(2025, 5, 10, tzinfo=UTC)


class Emits(NamedTuple):
    """What emits of one kind took, and how late calls of their length were in another process at the same time, in ns."""

    calls: Sequence[int]
    empty: Sequence[int]


class Spell(NamedTuple):
    """How emit fared in one weather."""

    market: Emits
    decision: Emits

    @classmethod
    def of(cls, calls: Iterable[Sequence[int]], empty: Iterable[Sequence[int]]) -> Spell:
        """Both kinds' times, and those of empty calls."""
        return cls(*map(Emits, calls, empty))

    def joined(self, other: Spell) -> Spell:
        """Two spells of the same weather as one."""
        return Spell(*(Emits([*a.calls, *b.calls], [*a.empty, *b.empty]) for a, b in zip(self, other, strict=True)))


class Bot:
    """Emits at a steady pace, and remembers what must be on the tape."""

    def __init__(self, tape: Producer) -> None:
        self._tape = tape
        self.decided: list[str] = []
        self.newest: dict[str, str] = {}
        self._updates = 0

    def trade(self, seconds: float, between: Callable[[], None] = lambda: None) -> tuple[array[int], array[int]]:
        """For so long; what each call took in nanoseconds, market updates and decisions."""
        market, decision = array("q"), array("q")
        turns = int(seconds / TURN_S)
        for turn in paced(turns, TURN_S):
            for _ in range(MARKETS_A_TURN):
                market.append(self._timed(self._update()))
            for _ in range(DECISIONS_A_TURN):
                decision.append(self._timed(self._decision()))
            if turn == turns // 2:
                between()
        return market, decision

    def _timed(self, event: Event) -> int:
        began = time.perf_counter_ns()
        stamped = self._tape.emit(event)
        took = time.perf_counter_ns() - began
        assert stamped.event_id is not None
        if isinstance(stamped, TradeSignal):
            self.decided.append(stamped.event_id)
        else:
            self.newest[stamped.symbol] = stamped.event_id
        return took

    def _update(self) -> IndicatorUpdate:
        self._updates += 1
        bar, place = divmod(self._updates, SERIES)
        return update(self._updates, symbol(place), FIRST_CLOSE + timedelta(minutes=bar), "1m")

    def _decision(self) -> TradeSignal:
        number = len(self.decided)
        return TradeSignal(
            strategy_id="bench", venue=VENUE, symbol=symbol(number % SERIES), timeframe="1m",
            bar_close_time=FIRST_CLOSE + timedelta(minutes=number), action=Action.ENTER, direction=Direction.LONG,
            reference_price="64123.10",
        )  # fmt: skip


def run(services: Services, options: Options) -> Report:
    """Measure. The broker is one of its own, since it is ill-treated."""
    spell_s = QUICK_WEATHER_S if options.quick else WEATHER_S
    rounds = QUICK_ROUNDS if options.quick else ROUNDS
    outage_s = QUICK_OUTAGE_S if options.quick else FULL_OUTAGE_S if options.full else OUTAGE_S
    report = Report("outage", f"{MARKET_PER_S:,} market updates and {DECISIONS_PER_S} decisions/s in every weather")
    with ExitStack() as held:
        home = Path(held.enter_context(tempfile.TemporaryDirectory(prefix="tradetape-outage-")))
        broker = held.enter_context(exposed_broker(home, default_cache()))
        catalogue = CATALOGUE.with_prefix("bench-outage.")
        apply(admin_client(KafkaSettings(bootstrap_servers=broker.address)), catalogue, partitions=PARTITIONS)
        tape = held.enter_context(
            Producer(
                bootstrap_servers=broker.address, source="bench", run_mode=RunMode.BACKTEST, catalogue=catalogue,
                outbox_dir=home / "outbox",
            )
        )  # fmt: skip
        bot = Bot(tape)
        kinds = _kinds(bot)
        spells: defaultdict[str, list[Spell]] = defaultdict(list)
        for number in range(rounds):
            say(f"outage: round {number + 1} of {rounds}")
            for weather in Weather:
                broker.proxy.turn(weather)
                spells[weather.value].append(_spell(bot, kinds, weather.value, spell_s))
            broker.proxy.turn(Weather.FAIR)
            spells["restarting"].append(_spell(bot, kinds, "restarting", spell_s, broker.begin_restart))
            broker.kafka.up()
        for name, found in spells.items():
            _show(report, name, reduce(Spell.joined, found))
        _outage(report, broker, tape, bot, kinds, outage_s)
        _check(report, broker, catalogue, bot)
    return report


def _kinds(bot: Bot) -> list[Kind]:
    """Empty calls as long as the emit of an update and of a decision in fair weather."""
    market, decision = bot.trade(WARM_UP_S)
    return [Kind(MARKETS_A_TURN, int(percentiles(market).p50)), Kind(DECISIONS_A_TURN, int(percentiles(decision).p50))]


def _spell(bot: Bot, kinds: list[Kind], name: str, seconds: float, between: Callable[[], None] = lambda: None) -> Spell:
    say(f"outage: the broker is {name}")
    with _empty_loop(seconds, kinds) as empty:
        calls = bot.trade(seconds, between)
    return Spell.of(calls, empty)


@contextmanager
def _empty_loop(seconds: float, kinds: list[Kind]) -> Iterator[list[list[int]]]:
    """The same pace without emits, in a process of its own; how late its calls were stands in the list at the end."""
    found: list[list[int]] = []
    command = [sys.executable, "-m", "bench.empty_loop", str(seconds), str(TURN_S), *map(str, kinds)]
    root = Path(__file__).resolve().parents[1]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=root) as process:
        yield found
        printed, _ = process.communicate(timeout=seconds + 30)
        found += json.loads(printed)


def _show(report: Report, name: str, spell: Spell) -> None:
    for kind, emits, limit_ms in (
        ("market update", spell.market, MARKET_LIMIT_MS),
        ("decision", spell.decision, DECISION_LIMIT_MS),
    ):
        calls, empty = percentiles(emits.calls), percentiles(emits.empty)
        report.figure(f"{name}: emit of a {kind}, p50", "ms", calls.p50 / NS_PER_MS)
        report.figure(f"{name}: emit of a {kind}, p99.9", "ms", calls.p999 / NS_PER_MS)
        report.figure(f"{name}: an empty call as long as a {kind}, p99.9 beyond that", "ms", empty.p999 / NS_PER_MS)
        above_ms = max(0.0, calls.p999 - empty.p999) / NS_PER_MS
        report.at_most(f"{name}: p99.9 of a {kind} above an empty loop's, ms", above_ms, limit_ms)


def _outage(report: Report, broker: ExposedBroker, tape: Producer, bot: Bot, kinds: list[Kind], seconds: float) -> None:
    if not tape.flush(DRAIN_LIMIT_S):
        raise BenchFailed(f"the tape did not drain before the outage: {tape.health()}")
    process = psutil.Process()
    before = process.memory_info().rss / MB
    broker.proxy.turn(Weather.HANGING)
    name = f"away for {seconds:.0f} s"
    say(f"outage: the broker is {name}")
    with _empty_loop(seconds, kinds) as empty:
        calls = bot.trade(seconds)
        after = process.memory_info().rss / MB
    _show(report, name, Spell.of(calls, empty))
    broker.proxy.turn(Weather.FAIR)
    began = time.monotonic()
    drained = tape.flush(2 * DRAIN_LIMIT_S)
    took_s = time.monotonic() - began
    report.figure("memory that the outage took", "MB", after - before)
    report.figure("until all was drained", "s", took_s)
    report.at_most("memory that the outage took, MB", after - before, HOST_MEMORY_LIMIT_MB)
    report.at_most("until all was drained, s", took_s if drained else float("inf"), DRAIN_LIMIT_S)
    report.figure("market updates that made room for newer ones", "events", tape.health().dropped.get("overflow", 0))


def _check(report: Report, broker: ExposedBroker, catalogue: Catalogue, bot: Bot) -> None:
    decided = [fields["event_id"] for fields in _read(broker, catalogue, TradeSignal)]
    report.figure("decisions emitted", "events", len(bot.decided))
    report.at_most("decisions lost", len(set(bot.decided) - set(decided)), 0, must_hold=True)
    report.figure("decisions sent more than once", "records", len(decided) - len(set(decided)))
    last = {fields["symbol"]: fields["event_id"] for fields in _read(broker, catalogue, IndicatorUpdate)}
    wrong = sum(last.get(one) != event_id for one, event_id in bot.newest.items())
    report.at_most("series whose newest update is not the last on the tape", wrong, 0, must_hold=True)


def _read(broker: ExposedBroker, catalogue: Catalogue, event_class: type) -> Iterator[dict[str, str]]:
    topic = catalogue.topic_name(catalogue.by_class(event_class))
    codec = Codec(catalogue)
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "check", "enable.auto.commit": False})
    try:
        places = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        left = sum(consumer.get_watermark_offsets(place, timeout=30)[1] for place in places)
        consumer.assign(places)
        while left:
            found = consumer.consume(5_000, 10.0)
            if not found:
                raise BenchFailed(f"{left} records of {topic} could not be read")
            left -= len(found)
            for one in found:
                yield codec.decode_fields(topic, one.value())
    finally:
        consumer.close()
