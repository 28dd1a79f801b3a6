"""Jars of servers: fetched once from Maven Central by jgo, each compared with the SHA-256 that this package lists.

A list names every jar, so nothing is resolved at run time and a run with a full cache needs no network.
"""

from __future__ import annotations

import fcntl
import hashlib
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from importlib import resources
from pathlib import Path
from typing import NamedTuple

from tradetape.console.errors import DownloadFailed

PARALLEL_DOWNLOADS = 8
DOWNLOAD_TIMEOUT_S = 60


class Jar(NamedTuple):
    """One jar, or other file: its Maven coordinate and the SHA-256 of its bytes.

    The coordinate is group:artifact:version, with :packaging:classifier behind it for what is no plain jar.
    """

    coordinate: str
    sha256: str

    def path(self, repository: Path) -> Path:
        """Where Maven's layout puts it."""
        group, artifact, version, packaging, classifier = self.parts()
        name = f"{artifact}-{version}{classifier and f'-{classifier}'}.{packaging}"
        return repository.joinpath(*group.split("."), artifact, version, name)

    def parts(self) -> tuple[str, str, str, str, str]:
        """Group, artifact, version, packaging, classifier."""
        group, artifact, version, packaging, classifier = (*self.coordinate.split(":"), "jar", "")[:5]
        return group, artifact, version, packaging, classifier


def listed(server: str) -> tuple[Jar, ...]:
    """The jars that make a server, such as "kafka"."""
    text = resources.files("tradetape.console.local").joinpath(f"{server}_jars.txt").read_text(encoding="utf-8")
    lines = [line.split() for line in text.splitlines() if line and not line.startswith("#")]
    return tuple(Jar(coordinate, sha256) for coordinate, sha256 in lines)


Fetch = Callable[[Jar], None]
"""Brings one jar to its path. Raises DownloadFailed."""


def ensure(repository: Path, jars: Iterable[Jar], *, source: Callable[[Path], Fetch] | None = None) -> list[Path]:
    """The paths of the jars, fetched where they are missing or damaged. Raises DownloadFailed.

    `source` gives what fetches into a repository: Maven Central by default.
    """
    jars = tuple(jars)
    if not all(_is_whole(jar, repository) for jar in jars):
        with locked(repository):
            _fetch(repository, [jar for jar in jars if not _is_whole(jar, repository)], source or _maven_central)
    return [jar.path(repository) for jar in jars]


@contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Make a folder, and be the only one that fills it; the lock ends with its process."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / ".lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def _is_whole(jar: Jar, repository: Path) -> bool:
    path = jar.path(repository)
    if not path.is_file():
        return False
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest() == jar.sha256


def _fetch(repository: Path, jars: list[Jar], source: Callable[[Path], Fetch]) -> None:
    fetch = source(repository)

    def bring(jar: Jar) -> None:
        jar.path(repository).unlink(missing_ok=True)
        fetch(jar)
        if not _is_whole(jar, repository):
            jar.path(repository).unlink(missing_ok=True)
            raise DownloadFailed(f"{jar.coordinate} is not the file that tradetape was tested with; try again")

    with ThreadPoolExecutor(PARALLEL_DOWNLOADS) as pool:
        list(pool.map(bring, jars))


def _maven_central(repository: Path) -> Fetch:
    from jgo.maven import MavenContext

    # The context's default resolver is jgo's own; a `mvn` that happens to be on PATH is not asked.
    context = MavenContext(repo_cache=repository, timeout=DOWNLOAD_TIMEOUT_S)

    def fetch(jar: Jar) -> None:
        group, artifact, version, packaging, classifier = jar.parts()
        try:
            context.project(group, artifact).at_version(version).artifact(classifier, packaging).resolve()
        except (OSError, RuntimeError) as error:
            reason = f"cannot fetch {jar.coordinate} from Maven Central: {error}; check the network and try again"
            raise DownloadFailed(reason) from error

    return fetch
