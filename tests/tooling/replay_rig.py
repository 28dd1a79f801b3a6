"""The installed `tradetape replay`, in a process of its own, with an environment of the test's own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any, NamedTuple

from confluent_kafka.admin import AdminClient

COMMAND = str(Path(sys.executable).with_name("tradetape"))
TIMEOUT_S = 120


class Done(NamedTuple):
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def document(self) -> Any:
        """What --json printed on stdout, or on stderr beside other lines where stdout would carry events."""
        return json.loads(self.out or next(line for line in self.err.splitlines() if line.startswith("{")))


class ReplayRig:
    """Runs replays against these services."""

    def __init__(self, **variables: str) -> None:
        self.environment = {**os.environ, **variables}

    def run(self, *words: str, **variables: str) -> Done:
        """Run one to its end."""
        done = subprocess.run(
            [COMMAND, "replay", *words], env={**self.environment, **variables}, capture_output=True, text=True,
            timeout=TIMEOUT_S, check=False,
        )  # fmt: skip
        return Done(done.returncode, done.stdout, done.stderr)

    def started(self, *words: str) -> subprocess.Popen[str]:
        """Start one and leave it to the test."""
        return subprocess.Popen(
            [COMMAND, "replay", *words], env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def topics(self, prefix: str) -> list[str]:
        """The topics whose names begin so."""
        admin = AdminClient({"bootstrap.servers": self.environment["KAFKA_BOOTSTRAP_SERVERS"], "log_level": 0})
        return sorted(name for name in admin.list_topics(timeout=20).topics if name.startswith(prefix))
