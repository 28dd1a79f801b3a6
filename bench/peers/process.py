"""Runs one peer in a process of its own: a job goes in, the seconds that it took come out, and then it is ended."""

from __future__ import annotations

import json
import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from bench.errors import BenchFailed
from tradetape.console.local.process import tail

ROOT = Path(__file__).resolve().parents[2]
DEADLINE_S = 300.0
STOP_TIMEOUT_S = 15.0
LOG_LINES = 15


class Job(NamedTuple):
    """What a peer is asked to do: bring the topic's first `expected` records into the table, and say how long it took."""

    bootstrap_servers: str
    topic: str
    group: str
    schema: dict[str, Any]
    """The records' Avro schema; their values are framed by five bytes."""
    dsn: str
    table: str
    """In the schema `bench`, with a column for each field, each known indicator and the place on the tape."""
    expected: int
    batch_records: int
    commit_interval_s: float


def seconds(command: Sequence[str], job: Job, log: Path) -> float:
    """From the first record in the peer's hands to its last COMMIT. Raises BenchFailed."""
    with log.open("ab") as complaints:
        process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=complaints, text=True, cwd=ROOT
        )
    deadline = threading.Timer(DEADLINE_S, process.kill)
    deadline.start()
    try:
        assert process.stdin is not None
        assert process.stdout is not None
        process.stdin.write(json.dumps(job._asdict()) + "\n")
        process.stdin.flush()
        answer = process.stdout.readline()
        if not answer:
            raise BenchFailed(f"{command[-1]} gave no answer; the end of {log}:\n{tail(log, LOG_LINES)}")
        return float(json.loads(answer)["seconds"])
    finally:
        deadline.cancel()
        _end(process)


def _end(process: subprocess.Popen[str]) -> None:
    process.terminate()
    try:
        process.communicate(timeout=STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.communicate()
