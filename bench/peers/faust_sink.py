"""Faust and psycopg's `executemany` on IndicatorUpdates: the stream processor and the statement that most would take.

In the one recipe that loses nothing when its process dies (streams' faust.py): `noack()`, acknowledged after COMMIT.
Batches as ours, repeats left out by the table's key. A job as JSON on stdin, the seconds on stdout; then it goes on
until it is ended.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable
from typing import Any

import faust
import psycopg
from psycopg.sql import SQL, Identifier, Placeholder
from psycopg.types.json import Jsonb

from bench.bare import Plain, decoder
from bench.bare_history import COLUMNS
from tradetape.streams.engines.faust import SETTINGS

INSERT = SQL("INSERT INTO {table} ({columns}) VALUES ({values}) ON CONFLICT DO NOTHING")


class Batches:
    """Gathers events, stores them by the batch, and only then acknowledges them."""

    def __init__(self, job: dict[str, Any]) -> None:
        self._decode = decoder(job["schema"])
        self._size: int = job["batch_records"]
        self._missing: int = job["expected"]
        self._connection = psycopg.connect(job["dsn"])
        self._insert = INSERT.format(
            table=Identifier("bench", job["table"]),
            columns=SQL(", ").join(map(Identifier, COLUMNS)),
            values=SQL(", ").join(map(Placeholder, COLUMNS)),
        )
        self._waiting: list[Any] = []
        self._began = 0.0

    async def feed(self, stream: Any) -> None:
        """The agent."""
        unacknowledged = stream.noack()
        async for event in unacknowledged.events():
            self._began = self._began or time.perf_counter()
            self._waiting.append(event)
            if len(self._waiting) >= min(self._size, self._missing):
                await self.store(unacknowledged.ack)

    async def store(self, acknowledge: Callable[[Any], Any]) -> None:
        """Store what waits."""
        events, self._waiting = self._waiting, []
        with self._connection.cursor() as cursor:
            cursor.executemany(self._insert, [self._row(event.message) for event in events])
        self._connection.commit()
        for event in events:
            await acknowledge(event)
        self._missing -= len(events)
        if self._missing == 0:
            print(json.dumps({"seconds": time.perf_counter() - self._began}), flush=True)

    def _row(self, message: Any) -> Plain:
        """The columns of one record, as our table has them; all values of the sample have a column of their own."""
        row: Plain = dict.fromkeys(COLUMNS) | self._decode(message.value)
        row |= row.pop("values")
        row |= {"topic": message.topic, "partition": message.partition, "offset": message.offset}
        row["tags"], row["invalid"] = Jsonb(row["tags"]), Jsonb(row["invalid"])
        return row


def main() -> None:
    """Do one job."""
    job = json.loads(sys.stdin.readline())
    settings = SETTINGS | {"broker_commit_interval": job["commit_interval_s"]}
    with (
        tempfile.TemporaryDirectory(prefix="tradetape-bench-") as folder,
        open(os.devnull, "w", encoding="utf-8") as nowhere,
    ):
        app = faust.App(job["group"], broker=f"kafka://{job['bootstrap_servers']}", datadir=folder, **settings)
        app.agent(app.topic(job["topic"]), concurrency=1)(Batches(job).feed)
        # Its progress spinner writes to what it takes for a terminal; the answer goes to the real stdout.
        faust.Worker(
            app, override_logging=False, redirect_stdouts=False, quiet=True, stdout=nowhere, stderr=nowhere
        ).execute_from_commandline()


if __name__ == "__main__":
    main()
