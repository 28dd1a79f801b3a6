"""One run of the demo from start to end: stack, topics, tables, workers, bot, and then the proof.

This is the demo's composition: the parts know nothing of each other.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import psycopg
import redis

from tradetape.console import topics
from tradetape.console.demo import rows
from tradetape.console.demo.emission import Emission, Plan
from tradetape.console.demo.gauges import Gauges, LagGauge, Snapshot, Stall
from tradetape.console.demo.group_offsets import GroupOffsets
from tradetape.console.demo.ledger import Ledger
from tradetape.console.demo.probes import Probe
from tradetape.console.demo.proof import Proof, Prover
from tradetape.console.demo.venue import claim
from tradetape.console.demo.workers import Workers
from tradetape.console.errors import DemoFailed
from tradetape.console.local.stack import LocalStack
from tradetape.console.registration import register_all
from tradetape.producers.codecs import codec_of
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import Settings, load
from tradetape.schemas import Catalogue, Codec, Event, MarketCondition, times
from tradetape.schemas.stamping import wall_clock_us
from tradetape.sinks.history.connection import connect as connect_history
from tradetape.sinks.history.migrate import migrate
from tradetape.streams.processor import Partition
from tradetape.streams.processors.current_state import RECORDS
from tradetape.streams.state.connection import connect as connect_state
from tradetape.streams.state.keys import DAILY_HORIZON_US, Keys
from tradetape.streams.topic_reader import Offsets, TopicReader

LOOK_INTERVAL_S = 0.25
ROW_ASK_INTERVAL_S = 0.02
STATE_ASK_INTERVAL_S = 0.002
GROUPS = {"state": "tradetape-state", "history": "tradetape-history"}
"""The consumer groups of the workers: the ones that `tradetape work` takes by default."""

Show = Callable[[Snapshot], None]
Say = Callable[[str], None]


class Outcome(NamedTuple):
    """What a run came to. Median latencies in seconds from emit until it can be read, None where unmeasured."""

    venue: str
    emitted: int
    duration_s: float
    latencies_s: dict[str, float | None]
    proof: Proof


class Services(NamedTuple):
    """The three services as the demo itself reads them; none of these connections is a worker's."""

    settings: Settings
    codec: Codec
    reader: TopicReader
    history: psycopg.Connection
    state: redis.Redis
    keys: Keys

    @property
    def catalogue(self) -> Catalogue:
        """The events and their topics."""
        return self.codec.catalogue


def carry_out(stack: LocalStack, plan: Plan, *, engine: str, show: Show, say: Say) -> Outcome:
    """Run the demo. Raises StackError, DemoFailed, and what a service's client raises when that service goes away."""
    say("Starting Kafka, PostgreSQL and Redis (the first start fetches Kafka, about 45 MB) …")
    environment = _environment(stack)
    settings = load(environment)
    _prepare(settings)
    with _services(settings) as services:
        venue = claim(stack.places.logs, used=rows.venues(services.history, services.catalogue.by_record("Candle")))
        partitions = services.reader.partitions([one.name for one in services.catalogue.topics()])
        starts = services.reader.ends(partitions)
        emission = Emission(plan=plan, settings=settings, venue=venue)
        say(f"Starting the workers: history, and current state on {engine} …")
        with Workers(venue=venue, logs=stack.places.logs, environment=environment) as workers:
            workers.start("state", "work", "state", "--engine", engine)
            workers.start("history", "work", "history")
            duration_s, latencies_s = _play(emission, workers, services, partitions, starts, show)
            _end(workers)
        say("Reconciling Kafka, PostgreSQL and Redis …")
        prover = Prover(
            codec=services.codec, reader=services.reader, history=services.history, state=services.state,
            keys=services.keys,
        )  # fmt: skip
        ends = services.reader.ends(partitions)
        proof = prover.prove(venue=venue, emitted=emission.ledger.ids, starts=starts, ends=ends)
        return Outcome(venue, emission.ledger.count, duration_s, latencies_s, proof)


def _environment(stack: LocalStack) -> dict[str, str]:
    """Ours, but with the local stack's services: the demo never touches what somebody else's variables name."""
    foreign = ("TRADETAPE_", "KAFKA_", "REDIS_URL", "DATABASE_URL", "SCHEMA_REGISTRY_URL")
    ours = {name: value for name, value in os.environ.items() if not name.startswith(foreign)}
    return {**ours, **stack.up()}


