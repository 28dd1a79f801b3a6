"""The services of one run: a Kafka, a PostgreSQL and a Redis in a temporary folder, gone at the end, also on interrupt.

Each subject gets topics, a database and a Redis of its own, so that none reads what another left.
"""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

import psycopg
import redis
from confluent_kafka import Consumer, TopicPartition
from psycopg import sql

from tradetape.console.demo.workers import Workers
from tradetape.console.local.stack import LocalStack
from tradetape.console.topics import LOCAL_PARTITIONS, admin_client, apply
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import PREFIX, UNPREFIXED
from tradetape.schemas import CATALOGUE, Catalogue
from tradetape.sinks.history.migrate import migrate

PARTITIONS = LOCAL_PARTITIONS
WATERMARK_TIMEOUT_S = 10.0


class Services:
    """Where the services of this run are."""

    def __init__(self, environment: Mapping[str, str], logs: Path) -> None:
        self.environment = environment
        self.logs = logs
        self.outboxes = Path(environment["TRADETAPE_OUTBOX_DIR"])
        self.bootstrap_servers = environment["KAFKA_BOOTSTRAP_SERVERS"]
        self.kafka = KafkaSettings(bootstrap_servers=self.bootstrap_servers)
        self.redis_url = environment["REDIS_URL"]
        self._owner_dsn = environment["DATABASE_URL"]

    def topics(self, subject: str) -> Catalogue:
        """The catalogue on topics of this subject's own, empty."""
        catalogue = CATALOGUE.with_prefix(f"bench-{subject}-{uuid.uuid4().hex[:8]}.")
        apply(admin_client(self.kafka), catalogue)
        return catalogue

    def database(self, subject: str) -> str:
        """The DSN of a database of this subject's own, migrated and empty."""
        name = f"bench_{subject}_{uuid.uuid4().hex[:8]}"
        with psycopg.connect(self._owner_dsn, autocommit=True) as connection:
            connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        dsn = f"{self._owner_dsn.rpartition('/')[0]}/{name}"
        migrate(dsn)
        return dsn

    def redis_client(self) -> redis.Redis:
        """A client of the Redis."""
        return redis.Redis.from_url(self.redis_url)

    def empty_redis(self) -> redis.Redis:
        """A client of the Redis, which holds nothing."""
        client = self.redis_client()
        client.flushall()
        return client

    def records(self, topic: str) -> int:
        """How many records a topic holds."""
        consumer = Consumer({"bootstrap.servers": self.bootstrap_servers, "group.id": "bench-count"})
        try:
            ends = [
                consumer.get_watermark_offsets(TopicPartition(topic, one), timeout=WATERMARK_TIMEOUT_S)
                for one in range(PARTITIONS)
            ]
            return sum(high - low for low, high in ends)
        finally:
            consumer.close()

    def workers(
        self, subject: str, catalogue: Catalogue, dsn: str | None = None, more: Mapping[str, str] | None = None
    ) -> Workers:
        """Starts `tradetape work …` on these topics, this database and with `more` variables; none outlives the `with` block."""
        variables = {**self.environment, f"{PREFIX}TOPIC_PREFIX": catalogue.prefix, **(more or {})}
        if dsn is not None:
            variables["DATABASE_URL"] = dsn
        return Workers(venue=f"bench-{subject}", logs=self.logs, environment=_without_settings() | variables)


def _without_settings() -> dict[str, str]:
    """The environment without settings of ours: what the caller's shell tunes must not tune what is measured."""
    return {name: value for name, value in os.environ.items() if name not in UNPREFIXED and not name.startswith(PREFIX)}


@contextmanager
def running_services() -> Iterator[Services]:
    """Start the services, and stop and remove them on the way out. Raises StackError."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, _exit)
    with tempfile.TemporaryDirectory(prefix="tradetape-bench-") as home:
        stack = LocalStack(Path(home), fixed_ports=False)
        try:
            yield Services(stack.up(), stack.places.logs)
        finally:
            # A second Ctrl-C would leave servers behind.
            for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
                signal.signal(number, signal.SIG_IGN)
            stack.down(wipe=True)


def _exit(number: int, _: FrameType | None) -> None:
    raise SystemExit(128 + number)
