"""One run of the demo from start to end: services, workers, bot, and then the proof.

This is the demo's composition: the parts know nothing of each other.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, closing, contextmanager
from typing import NamedTuple

import psycopg
import redis

from tradetape.console.demo import rows
from tradetape.console.demo.course import Course
from tradetape.console.demo.emission import Emission, Plan
from tradetape.console.demo.gauges import Gauges, LagGauge, Rest, Snapshot, Stall
from tradetape.console.demo.ground import Crew, Ground
from tradetape.console.demo.group_offsets import GroupOffsets
from tradetape.console.demo.ledger import Ledger
from tradetape.console.demo.probes import Probe
from tradetape.console.demo.proof import Proof, Prover
from tradetape.console.demo.roles import Role, made_by
from tradetape.console.demo.venue import claim
from tradetape.console.errors import DemoFailed
from tradetape.producers.codecs import codec_of
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import Settings, load
from tradetape.schemas import Catalogue, Codec, Event, MarketCondition, times
from tradetape.schemas.stamping import wall_clock_us
from tradetape.sinks.history.connection import connect as connect_history
from tradetape.streams.processor import Partition
from tradetape.streams.state.connection import connect as connect_state
from tradetape.streams.state.keys import DAILY_HORIZON_US, Keys
from tradetape.streams.topic_reader import Offsets, TopicReader

LOOK_INTERVAL_S = 0.25
ROW_ASK_INTERVAL_S = 0.02
STATE_ASK_INTERVAL_S = 0.002
Show = Callable[[Snapshot], None]
Say = Callable[[str], None]


class Outcome(NamedTuple):
    """What a run came to. Median latencies in seconds from emit until it can be read, None where unmeasured."""

    venue: str
    emitted: int
    duration_s: float
    latencies_s: dict[str, float | None]
    proof: Proof
    next_commands: tuple[str, ...] = ()


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


def carry_out(ground: Ground, plan: Plan, *, show: Show, say: Say) -> Outcome:
    """Run the demo. Raises StackError, DemoFailed, and what a service's client raises when that service goes away."""
    settings = load(ground.environment())
    ground.prepare(settings)
    with _services(settings) as services:
        venue = claim(ground.logs, used=rows.venues(services.history, services.catalogue.by_record("Candle")))
        partitions = services.reader.partitions([one.name for one in services.catalogue.topics()])
        starts = services.reader.ends(partitions)
        emission = Emission(plan=plan, settings=settings, venue=venue)
        with ground.workers(venue) as workers:
            roles = ground.roles(settings)
            names = ", ".join(role.name for role in roles)
            say(f"Playing {len(plan.symbols)} symbols of venue {venue} to the workers {names} …")
            duration_s, latencies_s = _play(emission, workers, roles, services, partitions, starts, show, ground.rest_s)
            _end(workers)
        say("Reconciling Kafka, PostgreSQL and Redis …")
        prover = Prover(
            codec=services.codec, reader=services.reader, history=services.history, state=services.state,
            keys=services.keys,
        )  # fmt: skip
        ends = services.reader.ends(partitions)
        proof = prover.prove(venue=venue, emitted=emission.ledger.ids, made=made_by(roles), starts=starts, ends=ends)
        return Outcome(venue, emission.ledger.count, duration_s, latencies_s, proof, tuple(ground.next_commands))


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
    workers: Crew,
    roles: Sequence[Role],
    services: Services,
    partitions: Sequence[Partition],
    starts: Offsets,
    show: Show,
    rest_s: float,
) -> tuple[float, dict[str, float | None]]:
    """Let the bot play, and watch until all that follows is done and stored; how long it took, and the latencies."""
    probes = _probes(emission.ledger, services)
    course = Course(
        codec=services.codec, reader=services.reader, history=services.history, venue=emission.venue,
        made=made_by(roles), starts=starts,
    )  # fmt: skip
    with ExitStack() as last:
        lags = [last.enter_context(closing(_lag_gauge(role, services, partitions, starts))) for role in roles]
        gauges = Gauges(reader=services.reader, workers=lags, partitions=partitions, emission=emission, probes=probes)
        began = time.monotonic()
        parts: list[Emission | Probe] = [emission, *probes]
        for part in parts:
            last.callback(part.stop)
            part.start()
        _watch(emission, workers, gauges, course, show, rest_s)
        return time.monotonic() - began, {probe.name: probe.median_s() for probe in probes}


def _watch(emission: Emission, workers: Crew, gauges: Gauges, course: Course, show: Show, rest_s: float) -> None:
    stall, rest = Stall(), Rest(rest_s)
    while True:
        workers.check()
        # In this order: what follows from an event is on the tape before anybody is asked how far he is behind its end.
        coming = course.still_to_come(emission.market_end_us()) if emission.is_done() else None
        snapshot = gauges.read(coming)
        show(snapshot)
        if coming is not None and not coming and rest.look(snapshot):
            return
        stall.look(snapshot)
        time.sleep(LOOK_INTERVAL_S)


def _end(workers: Crew) -> None:
    failed = {name: code for name, code in workers.stop().items() if code}
    if failed:
        told = ", ".join(f"{name} with exit code {code}" for name, code in failed.items())
        raise DemoFailed(f"not every worker ended in order: {told}; their logs say why")


def _lag_gauge(role: Role, services: Services, partitions: Sequence[Partition], starts: Offsets) -> LagGauge:
    topics = role.topics(services.catalogue)
    offsets = GroupOffsets(KafkaSettings.of(services.settings), role.group)
    return LagGauge(
        name=role.name, offsets=offsets, partitions=[one for one in partitions if one.topic in topics], starts=starts
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
