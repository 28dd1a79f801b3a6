"""Kafka, PostgreSQL and Redis in containers of the official images, set up as the local stack's are, for `--stack containers`.

All listen on the loopback address. They end with the process that started them, and where that was killed the next run
removes what is left: each carries the process' id in a label.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from importlib import resources
from typing import Any, Self, TypeVar

import docker
import docker.errors
import psutil
import requests
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient
from testcontainers.community.postgres import PostgresContainer
from testcontainers.community.redis import RedisContainer
from testcontainers.core.config import ConnectionMode, testcontainers_config
from testcontainers.core.container import DockerContainer
from testcontainers.core.wait_strategies import HttpWaitStrategy

from tradetape.console.local import postgres
from tradetape.console.local.ports import LOOPBACK, any_free
from tradetape.console.local.registry import API
from waiting import eventually

ContainerT = TypeVar("ContainerT", bound=DockerContainer)
LABEL = "tradetape.tests.pid"
KAFKA, POSTGRES, REDIS, REGISTRY = "apache/kafka:4.4.0", "postgres:18", "redis:8", "apicurio/apicurio-registry:3.3.3"
OWNER = "tradetape"
START_TIMEOUT_S = 120.0
ANSWER_TIMEOUT_S = 2.0
REDIS_ARGUMENTS = "redis-server --maxmemory 512mb --maxmemory-policy noeviction --appendonly yes"
_OF_CONTAINER = {"listen_addresses": "*", "unix_socket_directories": "/var/run/postgresql"}
"""What is not as on the local stack: a container is reached from outside, and asked from inside whether it is ready."""


def reason_without() -> str | None:
    """Why no container can be started; None where an engine answers."""
    try:
        docker.from_env().ping()
    except (docker.errors.DockerException, requests.RequestException) as error:
        return f"no Docker engine answers: {error}"
    return None


@contextmanager
def running() -> Iterator[dict[str, str]]:
    """The services for as long as they are needed; the variables by which a process finds them."""
    remove_left_over()
    _configure()
    with ExitStack() as started:
        broker = started.enter_context(_started(ApacheKafka(any_free())))
        password = secrets.token_hex(12)
        arguments = " ".join(f"-c {name}='{value}'" for name, value in {**postgres.SETTINGS, **_OF_CONTAINER}.items())
        database = PostgresContainer(
            POSTGRES, username=OWNER, password=password, dbname=OWNER, driver=None, command=f"postgres {arguments}",
            labels=_labels(),
        )  # fmt: skip
        port = _published(database, 5432)
        started.enter_context(_started(database))
        cache = RedisContainer(REDIS, labels=_labels()).with_command(REDIS_ARGUMENTS)
        cache_port = _published(cache, 6379)
        started.enter_context(_started(cache))
        yield {
            "KAFKA_BOOTSTRAP_SERVERS": f"{LOOPBACK}:{broker.port}",
            "DATABASE_URL": f"postgresql://{OWNER}:{password}@{LOOPBACK}:{port}/{OWNER}",
            "REDIS_URL": f"redis://{LOOPBACK}:{cache_port}/0",
        }


@contextmanager
def registry() -> Iterator[str]:
    """A schema registry; its address."""
    _configure()
    container = DockerContainer(REGISTRY, labels=_labels()).with_env("APICURIO_STORAGE_KIND", "sql")
    port = _published(container, 8080)
    container.waiting_for(HttpWaitStrategy(8080, f"{API}/subjects").for_status_code(200))
    with _started(container):
        yield f"http://{LOOPBACK}:{port}{API}"


class ApacheKafka(DockerContainer):
    """The broker of the official image. Its port is chosen first, since a broker tells its clients where it is."""

    def __init__(self, port: int) -> None:
        super().__init__(KAFKA, labels=_labels())
        self.port = port
        _publish(self, 9092, port)
        for name, value in _broker_settings(port).items():
            self.with_env(f"KAFKA_{name.upper().replace('.', '_')}", value)
        # Where its configuration is written at the start; in the image's own folder it need not be writable.
        self.tmpfs["/opt/kafka/config"] = "uid=1000,gid=1000,mode=755"
        self.with_env("KAFKA_HEAP_OPTS", "-Xms128m -Xmx384m")

    def start(self) -> Self:
        """Start it, and wait until it answers."""
        super().start()
        client = AdminClient({"bootstrap.servers": f"{LOOPBACK}:{self.port}", "log_level": 0})
        eventually("the broker answers", lambda: _answers(client), timeout_s=START_TIMEOUT_S)
        return self


def _answers(client: AdminClient) -> bool:
    try:
        return bool(client.list_topics(timeout=ANSWER_TIMEOUT_S).brokers)
    except KafkaException:
        return False


def _broker_settings(port: int) -> Mapping[str, str]:
    """The local stack's, but for what is the container's own."""
    template = resources.files("tradetape.console.local").joinpath("server.properties").read_text(encoding="utf-8")
    lines = template.format(port=port, controller=9093, data="/tmp/kafka-logs").splitlines()
    given = dict(line.split("=", 1) for line in lines if line and not line.startswith("#"))
    return {**given, "listeners": f"PLAINTEXT://:9092,CONTROLLER://{LOOPBACK}:9093"}


@contextmanager
def _started(container: ContainerT) -> Iterator[ContainerT]:
    """The container as long as it is needed; it is removed too when its start is interrupted."""
    try:
        container.start()
        yield container
    finally:
        container.stop()


def _published(container: DockerContainer, port: int) -> int:
    """Publish a container's port on the loopback address alone; the port there."""
    chosen = any_free()
    _publish(container, port, chosen)
    return chosen


def _publish(container: DockerContainer, port: int, chosen: int) -> None:
    # The package's own method knows no address; what it keeps is handed on as it is.
    ports: dict[str, Any] = container.ports
    ports[str(port)] = (LOOPBACK, chosen)


def _configure() -> None:
    """How the package finds what it starts, and who removes it."""
    # Where we are in a container ourselves, it would look for published ports on the engine's bridge.
    testcontainers_config.connection_mode_override = ConnectionMode.docker_host
    testcontainers_config.tc_host_override = LOOPBACK
    # What is left over is removed by its label, without a further image that is given the engine's socket.
    testcontainers_config.ryuk_disabled = True


def _labels() -> dict[str, str]:
    return {LABEL: str(os.getpid())}


def remove_left_over() -> None:
    """Remove the containers of test runs that are no more."""
    for one in docker.from_env().containers.list(all=True, filters={"label": LABEL}):
        if not psutil.pid_exists(int(one.labels[LABEL])):
            one.remove(force=True, v=True)
