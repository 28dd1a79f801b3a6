"""Checks of Kafka: does it answer, can clients follow the addresses it tells them, are the topics as declared."""

from __future__ import annotations

import socket
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING

from tradetape.console.doctor.finding import Finding, State, away, some

if TYPE_CHECKING:
    from confluent_kafka.admin import AdminClient

    from tradetape.console.topics import Layout
    from tradetape.producers.settings import Settings

TIMEOUT_S = 5.0
DEFAULT_PORT = 9092


def check(settings: Settings) -> Iterator[Finding]:
    """The findings. Raises SettingsError."""
    from tradetape.console.topics import admin_client
    from tradetape.producers.connection import KafkaSettings

    found = list(check_reach(settings))
    yield from found
    if not any(one.unreachable or (one.subject == "kafka" and one.state == State.FAIL) for one in found):
        yield from _topics(settings, admin_client(KafkaSettings.of(settings)))


def check_reach(settings: Settings) -> Iterator[Finding]:
    """Does Kafka let us in, and can its addresses be followed. Raises SettingsError."""
    from confluent_kafka import KafkaException

    from tradetape.console.first_contact import kafka_denial
    from tradetape.console.topics import admin_client
    from tradetape.producers.connection import KafkaSettings

    kafka = KafkaSettings.of(settings)
    reasons: list[str] = []
    try:
        admin = admin_client(kafka, report=lambda error: reasons.append(error.str()))
    except KafkaException as error:
        yield Finding("kafka", State.FAIL, f"a TRADETAPE_KAFKA_* option: {error.args[0].str()}", "correct or unset it")
        return
    try:
        brokers = admin.list_topics(timeout=TIMEOUT_S).brokers.values()
    except KafkaException as error:
        # The client's own error is only that time ran out; why it did was reported before.
        admin.poll(0)
        reason = kafka_denial(kafka) or [*reasons, error.args[0].str()][0].partition(" (after")[0]
        yield away("kafka", reason, "KAFKA_BOOTSTRAP_SERVERS")
        return
    yield Finding("kafka", State.OK, f"{kafka.bootstrap_servers} answers; brokers: {len(brokers)}")
    yield judge_addresses(
        dialled(kafka.bootstrap_servers), [_address(str(one.host), one.port) for one in brokers], _is_open
    )


def dialled(bootstrap_servers: str) -> list[str]:
    """The addresses of a bootstrap list, each as host:port."""
    plain = [one.strip().rpartition("://")[2] for one in bootstrap_servers.split(",") if one.strip()]
    return [one if one.rpartition(":")[2].isdigit() else f"{one}:{DEFAULT_PORT}" for one in plain]


def judge_addresses(asked: Sequence[str], told: Sequence[str], is_open: Callable[[str], bool]) -> Finding:
    """Whether clients that dial `asked` can follow the addresses that the brokers tell them."""
    mend = "set the brokers' advertised.listeners to addresses that their clients reach"
    elsewhere = [one for one in told if one not in asked]
    if closed := [one for one in elsewhere if not is_open(one)]:
        detail = f"{', '.join(asked)} sends its clients on to {', '.join(closed)}, where nothing answers"
        return Finding("kafka address", State.FAIL, detail, mend, unreachable=True)
    if len(elsewhere) == len(told):
        detail = f"{', '.join(asked)} sends its clients on to {', '.join(elsewhere)}, which answers from here"
        return Finding("kafka address", State.WARN, detail, mend)
    return Finding("kafka address", State.OK, f"advertised as {', '.join(told)}")


def judge_topics(declared: Sequence[str], counts: Mapping[str, int], changed: Sequence[str]) -> Finding:
    """Whether all declared topics are there, with equal numbers of partitions and the settings declared."""
    apply = "tradetape topics apply"
    if missing := [name for name in declared if name not in counts]:
        return Finding("topics", State.FAIL, f"{len(missing)} of {len(declared)} are missing: {some(missing)}", apply)
    if len(set(counts.values())) > 1:
        told = ", ".join(f"{name} {count}" for name, count in counts.items())
        mend = "numbers of partitions never change; export TRADETAPE_TOPIC_PREFIX=another. && tradetape topics apply"
        return Finding("topics", State.FAIL, f"their numbers of partitions differ: {told}", mend)
    if changed:
        return Finding("topics", State.FAIL, f"settings are not those declared: {some(changed)}", apply)
    return Finding("topics", State.OK, f"{len(declared)} as declared, partitions of each: {max(counts.values())}")


def judge_replicas(layout: Layout, declared: int | None) -> Finding:
    """Whether as many brokers as declared (as the best of the topics has, by default) keep each topic, and keep up."""
    from tradetape.console.topics import least_in_sync, replicas_of

    kept = {name: replicas_of(places) for name, places in layout.items()}
    places = [(f"{name}[{number}]", one) for name, found in layout.items() for number, one in enumerate(found)]
    back = "start the brokers that are away, and look into their logs"
    if dead := [name for name, one in places if not one.is_led]:
        return Finding("replicas", State.FAIL, f"{len(dead)} partitions have no leader: {some(dead)}", back)
    if closed := [name for name, one in places if one.in_sync < least_in_sync(one.brokers)]:
        detail = f"{len(closed)} partitions take no records, for most of their brokers are away: {some(closed)}"
        return Finding("replicas", State.FAIL, detail, back)
    wanted = declared or max(kept.values())
    if fewer := [name for name, count in kept.items() if count < wanted]:
        detail = f"{len(fewer)} topics lie on fewer than {wanted} brokers: {some(fewer)}"
        return Finding("replicas", State.FAIL, detail, "kafka-reassign-partitions.sh, as docs/scaling.md shows")
    if behind := [name for name, one in places if one.in_sync < one.brokers]:
        detail = f"{len(behind)} partitions are not whole on all of their brokers: {some(behind)}"
        return Finding("replicas", State.WARN, detail, back)
    return Finding("replicas", State.OK, f"brokers that keep each topic, and are up to date: {min(kept.values())}")


def _address(host: str, port: int) -> str:
    return f"[{host}]:{port}" if ":" in host else f"{host}:{port}"


def _is_open(address: str) -> bool:
    host, _, port = address.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=TIMEOUT_S).close()
    except OSError:
        return False
    return True


def _topics(settings: Settings, admin: AdminClient) -> Iterator[Finding]:
    from tradetape.console.errors import ConsoleError
    from tradetape.console.topics import differences, layout_of
    from tradetape.streams.errors import BrokersUnreachable

    declared = settings.catalogue().topics()
    try:
        layout = layout_of(admin)
        there = {one.name: layout[one.name] for one in declared if one.name in layout}
        found = differences(admin, [one for one in declared if one.name in there], there)
        changed = [one.topic for one in found if one.action != "same"]
    except (BrokersUnreachable, ConsoleError) as error:
        yield Finding("topics", State.FAIL, str(error), "let this client describe topics and their settings")
        return
    yield judge_topics([one.name for one in declared], {name: len(one) for name, one in there.items()}, changed)
    if there:
        yield judge_replicas(there, settings.replication)
