"""`topics apply` makes the broker what the catalogue declares, and never deletes or repartitions; `list` tells what is."""

from __future__ import annotations

import threading
import time

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, AlterConfigOpType, ConfigEntry, ConfigResource, NewTopic, ResourceType

from tradetape.console import topics
from tradetape.console.errors import ConsoleError
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import CATALOGUE, Catalogue
from tradetape.streams.errors import BrokersUnreachable

DAY_MS = 24 * 60 * 60 * 1000
RETENTION_DAYS = {
    "candles": 30, "indicator-updates": 30, "market-conditions": 90, "dead-letters": 90,
    "trade-signals": None, "signal-decisions": None, "trades": None, "trade-dispatches": None, "fills": None,
    "trades-closed": None,
}  # fmt: skip
"""The design's table of topics; None for ever."""
TIMEOUT_S = 20.0


@pytest.fixture
def admin(kafka: str) -> AdminClient:
    return topics.admin_client(KafkaSettings(bootstrap_servers=kafka))


@pytest.fixture
def catalogue(topic_prefix: str) -> Catalogue:
    return CATALOGUE.with_prefix(topic_prefix)


def on_the_broker(admin: AdminClient, catalogue: Catalogue) -> dict[str, int]:
    """The partitions of each topic under the prefix, asked with a client's own words."""
    found = admin.list_topics(timeout=TIMEOUT_S).topics
    return {name: len(one.partitions) for name, one in found.items() if name.startswith(catalogue.prefix)}


def settings_of(admin: AdminClient, topic: str) -> dict[str, str | None]:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    found = admin.describe_configs([resource], request_timeout=TIMEOUT_S)[resource].result()
    return {name: entry.value for name, entry in found.items()}


def await_setting(admin: AdminClient, topic: str, name: str, value: str) -> None:
    """The broker knows of a change a little after the controller acknowledged it."""
    deadline = time.monotonic() + TIMEOUT_S
    while (found := settings_of(admin, topic)[name]) != value:
        assert time.monotonic() < deadline, f"{topic}: {name} is still {found}"
        time.sleep(0.02)


def set_on_the_broker(admin: AdminClient, topic: str, name: str, value: str) -> None:
    entry = ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
    resource = ConfigResource(ResourceType.TOPIC, topic, incremental_configs=[entry])
    admin.incremental_alter_configs([resource], request_timeout=TIMEOUT_S)[resource].result()
    await_setting(admin, topic, name, value)


def create(admin: AdminClient, topic: str, partitions: int) -> None:
    admin.create_topics([NewTopic(topic, partitions, 1)], operation_timeout=TIMEOUT_S)[topic].result()
    deadline = time.monotonic() + TIMEOUT_S
    # The controller acknowledges before the broker tells of it.
    while topic not in admin.list_topics(timeout=TIMEOUT_S).topics and time.monotonic() < deadline:
        time.sleep(0.02)


def actions(changes: list[topics.Change]) -> set[str]:
    return {one.action for one in changes}


def test_apply_creates_every_topic_of_the_design_with_its_retention(admin: AdminClient, catalogue: Catalogue) -> None:
    assert actions(topics.apply(admin, catalogue)) == {"create"}
    assert on_the_broker(admin, catalogue) == {catalogue.prefix + name: 4 for name in RETENTION_DAYS}
    for name, days in RETENTION_DAYS.items():
        found = settings_of(admin, catalogue.prefix + name)
        assert found["retention.ms"] == str(-1 if days is None else days * DAY_MS), name
        assert found["cleanup.policy"] == "delete"


def test_a_second_apply_changes_nothing(admin: AdminClient, catalogue: Catalogue) -> None:
    topics.apply(admin, catalogue)
    assert actions(topics.apply(admin, catalogue)) == {"same"}


def test_a_dry_run_tells_and_creates_nothing(admin: AdminClient, catalogue: Catalogue) -> None:
    told = topics.apply(admin, catalogue, partitions=6, dry_run=True)
    assert {(one.topic.removeprefix(catalogue.prefix), one.action, one.partitions) for one in told} == {
        (name, "create", 6) for name in RETENTION_DAYS
    }
    assert on_the_broker(admin, catalogue) == {}


def test_a_setting_that_somebody_changed_is_told_and_set_back(admin: AdminClient, catalogue: Catalogue) -> None:
    topics.apply(admin, catalogue)
    trades = f"{catalogue.prefix}trades"
    set_on_the_broker(admin, trades, "retention.ms", "60000")

    told = {one.topic: one for one in topics.apply(admin, catalogue, dry_run=True)}
    assert dict(told[trades].settings) == {"retention.ms": ("60000", "-1")}
    assert settings_of(admin, trades)["retention.ms"] == "60000"

    assert actions(topics.apply(admin, catalogue)) == {"alter", "same"}
    await_setting(admin, trades, "retention.ms", "-1")