def _prepare(settings: Settings) -> None:
    topics.apply(topics.admin_client(KafkaSettings.of(settings)), settings.catalogue())
    migrate(settings.required("DATABASE_URL"))
    if settings.schema_registry_url:
        for one in register_all(settings):
            if one.refusal is not None:
                raise DemoFailed(f"{one.subject}: {one.refusal}")


@contextmanager
def _services(settings: Settings) -> Iterator[Services]:
    with (
        closing(TopicReader(KafkaSettings.of(settings))) as reader,
        closing(connect_state(settings.required("REDIS_URL"))) as state,
        connect_history(settings.required("DATABASE_URL"), application="tradetape-demo") as history,
    ):
        yield Services(settings, codec_of(settings), reader, history, state, Keys(settings.redis_prefix))


def _play(
    emission: Emission,
    workers: Workers,
    services: Services,
    partitions: Sequence[Partition],
    starts: Offsets,
    show: Show,
) -> tuple[float, dict[str, float | None]]:
    """Let the bot play, and watch until both workers have taken everything; how long it took, and the latencies."""
    probes = _probes(emission.ledger, services)
    with ExitStack() as last:
        lags = [last.enter_context(closing(_lag_gauge(name, services, partitions, starts))) for name in GROUPS]
        gauges = Gauges(reader=services.reader, workers=lags, partitions=partitions, emission=emission, probes=probes)
        began = time.monotonic()
        parts: list[Emission | Probe] = [emission, *probes]
        for part in parts:
            last.callback(part.stop)
            part.start()
        _watch(emission, workers, gauges, show)
        return time.monotonic() - began, {probe.name: probe.median_s() for probe in probes}


def _watch(emission: Emission, workers: Workers, gauges: Gauges, show: Show) -> None:
    stall = Stall()
    while True:
        workers.check()
        is_played = emission.is_done()
        snapshot = gauges.read()
        show(snapshot)
        if is_played and not any(worker.lag for worker in snapshot.workers.values()):
            return
        stall.look(snapshot)
        time.sleep(LOOK_INTERVAL_S)


def _end(workers: Workers) -> None:
    failed = {name: code for name, code in workers.stop().items() if code}
    if failed:
        told = ", ".join(f"{name} with exit code {code}" for name, code in failed.items())
        raise DemoFailed(f"not every worker ended in order: {told}; their logs say why")


def _lag_gauge(name: str, services: Services, partitions: Sequence[Partition], starts: Offsets) -> LagGauge:
    catalogue = services.catalogue
    records = RECORDS if name == "state" else [one.record for one in catalogue]
    read = {catalogue.topic_name(catalogue.by_record(record)) for record in records}
    offsets = GroupOffsets(KafkaSettings.of(services.settings), GROUPS[name])
    return LagGauge(
        name=name, offsets=offsets, partitions=[one for one in partitions if one.topic in read], starts=starts
    )


def _probes(ledger: Ledger, services: Services) -> list[Probe]:
    """Redis shows candles of the last minutes only, so it is asked for market conditions, which stay for a day."""
    candles = services.catalogue.by_record("Candle")
    return [
        Probe(
            name="Redis",
            pick=lambda: _current(ledger.latest.get("MarketCondition")),
            is_there=lambda event: _holds(services.state, services.keys, event),
            ask_interval_s=STATE_ASK_INTERVAL_S,
        ),
        Probe(
            name="PostgreSQL",
            pick=lambda: ledger.latest.get("Candle"),
            is_there=lambda event: rows.is_stored(services.history, candles, event),
            ask_interval_s=ROW_ASK_INTERVAL_S,
        ),
    ]


def _current(event: Event | None) -> Event | None:
    """The event, if Redis keeps one of its age."""
    if event is None or event.event_time is None:
        return None
    return event if wall_clock_us() - times.from_datetime(event.event_time) < DAILY_HORIZON_US else None


def _holds(client: redis.Redis, keys: Keys, event: Event) -> bool:
    """Whether Redis holds this market condition or a newer one."""
    assert isinstance(event, MarketCondition)
    assert event.event_time
    held = client.hget(keys.market(event.scope, event.venue, event.symbol), "_t")
    return held is not None and int(held) >= times.from_datetime(event.event_time)
