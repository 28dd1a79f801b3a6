"""Topics on the broker as the catalogue declares them: created, brought into line, never deleted."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from concurrent.futures import Future
from contextlib import contextmanager
from typing import NamedTuple

from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    OffsetSpec,
    ResourceType,
    TopicMetadata,
)

from tradetape.console.errors import ConsoleError
from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.schemas import Catalogue
from tradetape.schemas.catalogue import Topic
from tradetape.streams.errors import BrokersUnreachable
from tradetape.streams.topic_reader import PASSING

LOCAL_PARTITIONS = 4
TIMEOUT_S = 20.0
REACH_TIMEOUT_S = 10.0
ASK_INTERVAL_S = 0.05
ASK_TIMEOUT_S = 2.0
_PASSING = (*PASSING, KafkaError._NOENT)
"""What is answered of a partition that has just been made, or changes its leader; _NOENT is "no leader found"."""


class Replicas(NamedTuple):
    """Where one partition lies: on how many brokers, how many of them have all of it, and whether one of them leads."""

    brokers: int
    in_sync: int
    is_led: bool


Layout = Mapping[str, Sequence[Replicas]]
"""The partitions of every topic."""


class Change(NamedTuple):
    """What apply did, or would do, to one topic: "create", "alter" or "same", and the settings that differ (from, to)."""

    topic: str
    action: str
    partitions: int
    replicas: int
    settings: Mapping[str, tuple[str | None, str]]


class Found(NamedTuple):
    """A topic as it is on the broker. Retention in milliseconds, -1 for ever; None where the topic is missing."""

    topic: str
    partitions: int | None
    retention_ms: int | None
    records: int | None


def admin_client(kafka: KafkaSettings, *, report: Callable[[KafkaError], None] | None = None) -> AdminClient:
    """A client of the brokers' administration; `report` is called, while it is polled, with what goes wrong inside."""
    return AdminClient(kafka.client_config({}) | {"error_cb": on_error(report)}, logger=logger)


def apply(
    admin: AdminClient,
    catalogue: Catalogue,
    *,
    partitions: int | None = None,
    replication: int | None = None,
    dry_run: bool = False,
) -> list[Change]:
    """Bring the broker's topics into line with the catalogue. Raises ConsoleError, BrokersUnreachable.

    Without `partitions` and `replication` new topics get as many as the others have; where there are none yet,
    LOCAL_PARTITIONS on one broker each. Topics that are there keep the brokers that they lie on.
    """
    layout = layout_of(admin)
    declared = catalogue.topics()
    there = [one for one in declared if one.name in layout]
    missing = [one for one in declared if one.name not in layout]
    if partitions is None:
        partitions = len(layout[there[0].name]) if there else LOCAL_PARTITIONS
    if replication is None:
        replication = max((replicas_of(layout[one.name]) for one in there), default=1)
    _refuse_other_counts(there, layout, partitions)
    changes = [
        Change(
            one.name,
            "create",
            partitions,
            replication,
            {name: (None, to) for name, to in _settings(one, replication).items()},
        )
        for one in missing
    ]
    changes += differences(admin, there, layout)
    if not dry_run:
        _create(admin, missing, partitions, replication)
        _alter(admin, [one for one in changes if one.action == "alter"])
    order = {one.name: place for place, one in enumerate(declared)}
    return sorted(changes, key=lambda change: order[change.topic])


def listed(admin: AdminClient, catalogue: Catalogue) -> list[Found]:
    """Every declared topic as it is on the broker. Raises ConsoleError, BrokersUnreachable."""
    counts = partition_counts(admin)
    declared = [one.name for one in catalogue.topics()]
    there = {name: counts[name] for name in declared if name in counts}
    settings, records = _configs(admin, list(there)), _record_counts(admin, there)
    return [
        Found(name, there[name], int(settings[name].get("retention.ms") or -1), records[name])
        if name in there
        else Found(name, None, None, None)
        for name in declared
    ]


def partition_counts(admin: AdminClient, *, timeout_s: float = REACH_TIMEOUT_S) -> dict[str, int]:
    """The number of partitions of every topic. Raises BrokersUnreachable."""
    return {name: len(one.partitions) for name, one in _metadata(admin, timeout_s).items()}


def layout_of(admin: AdminClient) -> Layout:
    """Where every topic lies. Raises BrokersUnreachable."""
    return {
        name: [Replicas(len(place.replicas), len(place.isrs), place.leader >= 0) for place in one.partitions.values()]
        for name, one in _metadata(admin, REACH_TIMEOUT_S).items()
    }


def replicas_of(partitions: Sequence[Replicas]) -> int:
    """How many brokers keep a topic: each of its partitions is on as many, or more."""
    return min(one.brokers for one in partitions)


def least_in_sync(replicas: int) -> int:
    """How many brokers must have a record before it is acknowledged: most of those that keep it.

    Then no loss of fewer brokers than that loses the record, and of three brokers one may be away.
    """
    return replicas // 2 + 1


def _settings(topic: Topic, replicas: int) -> dict[str, str]:
    """What a topic is set to where so many brokers keep it."""
    return topic.config() | {"min.insync.replicas": str(least_in_sync(replicas))}


