"""One topic's way out of the outbox: a round of records goes, and the next one only when all of it was reported.

So whatever fails, the lane goes on from its oldest unreported record, and a repeat never overtakes: rounds do not
overlap. No I/O and no clock of its own: what to do next follows from what was reported.
"""

from __future__ import annotations

from typing import NamedTuple

from tradetape.producers.outbox.store import Stored

HOLD_FIRST_S = 1.0
HOLD_LONGEST_S = 30.0
RECORD_LEVEL = frozenset(("MSG_SIZE_TOO_LARGE", "RECORD_LIST_TOO_LARGE", "INVALID_TIMESTAMP", "INVALID_RECORD", "INVALID_MSG"))  # fmt: skip
"""Librdkafka's names of what a broker says of a record. It refuses the whole batch, so each is tried again alone."""
GIVEN_UP = frozenset(("_PURGE_QUEUE", "_PURGE_INFLIGHT", "_FATAL"))
"""We gave these up ourselves, to go on with another client."""


class Failure(NamedTuple):
    """Why a record was not taken: librdkafka's name of the error, and its sentence."""

    name: str
    text: str


class Settled(NamedTuple):
    """What a finished round comes to."""

    arrived: list[Stored]
    refused: list[tuple[Stored, Failure]]
    """Records that are to be parked."""
    is_whole: bool
    """Whether all of it arrived."""


class Lane:
    """The state of one topic's way."""

    def __init__(self, topic: str) -> None:
        self.topic = topic
        self.held_by: str | None = None
        """Why nothing goes, None while it does."""
        self._held_until_s = 0.0
        self._hold_s = HOLD_FIRST_S
        self._alone_up_to = 0
        self._unreported: set[int] = set()
        self._arrived: list[Stored] = []
        self._failed: list[tuple[Stored, Failure]] = []
        self._round_size = 0

    @property
    def is_busy(self) -> bool:
        """Whether records of its round are on their way."""
        return bool(self._unreported)

    def may_send(self, now_s: float) -> bool:
        """Whether a round may begin; `now_s` is a monotonic clock's time."""
        return not self._unreported and now_s >= self._held_until_s

    def round_of(self, waiting: list[Stored]) -> list[Stored]:
        """Which of the oldest records make the next round."""
        return waiting[:1] if waiting[0].number <= self._alone_up_to else waiting

    def sent(self, record: Stored) -> None:
        """A record was handed to the client."""
        self._unreported.add(record.number)
        self._round_size += 1

    def reported(self, record: Stored, failure: Failure | None) -> None:
        """The client said what became of a record."""
        self._unreported.discard(record.number)
        if failure is None:
            self._arrived.append(record)
        else:
            self._failed.append((record, failure))

    def settle(self, now_s: float) -> Settled | None:
        """What the round came to, once it is over; None before."""
        if self._unreported or not self._round_size:
            return None
        settled = Settled(self._arrived, self._judge(now_s), not self._failed)
        self._arrived, self._failed, self._round_size = [], [], 0
        return settled

    def _judge(self, now_s: float) -> list[tuple[Stored, Failure]]:
        failures = [one for one in self._failed if one[1].name not in GIVEN_UP]
        of_records = [one for one in failures if one[1].name in RECORD_LEVEL]
        if len(of_records) < len(failures):
            self._hold(next(one[1] for one in failures if one[1].name not in RECORD_LEVEL), now_s)
        elif self._arrived or of_records:
            self._go_on()
        if not of_records:
            return []
        if self._round_size == 1:
            return of_records
        self._alone_up_to = max(record.number for record, _ in of_records)
        return []

    def _hold(self, failure: Failure, now_s: float) -> None:
        self.held_by = failure.text
        self._held_until_s = now_s + self._hold_s
        self._hold_s = min(2 * self._hold_s, HOLD_LONGEST_S)

    def _go_on(self) -> None:
        self.held_by, self._held_until_s, self._hold_s = None, 0.0, HOLD_FIRST_S
