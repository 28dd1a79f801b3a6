"""The book of replays in PostgreSQL: what was asked for, how far each run came, and how it ended; a run has one process."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple
from uuid import UUID

import msgspec
import psycopg
from psycopg.sql import SQL

from tradetape.producers.sql_blocks import sql_blocks
from tradetape.schemas import times
from tradetape.sinks.errors import ReplayRefused
from tradetape.sinks.history.connection import connect, passing_errors
from tradetape.sinks.replay.plan import Plan, Progress

DONE, BAD_DATA, INTERRUPTED, FAILED = "DONE", "BAD_DATA", "INTERRUPTED", "FAILED"
LISTED = 20
STATEMENTS = Path(__file__).with_name("replay.sql")
_json = msgspec.json


class Run(NamedTuple):
    """One run as the book lists it."""

    run_id: str
    started_at: datetime
    finished_at: datetime | None
    outcome: str
    target: str
    range_start: datetime | None
    range_end: datetime | None
    topics: list[str]
    counts: dict[str, int]


class Found(NamedTuple):
    """A run to go on with."""

    plan: Plan
    progress: Progress
    counts: Counter[str]


class RunBook:
    """One session with the book. Raises DatabaseUnavailable, and SchemaBehind where `history migrate` is due."""

    def __init__(self, dsn: str) -> None:
        self._connection = connect(dsn, application="tradetape-replay-runs")

    def begin(self, run_id: str, plan: Plan) -> None:
        """Enter a new run, and hold it."""
        self._hold(run_id)
        request = plan.request
        self._execute(
            "begin", run_id=run_id, target=request.into, start=_instant(request.start_us), end=_instant(request.end_us),
            topics=list(plan.topics), plan=_text(plan), progress=_text(Progress.none(plan)), counts="{}",
        )  # fmt: skip

    def resume(self, run_id: str) -> Found:
        """Hold a run that came to no end. Raises ReplayRefused for one that is unknown, at an end, or going on."""
        try:
            UUID(run_id)
        except ValueError:
            raise ReplayRefused(f"{run_id!r} is no run; `tradetape replay --list` shows them") from None
        row = self._execute("find", run_id=run_id).fetchone()
        if row is None:
            raise ReplayRefused(f"there is no run {run_id}; `tradetape replay --list` shows them")
        self._hold(run_id)
        outcome, plan, progress, counts = row
        if outcome in (DONE, BAD_DATA):
            raise ReplayRefused(f"run {run_id} has come through ({outcome}); there is nothing to resume")
        self._execute("again", run_id=run_id)
        return Found(
            msgspec.convert(plan, Plan), msgspec.convert(progress, Progress), Counter(msgspec.convert(counts, dict[str, int]))
        )  # fmt: skip

    def _hold(self, run_id: str) -> None:
        row = self._execute("lock", run_id=run_id).fetchone()
        if not (row and row[0]):
            raise ReplayRefused(f"run {run_id} is going on in another process")

    def advance(self, run_id: str, progress: Progress, counts: Mapping[str, int]) -> None:
        """All up to here is written."""
        self._execute("advance", run_id=run_id, progress=_text(progress), counts=_text(counts))

    def end(self, run_id: str, outcome: str, counts: Mapping[str, int]) -> None:
        """It has come to an end, of this process at least."""
        self._execute("end", run_id=run_id, outcome=outcome, counts=_text(counts))

    def newest(self, limit: int = LISTED) -> list[Run]:
        """The newest runs, newest first."""
        return [Run(*row) for row in self._execute("list", limit=limit).fetchall()]

    def _execute(self, name: str, **parameters: object) -> psycopg.Cursor[Any]:
        statement = SQL(sql_blocks(STATEMENTS)[name])
        with passing_errors():
            return self._connection.execute(statement, parameters)

    def close(self) -> None:
        """Let go of what is held."""
        self._connection.close()


def _text(document: object) -> str:
    return _json.encode(document).decode()


def _instant(micros: int | None) -> datetime | None:
    return None if micros is None else times.to_datetime(micros)
