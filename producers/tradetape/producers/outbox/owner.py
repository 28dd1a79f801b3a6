"""One outbox, one producer: a lock that carries its owner's name and ends with its process, however that ends.

The lock is flock's, which belongs to the open file: two producers of one process exclude each other too. A forked
child shares the file, so it must let go of its copy, or the lock would outlive the parent.
"""

from __future__ import annotations

import fcntl
import os
from datetime import UTC, datetime
from pathlib import Path

from tradetape.producers.errors import OutboxInUse

FILE = "owner"


class Owner:
    """Holds the lock of an outbox's folder."""

    def __init__(self, folder: Path, name: str) -> None:
        """Raises OutboxInUse, OSError."""
        self._fd: int | None = os.open(folder / FILE, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(self._fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
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
