"""An outbox read by somebody who does not own it: counted, and gone through in order.

Nothing is written to it, and each read is short, so that a running producer can fold its log back in between.
"""

from __future__ import annotations

import heapq
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from operator import itemgetter
from pathlib import Path
from typing import Any, Self

from tradetape.producers.errors import OutboxUnavailable
from tradetape.producers.outbox.store import RECORD_OVERHEAD_BYTES, Entry, Totals
from tradetape.producers.sql_blocks import sql_blocks

SLICE_RECORDS = 500
BUSY_TIMEOUT_S = 1.0
_STATEMENTS = Path(__file__).with_name("reading.sql")
FORM = (int, int, str, bytes, bytes, int)
"""A record's columns, besides the cause. SQLite does not mind other types in a damaged one."""


class OutboxReader:
    """Reads one sound file."""

    unread: Sequence[str] = ()
    """What could not be read: nothing, or it raises."""

    def __init__(self, path: Path) -> None:
        """Raises OutboxUnavailable."""
        self.path = path
        with self._mapped():
            self._connection = sqlite3.connect(
                f"{path.absolute().as_uri()}?mode=ro", uri=True, isolation_level=None, timeout=BUSY_TIMEOUT_S
            )

    def totals(self) -> Totals:
        """What it holds, counted as its producer counts; every page of records is looked at. Raises OutboxUnavailable."""
        with self._mapped():
            self._connection.execute("BEGIN")
            try:
                waiting, waiting_bytes = self._all("waiting_totals")[0]
                parked, parked_bytes = self._all("parked_totals")[0]
                firsts = [first for topic, _ in self._all("topics") for (first,) in self._all("first", topic)]
            finally:
                self._connection.execute("ROLLBACK")
        size = waiting_bytes + parked_bytes + RECORD_OVERHEAD_BYTES * (waiting + parked)
        return Totals(waiting, size, parked, min(firsts, default=None))

    def entries(self) -> Iterator[Entry]:
        """Every record that waits or is parked, in order. Raises OutboxUnavailable."""
        with self._mapped():
            topics = dict(self._all("topics"))
            ways = [self._slices("waiting_from", topic) for topic in topics]
            for number, topic, *rest in heapq.merge(*ways, self._slices("parked_from"), key=itemgetter(0)):
                yield Entry(number, topics.get(topic, f"?{topic}"), *rest)

    def close(self) -> None:
        """Let go of the file."""
        self._connection.close()

    def _slices(self, name: str, *given: int) -> Iterator[tuple[Any, ...]]:
        number = 1
        while rows := self._all(name, *given, number, SLICE_RECORDS):
            if not all(tuple(map(type, row[:-1])) == FORM for row in rows):
                raise OutboxUnavailable(f"the outbox {self.path} cannot be read: a record has not its form")
            yield from rows
            number = rows[-1][0] + 1

    def _all(self, name: str, *given: int) -> list[Any]:
        return self._connection.execute(_statement(name), given).fetchall()

    @contextmanager
    def _mapped(self) -> Iterator[None]:
        try:
            yield
        # SQLite's own message may quote what is damaged, and be no UTF-8 then.
        except (sqlite3.Error, UnicodeDecodeError) as error:
            raise OutboxUnavailable(f"the outbox {self.path} cannot be read: {error}") from error

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _statement(name: str) -> str:
    return sql_blocks(_STATEMENTS)[name]
