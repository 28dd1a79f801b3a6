"""A local stack as the demo's ground: started when it does not run, and left running; its workers end with the run."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

from tradetape.console import topics
from tradetape.console.demo.ground import Crew
from tradetape.console.demo.roles import NEEDED, STATE, TRADING, Role
from tradetape.console.demo.workers import Workers
from tradetape.console.errors import DemoFailed
from tradetape.console.local.stack import LocalStack
from tradetape.console.registration import register_all
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import Settings
from tradetape.sinks.history.migrate import migrate

FOREIGN = ("TRADETAPE_", "KAFKA_", "REDIS_URL", "DATABASE_URL", "SCHEMA_REGISTRY_URL")
"""Variables that name somebody else's services: these the demo never touches unless it is told to."""


class LocalGround:
    """The services of a local stack."""

    rest_s = 0.0
    next_commands: Sequence[str] = ("tradetape doctor", "tradetape down")

    def __init__(self, stack: LocalStack, *, engine: str) -> None:
        self._stack = stack
        self._engine = engine

    @property
    def logs(self) -> Path:
        """The stack's."""
        return self._stack.places.logs

    def environment(self) -> Mapping[str, str]:
        """Our own, but with the local stack's services."""
        ours = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        return {**ours, **self._stack.up()}

    def prepare(self, settings: Settings) -> None:
        """Bring topics, tables and schemas into line."""
        topics.apply(topics.admin_client(KafkaSettings.of(settings)), settings.catalogue())
        migrate(settings.required("DATABASE_URL"))
        if settings.schema_registry_url:
            for one in register_all(settings):
                if one.refusal is not None:
                    raise DemoFailed(f"{one.subject}: {one.refusal}")

    @contextmanager
    def workers(self, venue: str) -> Iterator[Crew]:
        """Processes of this run's own."""
        environment = {**self.environment()}
        with Workers(venue=venue, logs=self.logs, environment=environment) as workers:
            for role in (*NEEDED, *TRADING):
                # Only current state shows what Faust does: the plain engine starts sooner and takes less.
                options = ("--engine", self._engine) if role is STATE else role.options
                workers.start(role.name, "work", role.name, *options)
            yield workers

    def roles(self, settings: Settings) -> Sequence[Role]:
        """All of them."""
        return (*NEEDED, *TRADING)