def test_a_setting_that_the_catalogue_does_not_declare_is_left_alone(admin: AdminClient, catalogue: Catalogue) -> None:
    topics.apply(admin, catalogue)
    trades = f"{catalogue.prefix}trades"
    set_on_the_broker(admin, trades, "segment.bytes", "33554432")
    assert actions(topics.apply(admin, catalogue)) == {"same"}
    assert settings_of(admin, trades)["segment.bytes"] == "33554432"


def test_topics_that_are_not_declared_are_never_touched(admin: AdminClient, catalogue: Catalogue) -> None:
    foreign = f"{catalogue.prefix}somebody-elses"
    create(admin, foreign, 3)
    told = topics.apply(admin, catalogue)
    assert foreign not in {one.topic for one in told}
    assert on_the_broker(admin, catalogue)[foreign] == 3


def test_another_number_of_partitions_is_refused_and_nothing_is_created(
    admin: AdminClient, catalogue: Catalogue
) -> None:
    create(admin, f"{catalogue.prefix}trades", 3)
    with pytest.raises(ConsoleError, match=r"trades has 3 partitions, not 4.*--partitions 3"):
        topics.apply(admin, catalogue, partitions=4)
    assert on_the_broker(admin, catalogue) == {f"{catalogue.prefix}trades": 3}


def test_a_missing_topic_gets_as_many_partitions_as_the_others_have(admin: AdminClient, catalogue: Catalogue) -> None:
    create(admin, f"{catalogue.prefix}trades", 3)
    topics.apply(admin, catalogue)
    assert set(on_the_broker(admin, catalogue).values()) == {3}


def test_topics_with_unequal_numbers_of_partitions_are_refused(admin: AdminClient, catalogue: Catalogue) -> None:
    create(admin, f"{catalogue.prefix}trades", 3)
    create(admin, f"{catalogue.prefix}fills", 5)
    with pytest.raises(ConsoleError, match=r"the count of a topic with events is never changed"):
        topics.apply(admin, catalogue)


def test_two_applies_at_once_both_succeed(kafka: str, catalogue: Catalogue) -> None:
    failures: list[Exception] = []
    together = threading.Barrier(3)

    def apply() -> None:
        admin = topics.admin_client(KafkaSettings(bootstrap_servers=kafka))
        together.wait()
        try:
            topics.apply(admin, catalogue)
        except ConsoleError as error:
            failures.append(error)

    threads = [threading.Thread(target=apply) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    admin = topics.admin_client(KafkaSettings(bootstrap_servers=kafka))
    assert len(on_the_broker(admin, catalogue)) == len(RETENTION_DAYS)


def test_more_replicas_than_brokers_are_refused_in_one_sentence(admin: AdminClient, catalogue: Catalogue) -> None:
    with pytest.raises(ConsoleError, match=r"cannot create .*[Rr]eplication factor"):
        topics.apply(admin, catalogue, replication=3)


def test_list_counts_records_over_all_partitions(kafka: str, admin: AdminClient, catalogue: Catalogue) -> None:
    topics.apply(admin, catalogue, partitions=3)
    producer = Producer({"bootstrap.servers": kafka, "log_level": 0})
    for number in range(11):
        producer.produce(f"{catalogue.prefix}fills", b"x", partition=number % 3)
    assert producer.flush(TIMEOUT_S) == 0

    found = {one.topic.removeprefix(catalogue.prefix): one for one in topics.listed(admin, catalogue)}
    assert list(found) == [one.topic for one in CATALOGUE] + ["dead-letters"]
    assert {name: one.records for name, one in found.items() if one.records} == {"fills": 11}
    assert {one.partitions for one in found.values()} == {3}
    assert found["candles"].retention_ms == 30 * DAY_MS
    assert found["fills"].retention_ms == -1


def test_list_shows_a_missing_topic_without_numbers(admin: AdminClient, catalogue: Catalogue) -> None:
    create(admin, f"{catalogue.prefix}trades", 2)
    found = {one.topic.removeprefix(catalogue.prefix): one for one in topics.listed(admin, catalogue)}
    assert found["trades"].partitions == 2
    assert found["fills"][1:] == (None, None, None)


def test_a_broker_that_is_away_is_a_transient_error() -> None:
    admin = topics.admin_client(KafkaSettings(bootstrap_servers="127.0.0.1:1"))
    with pytest.raises(BrokersUnreachable, match="Kafka cannot be reached"):
        topics.partition_counts(admin, timeout_s=1.0)
