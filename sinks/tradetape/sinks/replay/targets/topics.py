"""Replays into topics of another prefix: keys, partitions and order are kept, times of the records are now.

Events say that they are a replay, unless the bytes are wanted as they are; each record's header names the replay.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

from confluent_kafka import KafkaError, KafkaException, Message, Producer
from confluent_kafka.admin import AdminClient, NewTopic

from tradetape.producers.client import FIXED
from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.schemas import Catalogue, Codec, EventError, RunMode
from tradetape.sinks.errors import ReplayRefused
from tradetape.sinks.replay.plan import TOPIC, Plan
from tradetape.sinks.replay.refusals import Refusals
from tradetape.sinks.replay.targets.target import Difference
from tradetape.streams.errors import BrokersUnreachable
from tradetape.streams.record import REPLAY_HEADER, Record

DELIVERY_TIMEOUT_MS = 60_000
FLUSH_TIMEOUT_S = 90.0
ANSWER_TIMEOUT_S = 20.0
QUEUE_WAIT_S = 0.1
BROKERS_OWN_REPLICATION = -1
DEFAULTS = {
    "compression.type": "lz4",
    "linger.ms": 5,
    "delivery.timeout.ms": DELIVERY_TIMEOUT_MS,
    "queue.buffering.max.messages": 100_000,
    "queue.buffering.max.kbytes": 65_536,
    # Their times are now, which is what retention goes by: events of years ago stay as long as those of today.
    "client.id": "tradetape-replay",
}


def target_topics(plan: Plan, catalogue: Catalogue) -> dict[str, str]:
    """The topic that each topic is replayed into. Raises ReplayRefused for topics of the live prefix."""
    request = plan.request
    if request.kind == TOPIC:
        if len(plan.topics) != 1:
            raise ReplayRefused("one topic takes one topic: name it with --topics, or use topics:PREFIX for more")
        found = {plan.topics[0]: request.name}
    else:
        found = {one: request.name + one.removeprefix(catalogue.prefix) for one in plan.topics}
    live = {one.name for one in catalogue.topics()}
    for target in found.values():
        if target in live:
            raise ReplayRefused(f"{target} is a topic of the live prefix {catalogue.prefix}: name another prefix")
    return found


class TopicsTarget:
    """Writes records to other topics, which it makes where they are missing."""

    begins_anew = False

    def __init__(
        self,
        *,
        kafka: KafkaSettings,
        codec: Codec,
        plan: Plan,
        run_id: str,
        refusals: Refusals,
    ) -> None:
        """Raises ReplayRefused, SettingsError."""
        self.counts: Counter[str] = Counter()
        self._topics = target_topics(plan, codec.catalogue)
        self._plan = plan
        self._catalogue = codec.catalogue
        self._codec = codec
        self._header = (REPLAY_HEADER, run_id.encode())
        self._refusals = refusals
        self._failure: KafkaError | None = None
        self._admin = AdminClient(kafka.client_config({}) | {"error_cb": on_error()}, logger=logger)
        config = kafka.client_config(DEFAULTS, fixed=FIXED)
        self._producer = Producer(
            config | {"error_cb": on_error(), "on_delivery": self._report, "delivery.report.only.error": True},
            logger=logger,
        )

    def check(self) -> None:
        """Raises ReplayRefused where a topic that is there has another number of partitions."""
        there = self._there()
        for target, partitions in self._wanted().items():
            if there.get(target, partitions) != partitions:
                raise ReplayRefused(f"{target} has {there[target]} partitions, not {partitions}: order would be lost")

    def open(self) -> None:
        """Make the topics that are missing, as their sources are. Raises BrokersUnreachable."""
        there = self._there()
        settings = {one.name: one.config() for one in self._catalogue.topics()}
        new = [
            NewTopic(target, self._wanted()[target], BROKERS_OWN_REPLICATION, config=settings[source])
            for source, target in self._topics.items()
            if target not in there
        ]
        try:
            for made in self._admin.create_topics(new, operation_timeout=ANSWER_TIMEOUT_S).values() if new else ():
                made.result()
        except KafkaException as error:
            raise BrokersUnreachable(f"Kafka does not make the topics: {error.args[0].str()}") from error

    def _wanted(self) -> dict[str, int]:
        """How many partitions each target has to have."""
        sources = Counter(one.topic for one in self._plan.places)
        return {target: sources[source] for source, target in self._topics.items()}

    def _there(self) -> dict[str, int]:
        """How many partitions each topic has."""
        try:
            found = self._admin.list_topics(timeout=ANSWER_TIMEOUT_S).topics
        except KafkaException as error:
            raise BrokersUnreachable(f"Kafka does not say which topics there are: {error.args[0].str()}") from error
        return {name: len(one.partitions) for name, one in found.items()}

    def write(self, records: Sequence[Record], stream_time_us: int) -> None:
        """Write them and wait until Kafka has acknowledged each. Raises BrokersUnreachable."""
        for record in records:
            value = self._value(record)
            if value is not None:
                self._produce(record, value)
        waiting = self._producer.flush(FLUSH_TIMEOUT_S)
        failure, self._failure = self._failure, None
        if waiting or failure is not None:
            self._producer.purge()
            cause = failure.str() if failure is not None else f"not acknowledged within {FLUSH_TIMEOUT_S:.0f} s"
            raise BrokersUnreachable(f"Kafka does not take what is replayed: {cause}")

    def _value(self, record: Record) -> bytes | None:
        if self._plan.request.verbatim:
            return record.value
        plain = self._codec.decode_fields(record.topic, record.value)
        plain["run_mode"] = RunMode.REPLAY.value
        try:
            return self._codec.encode(self._catalogue.by_topic(record.topic), plain)
        except EventError as error:
            # The bytes in between can be fewer than what its newest schema needs.
            self._refusals.send(record, "oversized", error, stage="VALUE_CONVERTER")
            return None

    def _produce(self, record: Record, value: bytes) -> None:
        headers = [*record.headers, self._header]
        while True:
            try:
                self._producer.produce(
                    self._topics[record.topic], value=value, key=record.key, partition=record.partition, headers=headers  # type: ignore[arg-type]
                )  # fmt: skip
                self.counts["written"] += 1
                return
            except BufferError:
                self._producer.poll(QUEUE_WAIT_S)

    def _report(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            self._failure = error

    def finish(self) -> list[Difference]:
        """Nothing to compare."""
        return []

    def close(self) -> None:
        """Give up what is still on its way, after a failure."""
        self._producer.purge()
        self._producer.flush(1.0)
