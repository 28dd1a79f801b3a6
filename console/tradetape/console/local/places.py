"""Where the local stack keeps what it needs: one home for each stack, one cache of downloads for all.

Only this module knows the layout, so that `down --wipe` can promise that nothing is left.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

import platformdirs

from tradetape.console.errors import StackError

HOME_VARIABLE = "TRADETAPE_HOME"
CACHE_VARIABLE = "TRADETAPE_CACHE"


def default_home() -> Path:
    """TRADETAPE_HOME, or the platform's folder for state."""
    return Path(os.environ.get(HOME_VARIABLE) or platformdirs.user_state_path("tradetape")).absolute()


def default_cache() -> Path:
    """TRADETAPE_CACHE, or the platform's folder for what can be fetched again."""
    return Path(os.environ.get(CACHE_VARIABLE) or platformdirs.user_cache_path("tradetape")).absolute()


@dataclass(frozen=True, kw_only=True)
class Places:
    """The folders of one stack."""

    home: Path
    cache: Path

    @property
    def logs(self) -> Path:
        """Logs of the services and of the demo's workers."""
        return self.home / "logs"

    @property
    def outboxes(self) -> Path:
        """What bots could not deliver to this stack yet."""
        return self.home / "outbox"

    def log(self, service: str) -> Path:
        """One service's log."""
        return self.logs / f"{service}.log"

    def make(self) -> None:
        """Make home and logs, for their owner only. Raises StackError."""
        try:
            for folder in (self.home, self.logs):
                folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        except OSError as error:
            raise StackError(
                f"cannot make {error.filename}: {error.strerror}; set {HOME_VARIABLE} to a folder of yours"
            ) from error

    def postgres(self) -> Path:
        """Where PostgreSQL lives: in the home, or for root in a folder that another user can enter.

        PostgreSQL refuses to run as root, and root's home is often closed to all others. The folder's name holds
        the home's, so the next start finds it again; it must belong to root, so nobody can have laid it there.
        """
        if os.geteuid() != 0:
            return self.home / "postgres"
        name = hashlib.sha256(str(self.home).encode()).hexdigest()[:16]
        return Path("/var/tmp/tradetape-root") / name


def unprivileged_user() -> tuple[int, int] | None:
    """The (uid, gid) that PostgreSQL runs as when we are root; None when we are not."""
    if os.geteuid() != 0:
        return None
    try:
        nobody = pwd.getpwnam("nobody")
    except KeyError:
        raise StackError(
            "PostgreSQL does not run as root and there is no user `nobody`; run tradetape as a user"
        ) from None
    return nobody.pw_uid, nobody.pw_gid


def make_owned(folder: Path, mode: int) -> None:
    """Make a folder, or take an existing one only when it is ours and no link. Raises StackError."""
    folder.mkdir(mode=mode, exist_ok=True)
    found = folder.lstat()
    if folder.is_symlink() or found.st_uid != os.geteuid():
        raise StackError(f"{folder} belongs to somebody else; remove it and try again")
    folder.chmod(mode)


def fresh_folder(parent: Path, prefix: str) -> Path:
    """An empty folder to lay something out in before it is moved into place; what earlier attempts left is removed.

    Each attempt has a name of its own: a tool whose starter was killed may still be writing to the last one.
    """
    for left in parent.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    return Path(tempfile.mkdtemp(prefix=prefix, dir=parent))


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, from its first moment on."""
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600), "w", encoding="utf-8") as file:
        file.write(text)
