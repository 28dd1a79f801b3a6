"""`tradetape …` as it is, but for the places where a test may have it die or stand still: the gaps between two steps.

Run as `python failing_worker.py WORDS…`. A test arms it through the file that FAILPOINT names: the point and a signal,
which the process sends itself the next time it comes there.
"""

from __future__ import annotations

import functools
import os
import signal
import sys
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import psycopg

from tradetape.console import cli
from tradetape.sinks.history.copy_rows import TRAILER, CopyRows
from tradetape.sinks.history.offsets import Offsets
from tradetape.sinks.history.writer import HistoryWriter
from tradetape.streams.dead_letters import KafkaDeadLetters
from tradetape.streams.engines.kafka import KafkaEngine
from tradetape.streams.engines.open_marks import OpenMarks
from tradetape.streams.processor import Partition

VARIABLE = "FAILPOINT"
IN_COPY, IN_COMMIT, LETTER_SENT, LETTERS_DONE = (
    "in COPY", "in COMMIT", "dead letter on its way", "dead letters acknowledged",
)  # fmt: skip
SEAMS: Mapping[str, tuple[type, str]] = {
    "the claim": (Offsets, "claim"),
    "the mark": (OpenMarks, "open"),
    "COPY": (HistoryWriter, "_copy_into"),
    "the fence": (Offsets, "advance"),
    "what follows COMMIT": (Offsets, "advanced"),
    "the Kafka commit": (KafkaEngine, "_commit"),
}
"""Methods before and behind which a worker may end."""
POINTS = (
    *(f"{side} {seam}" for seam in SEAMS for side in ("before", "behind")), IN_COPY, IN_COMMIT, LETTER_SENT, LETTERS_DONE,
)  # fmt: skip


def arm(file: Path, point: str, number: signal.Signals) -> None:
    """Have whoever was started with this file send itself a signal at a point."""
    aside = file.with_suffix(".new")
    aside.write_text(f"{number.name} {point}", encoding="utf-8")
    aside.rename(file)


class Failpoints:
    """The points of this process, and the file that says which of them is armed."""

    def __init__(self, file: Path) -> None:
        self._file = file
        self._letters = 0

    def armed(self, point: str) -> signal.Signals | None:
        """The signal that awaits us at a point."""
        try:
            name, _, armed = self._file.read_text(encoding="utf-8").partition(" ")
        except FileNotFoundError:
            return None
        return signal.Signals[name] if armed == point else None

    def pass_by(self, point: str) -> None:
        """Come to a point; go on, stand still, or die."""
        if (number := self.armed(point)) is not None:
            self._file.unlink()
            os.kill(os.getpid(), number)

    def lay(self) -> None:
        """Wrap the seams."""
        for seam, (owner, name) in SEAMS.items():
            setattr(owner, name, self._around(getattr(owner, name), seam))
        self._lay_within_copy()
        self._lay_within_commit()
        self._lay_at_letters()

    def _around(self, method: Callable[..., Any], seam: str) -> Callable[..., Any]:
        @functools.wraps(method)
        def wrapped(*given: Any, **named: Any) -> Any:
            self.pass_by(f"before {seam}")
            found = method(*given, **named)
            self.pass_by(f"behind {seam}")
            return found

        return wrapped

    def _lay_within_copy(self) -> None:
        pieces = CopyRows.pieces

        def wrapped(rows: CopyRows) -> Iterator[bytes]:
            for piece in pieces(rows):
                if piece == TRAILER:
                    self.pass_by(IN_COPY)
                yield piece

        setattr(CopyRows, "pieces", wrapped)  # noqa: B010  mypy forbids to assign it

    def _lay_within_commit(self) -> None:
        """COMMIT is on its way, and nobody will hear its answer."""
        advance = Offsets.advance

        def wrapped(offsets: Offsets, connection: psycopg.Connection, ends: Mapping[Partition, int]) -> None:
            advance(offsets, connection, ends)
            if self.armed(IN_COMMIT):
                connection.pgconn.send_query(b"COMMIT")
                connection.pgconn.flush()
                self.pass_by(IN_COMMIT)

        setattr(Offsets, "advance", wrapped)  # noqa: B010

    def _lay_at_letters(self) -> None:
        send, flush = KafkaDeadLetters.send, KafkaDeadLetters.flush

        def sending(letters: KafkaDeadLetters, *given: Any, **named: Any) -> None:
            send(letters, *given, **named)
            self._letters += 1
            self.pass_by(LETTER_SENT)

        def flushing(letters: KafkaDeadLetters) -> None:
            flush(letters)
            if self._letters:
                self._letters = 0
                self.pass_by(LETTERS_DONE)

        setattr(KafkaDeadLetters, "send", sending)  # noqa: B010
        setattr(KafkaDeadLetters, "flush", flushing)  # noqa: B010


if __name__ == "__main__":
    Failpoints(Path(os.environ[VARIABLE])).lay()
    sys.exit(cli.main(sys.argv[1:]))