def _metadata(admin: AdminClient, timeout_s: float) -> dict[str, TopicMetadata]:
    try:
        return admin.list_topics(timeout=timeout_s).topics
    except KafkaException as error:
        raise BrokersUnreachable(
            f"Kafka cannot be reached: {error.args[0].str()}; `tradetape doctor` says what mends it"
        ) from error


def differences(admin: AdminClient, there: Sequence[Topic], layout: Layout) -> list[Change]:
    """How the settings of topics that are there differ from what is declared. Raises ConsoleError."""
    settings = _configs(admin, [one.name for one in there])
    changes = []
    for one in there:
        now, places = settings[one.name], layout[one.name]
        declared = _settings(one, replicas_of(places))
        differing = {name: (now.get(name), to) for name, to in declared.items() if now.get(name) != to}
        action = "alter" if differing else "same"
        changes.append(Change(one.name, action, len(places), replicas_of(places), differing))
    return changes


def _refuse_other_counts(there: Sequence[Topic], layout: Layout, partitions: int) -> None:
    """Events of one symbol must stay in order and side by side: that rests on equal counts that never change."""
    for one in there:
        if (count := len(layout[one.name])) != partitions:
            raise ConsoleError(
                f"{one.name} has {count} partitions, not {partitions}; the count of a topic with events is "
                f"never changed: pass --partitions {count}, or use another TRADETAPE_TOPIC_PREFIX"
            )


def _configs(admin: AdminClient, names: Sequence[str]) -> dict[str, dict[str, str | None]]:
    """The settings of topics that are there, by topic and by Kafka's name. Raises ConsoleError."""
    if not names:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in names]
    found: dict[str, dict[str, str | None]] = {}
    for resource, future in admin.describe_configs(resources, request_timeout=TIMEOUT_S).items():
        with _refusals(f"cannot read the settings of {resource.name}"):
            found[resource.name] = {name: entry.value for name, entry in future.result().items()}
    return found


def _record_counts(admin: AdminClient, counts: Mapping[str, int]) -> dict[str, int]:
    """How many offsets each topic holds now, from its oldest record to its newest."""
    places = [TopicPartition(name, number) for name, count in counts.items() for number in range(count)]
    oldest, newest = (_offsets(admin, places, spec) for spec in (OffsetSpec.earliest(), OffsetSpec.latest()))
    records = dict.fromkeys(counts, 0)
    for place, offset in newest.items():
        records[place[0]] += offset - oldest[place]
    return records


def _offsets(admin: AdminClient, places: Sequence[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    """The offset of each place, once every partition has a leader that answers."""
    deadline = time.monotonic() + TIMEOUT_S
    while True:
        try:
            return _offsets_now(admin, places, spec)
        except KafkaException as error:
            if error.args[0].code() not in _PASSING or time.monotonic() > deadline:
                raise ConsoleError(f"cannot read offsets: {error.args[0].str()}") from error
        time.sleep(ASK_INTERVAL_S)


def _offsets_now(admin: AdminClient, places: Sequence[TopicPartition], spec: OffsetSpec) -> dict[tuple[str, int], int]:
    if not places:
        return {}
    asked = admin.list_offsets(dict.fromkeys(places, spec), request_timeout=ASK_TIMEOUT_S)
    return {(place.topic, place.partition): future.result().offset for place, future in asked.items()}


@contextmanager
def _refusals(what: str) -> Iterator[None]:
    try:
        yield
    except KafkaException as error:
        raise ConsoleError(f"{what}: {error.args[0].str()}") from error


def _create(admin: AdminClient, topics: Sequence[Topic], partitions: int, replication: int) -> None:
    if not topics:
        return
    asked = [NewTopic(one.name, partitions, replication, config=_settings(one, replication)) for one in topics]
    for name, future in admin.create_topics(asked, operation_timeout=TIMEOUT_S).items():
        with _refusals(f"cannot create {name}"):
            _created(future)
    _await_leaders(admin, {one.name for one in topics})


def _await_leaders(admin: AdminClient, names: Set[str]) -> None:
    """The controller acknowledges before the brokers know: whoever emits next must not meet an unknown topic."""
    deadline = time.monotonic() + TIMEOUT_S
    while not names <= _led(admin):
        if time.monotonic() > deadline:
            raise ConsoleError(f"no broker leads the new topics after {TIMEOUT_S:.0f} s; `tradetape doctor` says more")
        time.sleep(ASK_INTERVAL_S)


def _led(admin: AdminClient) -> set[str]:
    found = _metadata(admin, REACH_TIMEOUT_S)
    return {name for name, one in found.items() if all(place.leader >= 0 for place in one.partitions.values())}


def _created(future: Future[None]) -> None:
    try:
        future.result()
    except KafkaException as error:
        # Another `apply` was quicker with the same declaration.
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise


def _alter(admin: AdminClient, changes: Sequence[Change]) -> None:
    if not changes:
        return
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            change.topic,
            incremental_configs=[
                ConfigEntry(name, to, incremental_operation=AlterConfigOpType.SET)
                for name, (_, to) in change.settings.items()
            ],
        )
        for change in changes
    ]
    for resource, future in admin.incremental_alter_configs(resources, request_timeout=TIMEOUT_S).items():
        with _refusals(f"cannot change {resource.name}"):
            future.result()
