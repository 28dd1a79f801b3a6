"""The local stack as a whole: up, down, status. Any command may be killed at any moment; the next one goes on."""

from __future__ import annotations

import errno
import fcntl
import shutil
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tradetape.console.errors import StackError
from tradetape.console.local.kafka import Kafka
from tradetape.console.local.places import HOME_VARIABLE, Places, default_cache, default_home
from tradetape.console.local.ports import PortBook
from tradetape.console.local.postgres import Postgres
from tradetape.console.local.redis import Redis
from tradetape.console.local.registry import Registry
from tradetape.console.local.service import Service

RUN_MODE = {"TRADETAPE_RUN_MODE": "PAPER"}
"""No real money stands behind what runs on a local stack, and its events say so."""
OUTBOX_VARIABLE = "TRADETAPE_OUTBOX_DIR"
"""What a bot could not deliver to this stack waits beside it: another Kafka must never get it."""


class ServiceStatus(NamedTuple):
    """One service: its port and process, both None when it does not run."""

    name: str
    port: int | None
    pid: int | None


class LocalStack:
    """The services of one home. `fixed_ports=False` takes any free ports, for tests."""

    def __init__(self, home: Path | None = None, *, cache: Path | None = None, fixed_ports: bool = True) -> None:
        self.places = Places(home=home or default_home(), cache=cache or default_cache())
        book = PortBook(self.places.home / "ports.json")
        self.services: tuple[Service, ...] = tuple(
            kind(self.places, book, fixed_ports=fixed_ports) for kind in (Kafka, Postgres, Redis, Registry)
        )

    def up(self, *, registry: bool = False) -> dict[str, str]:
        """Start what does not run, side by side, and wait until all answer; the environment of clients.

        The schema registry is started only with `registry`; one that runs is left alone. Raises StackError.
        """
        self.places.make()
        wanted = [one for one in self.services if registry or not isinstance(one, Registry)]
        try:
            with self._lock(), ThreadPoolExecutor(len(wanted)) as pool:
                list(pool.map(lambda service: service.up(), wanted))
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StackError(
                    f"no space left for {error.filename or self.places.home}; free some or set {HOME_VARIABLE} to another disk"
                ) from error
            raise
        return self.environment()

    def down(self, *, wipe: bool = False) -> list[str]:
        """Stop what runs; with `wipe` also remove its data. The names of the services that ran."""
        if not self.places.home.exists():
            return []
        with self._lock(), ThreadPoolExecutor(len(self.services)) as pool:
            stopped = list(pool.map(lambda service: service.down(wipe=wipe), self.services))
            if wipe:
                self._wipe()
        return [service.name for service, ran in zip(self.services, stopped, strict=True) if ran]

    def _wipe(self) -> None:
        for service in self.services:
            service.wipe()
        for log in self.places.logs.glob("*"):
            log.unlink()
        shutil.rmtree(self.places.outboxes, ignore_errors=True)
        (self.places.home / "ports.json").unlink(missing_ok=True)

    def status(self) -> list[ServiceStatus]:
        """What runs."""
        return [
            ServiceStatus(service.name, found[1] if found else None, found[0].pid if found else None)
            for service in self.services
            for found in [service.running()]
        ]

    def environment(self) -> dict[str, str]:
        """The environment of clients of what runs; empty when nothing does."""
        variables: dict[str, str] = {}
        for service in self.services:
            if (found := service.running()) is not None:
                variables |= service.variables(found[1])
        return variables | RUN_MODE | {OUTBOX_VARIABLE: str(self.places.outboxes)} if variables else {}

    @contextmanager
    def _lock(self) -> Iterator[None]:
        """One `up` or `down` at a time; the lock ends with its process, however that ends."""
        with (self.places.home / "lock").open("w") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            yield


def running_environment(home: Path | None = None) -> Mapping[str, str]:
    """The environment of the local stack of this home, empty when none runs."""
    stack = LocalStack(home)
    return stack.environment() if stack.places.home.exists() else {}
