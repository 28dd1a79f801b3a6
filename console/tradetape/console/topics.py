"""Topics on the broker as the catalogue declares them: created, brought into line, never deleted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from tradetape.console.errors import ConsoleError
from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.schemas import Catalogue
from tradetape.schemas.catalogue import Topic
from tradetape.streams.errors import BrokersUnreachable

LOCAL_PARTITIONS = 4
TIMEOUT_S = 20.0


class Change(NamedTuple):
    """What apply did, or would do, to one topic: "create", "alter" or "same", and the settings that differ (from, to)."""

    topic: str
    action: str
    settings: Mapping[str, tuple[str | None, str]]


def admin_client(kafka: KafkaSettings) -> AdminClient:
    """A client of the brokers' administration."""
    return AdminClient(kafka.client_config({}) | {"error_cb": on_error()}, logger=logger)


def apply(
    admin: AdminClient,
    catalogue: Catalogue,
    *,
    partitions: int = LOCAL_PARTITIONS,
    replication: int = 1,
    dry_run: bool = False,
) -> list[Change]:
    """Bring the broker's topics into line with the catalogue. Raises ConsoleError, BrokersUnreachable."""
    found = partition_counts(admin)
    declared = catalogue.topics()
    _refuse_other_counts(declared, found, partitions)
    missing = [one for one in declared if one.name not in found]
    changes = [Change(one.name, "create", {name: (None, to) for name, to in one.config().items()}) for one in missing]
    changes += _differences(admin, [one for one in declared if one.name in found])
    if not dry_run:
        _create(admin, missing, partitions, replication)
        _alter(admin, [one for one in changes if one.action == "alter"])
    order = {one.name: place for place, one in enumerate(declared)}
    return sorted(changes, key=lambda change: order[change.topic])


def partition_counts(admin: AdminClient) -> dict[str, int]:
    """The number of partitions of every topic. Raises BrokersUnreachable."""
    try:
        topics = admin.list_topics(timeout=TIMEOUT_S).topics
    except KafkaException as error:
        raise BrokersUnreachable(f"Kafka cannot be reached: {error.args[0].str()}") from error
    return {name: len(one.partitions) for name, one in topics.items()}


def _refuse_other_counts(declared: Sequence[Topic], found: Mapping[str, int], partitions: int) -> None:
    """Events of one symbol must stay in order and side by side: that rests on equal counts that never change."""
    for one in declared:
        if found.get(one.name, partitions) != partitions:
            raise ConsoleError(
                f"{one.name} has {found[one.name]} partitions, not {partitions}; the count of a topic with events is "
                f"never changed: pass --partitions {found[one.name]}, or use another TRADETAPE_TOPIC_PREFIX"
            )


def _differences(admin: AdminClient, declared: Sequence[Topic]) -> list[Change]:
    if not declared:
        return []
    resources = {ConfigResource(ResourceType.TOPIC, one.name): one for one in declared}
    changes = []
    for resource, future in admin.describe_configs(list(resources), request_timeout=TIMEOUT_S).items():
        now = {name: entry.value for name, entry in future.result().items()}
        wanted = resources[resource].config()
        differing = {name: (now.get(name), to) for name, to in wanted.items() if now.get(name) != to}
        changes.append(Change(resource.name, "alter" if differing else "same", differing))
    return changes


def _create(admin: AdminClient, topics: Sequence[Topic], partitions: int, replication: int) -> None:
    if not topics:
        return
    asked = [NewTopic(one.name, partitions, replication, config=one.config()) for one in topics]
    for name, future in admin.create_topics(asked, operation_timeout=TIMEOUT_S).items():
        try:
            future.result()
        except KafkaException as error:
            raise ConsoleError(f"cannot create {name}: {error.args[0].str()}") from error


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
        try:
            future.result()
        except KafkaException as error:
            raise ConsoleError(f"cannot change {resource.name}: {error.args[0].str()}") from error
