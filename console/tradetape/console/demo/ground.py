"""What a run of the demo takes place on: services, and whoever fills Redis and PostgreSQL there.

There are two: a local stack with workers that live as long as the run (local_ground.py), and services that somebody else
runs together with their workers (given_ground.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Protocol

from tradetape.console.demo.roles import Role
from tradetape.producers.settings import Settings


class Crew(Protocol):
    """The workers of a run."""

    def check(self) -> None:
        """Raise DemoFailed for a worker that has ended."""

    def stop(self) -> Mapping[str, int]:
        """Stop those that live for the run alone; their exit codes by name."""


class Ground(Protocol):
    """Services and workers. `rest_s` is how long the tape has to lie still before all is said to have come through."""

    rest_s: float
    next_commands: Sequence[str]
    """What to run afterwards, to look around."""

    @property
    def logs(self) -> Path:
        """The folder of logs, where runs also claim their venue."""

    def environment(self) -> Mapping[str, str]:
        """Where the services are; they run when it returns. Raises StackError, SettingsError."""

    def prepare(self, settings: Settings) -> None:
        """Make sure of topics, tables and schemas. Raises DemoFailed."""

    def workers(self, venue: str) -> AbstractContextManager[Crew]:
        """The workers, from now on. Raises DemoFailed."""

    def roles(self, settings: Settings) -> Sequence[Role]:
        """Those workers that have to come to an end with what was played. Raises DemoFailed."""
