"""Replays into the history: fills the gaps of the live schema, or writes a copy of it and compares the two.

Rows are unique by event_time and event_id, so what is there already is counted and stays. The live sink's offsets, and
with them its fence, are not touched: these rows need none.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import psycopg

from tradetape.schemas import Codec
from tradetape.sinks.errors import ReplayRefused
from tradetape.sinks.history.connection import connect, passing_errors
from tradetape.sinks.history.migrate import migrate
from tradetape.sinks.history.offsets import Offsets
from tradetape.sinks.history.schema import SCHEMA, checked
from tradetape.sinks.history.sink import HistorySink
from tradetape.sinks.replay.comparison import compared
from tradetape.sinks.replay.plan import Plan
from tradetape.sinks.replay.refusals import Refusals
from tradetape.sinks.replay.targets.target import Difference
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record


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

    def __init__(
        self, *, dsn: str, codec: Codec, plan: Plan, schema: str | None, refusals: Refusals, is_resumed: bool
    ) -> None:
        """Raises ReplayRefused, SchemaNameRefused."""
        if schema == SCHEMA:
            raise ReplayRefused(f"{SCHEMA} is the live schema: leave --schema out to fill its gaps")
        self._dsn = dsn
        self._catalogue = codec.catalogue
        self._plan = plan
        self._schema = schema and checked(schema)
        self._is_resumed = is_resumed
        self._sink = HistorySink(
            dsn=dsn, catalogue=codec.catalogue, codec=codec, dead_letters=refusals, topic_uuid=str, name="replay",
            offsets=_NoOffsets(), schema=self._schema or SCHEMA,
        )  # fmt: skip

    @property
    def counts(self) -> Counter[str]:
        """Rows stored, and repeated: there already."""
        return Counter({name: count for name, count in self._sink.counts.items() if name != "skipped"})

    def open(self) -> None:
        """Make the copy's tables. Raises ReplayRefused where a schema of that name is there and is not this run's."""
        if self._schema is not None:
            if not self._is_resumed and self._is_there(self._schema):
                raise ReplayRefused(
                    f"there is a schema {self._schema} already: name another one, or drop it (DROP SCHEMA … CASCADE)"
                )
            migrate(self._dsn, schema=self._schema)

    def _is_there(self, schema: str) -> bool:
        with passing_errors(), connect(self._dsn, application="tradetape-replay") as connection:
            row = connection.execute("SELECT to_regnamespace(%s) IS NOT NULL", [schema]).fetchone()
        return bool(row and row[0])

    def write(self, records: Sequence[Record], stream_time_us: int) -> None:
        """Store what is not there yet, in one transaction. Raises DatabaseUnavailable."""
        if records:
            self._sink.process(records)

    def finish(self) -> list[Difference]:
        """How the copy differs from the live schema over what was replayed."""
        if self._schema is None:
            return []
        with passing_errors(), connect(self._dsn, application="tradetape-replay") as connection:
            return compared(connection, self._schema, plan=self._plan, catalogue=self._catalogue)

    def close(self) -> None:
        """End the session."""
        self._sink.close()
