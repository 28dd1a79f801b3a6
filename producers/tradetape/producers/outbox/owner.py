"""One outbox, one producer: a lock that carries its owner's name and ends with its process, however that ends.

The lock is flock's, which belongs to the open file: two producers of one process exclude each other too. A forked
child shares the file, so it must let go of its copy, or the lock would outlive the parent.
"""

from __future__ import annotations

import fcntl
import os
import time
from datetime import UTC, datetime
from pathlib import Path

from tradetape.producers.errors import OutboxInUse

FILE = "owner"
ATTEMPTS = 5
ATTEMPT_EVERY_S = 0.01
"""Who only looks whether there is an owner (`owner_of`) holds a lock for an instant, too."""


class Owner:
    """Holds the lock of an outbox's folder."""

    def __init__(self, folder: Path, name: str) -> None:
        """Raises OutboxInUse, OSError."""
        self._fd: int | None = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            _take(self._fd)
        except BlockingIOError:
            holder = os.pread(self._fd, 512, 0).decode(errors="replace") or "another producer"
            self.release()
            raise OutboxInUse(
                f"the outbox {folder} belongs to {holder}; give each process a source of its own, or end that one"
            ) from None
        since = datetime.now(UTC).isoformat(timespec="seconds")
        text = f"{name}, process {os.getpid()}, since {since}".encode()
        os.ftruncate(self._fd, 0)
        os.pwrite(self._fd, text, 0)

    def release(self) -> None:
        """Let go. In a forked child only its copy of the file is closed; the parent keeps the lock."""
        if self._fd is not None:
            os.close(self._fd)
            self._fd = None


def owner_of(folder: Path) -> str | None:
    """Who owns an outbox now: its name, process and since when; None for nobody. Raises OSError."""
    try:
        fd = os.open(folder / FILE, os.O_RDONLY | os.O_CLOEXEC)
    except FileNotFoundError:
        return None
    try:
        fcntl.flock(fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return os.pread(fd, 512, 0).decode(errors="replace") or "another producer"
    finally:
        os.close(fd)
    return None


def _take(fd: int) -> None:
    for _ in range(ATTEMPTS - 1):
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            time.sleep(ATTEMPT_EVERY_S)
        else:
            return
    fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
