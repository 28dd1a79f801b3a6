"""Which port each service listens on: the preferred one when it is free, else any; the same again at the next start."""

from __future__ import annotations

import json
import socket
import threading
from pathlib import Path

LOOPBACK = "127.0.0.1"
UNPRIVILEGED = range(1024, 65536)


def is_free(port: int) -> bool:
    """Whether a server could listen on this port of the loopback address now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def any_free() -> int:
    """A port that is free now."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        probe.bind((LOOPBACK, 0))
        port: int = probe.getsockname()[1]
        return port


class PortBook:
    """The ports of one stack, remembered in a file of its home. Services that start side by side share one book."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()

    def remembered(self, name: str) -> int | None:
        """The port that the service had at its last start."""
        return self._load().get(name)

    def choose(self, name: str, preferred: int | None) -> int:
        """The port to start on: the last one, the preferred one, or any; the first that is free."""
        with self._lock:
            # One that was given to another service a moment ago is not bound yet, so it looks free.
            given = {port for other, port in self._load().items() if other != name}
            for port in (self.remembered(name), preferred):
                if port and port not in given and is_free(port):
                    return self._remember(name, port)
            return self._remember(name, next(port for port in iter(any_free, None) if port not in given))

    def _remember(self, name: str, port: int) -> int:
        book = self._load() | {name: port}
        fresh = self._path.with_suffix(".new")
        fresh.write_text(json.dumps(book), encoding="utf-8")
        fresh.replace(self._path)
        return port

    def _load(self) -> dict[str, int]:
        try:
            loaded = json.loads(self._path.read_text(encoding="utf-8"))
        except (FileNotFoundError, ValueError):
            return {}
        found = loaded if isinstance(loaded, dict) else {}
        return {name: port for name, port in found.items() if isinstance(port, int) and port in UNPRIVILEGED}
