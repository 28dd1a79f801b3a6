"""The schema registry of the local stack, for those who ask for it: Apicurio, on the Java of a Python package.

Its database is a file in the home, written through at once: the ids that it gave once are on the tape for ever.
"""

from __future__ import annotations

import http.client
import os
import shutil
import signal
import tarfile
from collections.abc import Mapping, Sequence
from pathlib import Path

from tradetape.console.errors import DownloadFailed
from tradetape.console.local import jars, ports
from tradetape.console.local.jars import Jar
from tradetape.console.local.java import SMALL, find_java
from tradetape.console.local.places import fresh_folder
from tradetape.console.local.service import Service

API = "/apis/ccompat/v7"
"""Where it answers as Confluent's registry does."""
OLDEST_JAVA = 21
ANSWER_TIMEOUT_S = 1.0


class Registry(Service):
    """The registry. Only `up` with `registry=True` starts it."""

    name = "registry"
    preferred_port = 18081
    wipe_signal = signal.SIGKILL

    @property
    def marker(self) -> str:
        return f"-Dapicurio.datasource.url=jdbc:h2:file:{self._folder / 'schemas'};WRITE_DELAY=0"

    @property
    def _folder(self) -> Path:
        return self.places.home / "registry"

    def folder(self) -> Path:
        return self._folder

    def environment(self) -> Mapping[str, str]:
        # None of ours: it takes settings from the environment too.
        return {"PATH": os.defpath, "LC_ALL": "C.UTF-8", "TZ": "UTC"}

    def prepare(self, port: int) -> None:
        # One that was killed leaves its own there.
        shutil.rmtree(self._folder / "tmp", ignore_errors=True)
        (self._folder / "tmp").mkdir(parents=True)
        self._program()

    def command(self, port: int) -> Sequence[str]:
        settings = {
            "quarkus.http.host": ports.LOOPBACK, "quarkus.http.port": port,
            "quarkus.http.access-log.enabled": "false",
            "quarkus.management.host": ports.LOOPBACK,
            "quarkus.management.port": self.ports.choose("registry-management", None),
            "quarkus.log.console.format": "%d{yyyy-MM-dd'T'HH:mm:ss.SSSXXX} %p [%c{2.}] %m%e%n",
            "apicurio.storage.kind": "sql", "apicurio.storage.sql.kind": "h2",
            "apicurio.datasource.jdbc.initial-size": 2, "apicurio.datasource.jdbc.min-size": 2,
            "apicurio.datasource.jdbc.max-size": 20,
            "java.io.tmpdir": self._folder / "tmp",
        }  # fmt: skip
        java = [str(find_java(oldest=OLDEST_JAVA, what="the schema registry")), "-Xms64m", "-Xmx256m", *SMALL]
        given = [f"-D{name}={value}" for name, value in settings.items()]
        return [*java, *given, self.marker, "-jar", str(self._program() / "quarkus-run.jar")]

    def _program(self) -> Path:
        """The folder of its files, fetched and unpacked where it is missing."""
        (archive,) = jars.listed("registry")
        folder = self.places.cache / "registry" / f"apicurio-{archive.sha256[:16]}"
        return fetched_and_unpacked(archive, self.places.cache / "maven", folder)

    def answers(self, port: int) -> bool:
        connection = http.client.HTTPConnection(ports.LOOPBACK, port, timeout=ANSWER_TIMEOUT_S)
        try:
            connection.request("GET", f"{API}/subjects")
            return connection.getresponse().status == http.client.OK
        except (OSError, http.client.HTTPException):
            return False
        finally:
            connection.close()

    def variables(self, port: int) -> Mapping[str, str]:
        return {"SCHEMA_REGISTRY_URL": f"http://{ports.LOOPBACK}:{port}{API}"}

    def wipe(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def fetched_and_unpacked(archive: Jar, repository: Path, folder: Path) -> Path:
    """The folder with an archive's files: made aside and moved into place, so one that is there is whole."""
    if folder.is_dir():
        return folder
    with jars.locked(folder.parent):
        if not folder.is_dir():
            (packed,) = jars.ensure(repository, [archive])
            aside = fresh_folder(folder.parent, f"{folder.name}.new.")
            unpack(packed, aside)
            aside.rename(folder)
            # Nothing needs it any more, and it can be fetched again.
            packed.unlink()
    return folder


def unpack(packed: Path, into: Path) -> None:
    """Write the files of a .tar.gz below a folder, by name and content alone. Raises DownloadFailed for any other."""
    with tarfile.open(packed, "r:gz") as archive:
        for member in archive:
            path = (into / member.name).resolve()
            if not path.is_relative_to(into.resolve()) or not (member.isfile() or member.isdir()):
                raise DownloadFailed(f"{packed.name} holds {member.name}, which is no file of its own folder")
            if member.isdir():
                path.mkdir(parents=True, exist_ok=True)
            elif (content := archive.extractfile(member)) is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
                with content, path.open("wb") as file:
                    shutil.copyfileobj(content, file)
