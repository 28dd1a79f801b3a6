"""Replays into the history: fills the gaps of the live schema, or writes a copy of it and compares the two.

Rows are unique by event_time and event_id, so what is there already is counted and stays. The live sink's offsets, and
with them its fence, are not touched: these rows need none.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence

import psycopg

from tradetape.schemas import Codec
from tradetape.sinks.errors import DatabaseUnavailable, ReplayRefused
from tradetape.sinks.history.connection import connect, passing_errors
from tradetape.sinks.history.migrate import migrate
from tradetape.sinks.history.offsets import Offsets
from tradetape.sinks.history.schema import SCHEMA, checked
from tradetape.sinks.history.sink import HistorySink
from tradetape.sinks.replay.comparison import compared
from tradetape.sinks.replay.plan import Plan
from tradetape.sinks.replay.refusals import Refusals
from tradetape.sinks.replay.targets.target import Difference
from tradetape.streams.backoff import Backoff
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record

ATTEMPTS = 5


class _NoOffsets(Offsets):
    """Where the live sink has its fence. A repeated chunk finds its rows there, so nothing has to be remembered."""

    def __init__(self) -> None:
        super().__init__("replay", str)

    def unstored(self, records: Sequence[Record]) -> list[Record]:
        return list(records)

    def retake(self, connection: psycopg.Connection) -> None:
        pass

    def advance(self, connection: psycopg.Connection, ends: Mapping[Partition, int]) -> None:
        pass

    def advanced(self, ends: Mapping[Partition, int]) -> None:
        pass


class HistoryTarget:
    """Writes rows with the live sink's own ladder. `schema` None fills the live one's gaps."""

    begins_anew = False

    def __init__(self, *, dsn: str, codec: Codec, plan: Plan, schema: str | None, refusals: Refusals) -> None:
        """Raises ReplayRefused, SchemaNameRefused."""
        if schema == SCHEMA:
            raise ReplayRefused(f"{SCHEMA} is the live schema: leave --schema out to fill its gaps")
        self._dsn = dsn
        self._catalogue = codec.catalogue
        self._plan = plan
        self._schema = schema and checked(schema)
        self._refusals = refusals
        self._sink = HistorySink(
            dsn=dsn, catalogue=codec.catalogue, codec=codec, dead_letters=refusals, topic_uuid=str, name="replay",
            offsets=_NoOffsets(), schema=self._schema or SCHEMA,
        )  # fmt: skip

    @property
    def counts(self) -> Counter[str]:
        """Rows stored, and repeated: there already."""
        return Counter({name: count for name, count in self._sink.counts.items() if name != "skipped"})

    def check(self) -> None:
        """Raises ReplayRefused where a schema of the copy's name is there."""
        if self._schema is None:
            return
        with passing_errors(), connect(self._dsn, application="tradetape-replay") as connection:
            row = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [self._schema]).fetchone()
        if row and row[0]:
            raise ReplayRefused(
                f"there is a schema {self._schema} already: name another one, or drop it (DROP SCHEMA … CASCADE)"
            )

    def open(self) -> None:
        """Make the copy's tables. Raises MigrationError."""
        if self._schema is not None:
            migrate(self._dsn, schema=self._schema)

    def write(self, records: Sequence[Record], stream_time_us: int) -> None:
        """Store what is not there yet, in one transaction. Raises DatabaseUnavailable after some tries.

        The live sink may write the same rows in another order, and a deadlock ends one of the two.
        """
        refused = Counter(self._refusals.refused)
        backoff = Backoff()
        for tried in range(1, ATTEMPTS + 1):
            try:
                self._sink.process(records)
                return
            except DatabaseUnavailable:
                if tried == ATTEMPTS:
                    raise
                # What this try refused, the next one refuses again.
                self._refusals.refused = refused.copy()
                time.sleep(backoff.next_s())

    def finish(self) -> list[Difference]:
        """How the copy differs from the live schema over what was replayed."""
        if self._schema is None:
            return []
        with passing_errors(), connect(self._dsn, application="tradetape-replay") as connection:
            return compared(connection, self._schema, plan=self._plan, catalogue=self._catalogue)

    def close(self) -> None:
        """End the session."""
        self._sink.close()
