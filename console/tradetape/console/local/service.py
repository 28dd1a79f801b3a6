"""What every service of the local stack is to the stack: something that can be prepared, started, asked and stopped."""

from __future__ import annotations

import errno
import os
import signal
import time
from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import ClassVar

import psutil

from tradetape.console.errors import ServiceFailed
from tradetape.console.local import process
from tradetape.console.local.places import Places
from tradetape.console.local.ports import LOOPBACK, PortBook

START_TIMEOUT_S = 60.0
STOP_TIMEOUT_S = 15.0
ASK_INTERVAL_S = 0.1
PORT_TRIES = 5
PORT_TAKEN = os.strerror(errno.EADDRINUSE)
"""What every service writes into its log then, for it comes from the system."""
PORT_TAKEN_LINES = 100


class Service(ABC):
    """One server process. Subclasses say how it is laid out; starting and stopping is the same for all."""

    name: ClassVar[str]
    preferred_port: ClassVar[int]
    stop_signal: ClassVar[signal.Signals] = signal.SIGTERM
    wipe_signal: ClassVar[signal.Signals | None] = None
    """What ends it where its data goes with it, if that is quicker: it need not write anything any more."""

    def __init__(self, places: Places, ports: PortBook, *, fixed_ports: bool = True) -> None:
        self.places = places
        self.ports = ports
        self._preferred = self.preferred_port if fixed_ports else None
        self._child: int | None = None

    @property
    @abstractmethod
    def marker(self) -> str:
        """The argument of the command line by which the running process is known."""

    @abstractmethod
    def prepare(self, port: int) -> None:
        """Fetch, lay out and configure; harmless when done before."""

    @abstractmethod
    def command(self, port: int) -> Sequence[str]:
        """The command line of the server; it holds the marker."""

    @abstractmethod
    def answers(self, port: int) -> bool:
        """Whether the server answers in its own protocol."""

    @abstractmethod
    def variables(self, port: int) -> Mapping[str, str]:
        """The environment variables that lead a client to it."""

    def user(self) -> tuple[int, int] | None:
        """The (uid, gid) to run as; None for our own."""
        return None

    def folder(self) -> Path:
        """Where the server is started."""
        return self.places.home

    def environment(self) -> Mapping[str, str] | None:
        """The server's environment; None for ours."""
        return None

    def running(self) -> tuple[psutil.Process, int] | None:
        """The server's process and port, when it runs where the book of ports says."""
        found = process.find(self.marker)
        port = self.ports.remembered(self.name)
        if found is None or port is None:
            return None
        # One that listens nowhere yet is still starting.
        listening = process.listening_ports(found)
        return (found, port) if port in listening or not listening else None

    def up(self) -> int:
        """Start it where it does not run, and wait until it answers; its port. Raises StackError."""
        server, port = self.running() or self._start()
        for _ in range(PORT_TRIES):
            if self._await(server, port):
                return port
            server, port = self._start()
        raise ServiceFailed(self._failure(f"found its port taken {PORT_TRIES} times"))

    def _start(self) -> tuple[psutil.Process, int]:
        # One that runs on a port that nobody knows, since the book was lost, holds the data that is opened next.
        self.down()
        if self._child is not None:
            # Killed from outside it stays our zombie: PostgreSQL takes its pid for that of a running server, and it
            # holds its port until its last thread is gone.
            process.await_end(self._child)
        port = self.ports.choose(self.name, self._preferred)
        self.prepare(port)
        self._child = process.start(
            self.command(port),
            log=self.places.log(self.name),
            environment=self.environment(),
            folder=self.folder(),
            user=self.user(),
        ).pid
        try:
            return psutil.Process(self._child), port
        except psutil.NoSuchProcess:
            raise ServiceFailed(self._failure("ended while it started")) from None

    def _await(self, server: psutil.Process, port: int) -> bool:
        """Wait until it answers; False where somebody else took its port between its being chosen and being bound."""
        deadline = time.monotonic() + START_TIMEOUT_S
        while not (self.answers(port) and self._listens(port)):
            # Not by `find`: for a moment after its start a process has no command line to be known by.
            if not process.lives(server):
                if PORT_TAKEN in process.tail(self.places.log(self.name), PORT_TAKEN_LINES):
                    return False
                raise ServiceFailed(self._failure("ended while it started"))
            if time.monotonic() > deadline:
                raise ServiceFailed(
                    self._failure(f"did not answer on {LOOPBACK}:{port} within {START_TIMEOUT_S:.0f} s")
                )
            time.sleep(ASK_INTERVAL_S)
        return True

    def _listens(self, port: int) -> bool:
        """Whether what answers there is ours, and not the same service of another stack."""
        found = process.find(self.marker)
        return found is not None and port in process.listening_ports(found)

    def _failure(self, what: str) -> str:
        log = self.places.log(self.name)
        return f"{self.name} {what}; the end of {log}:\n{process.tail(log)}"

    def down(self, *, wipe: bool = False) -> bool:
        """Stop it, in order unless its data is to be wiped; whether it ran."""
        found = process.find(self.marker)
        if found is not None:
            number = self.wipe_signal if wipe and self.wipe_signal is not None else self.stop_signal
            process.stop(found, with_signal=number, timeout_s=STOP_TIMEOUT_S)
        return found is not None

    @abstractmethod
    def wipe(self) -> None:
        """Remove its data and configuration."""
