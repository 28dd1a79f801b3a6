"""Keeps in Redis what is current: what a strategy reads instead of the tape (I1, I2, I3). projections.py says what that is."""

from __future__ import annotations

import logging
from collections.abc import Sequence

from tradetape.schemas import Catalogue, Codec, DecodeError
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.processors.projections import PROJECTIONS
from tradetape.streams.record import Record
from tradetape.streams.state.store import StateStore
from tradetape.streams.state.writes import Write

logger = logging.getLogger("tradetape.streams")

RECORDS = tuple(PROJECTIONS)
MARK_INTERVAL_US = 60 * 1_000_000
_EMPTIED = {"action": "rebuild"}


class CurrentState:
    """Processor from the topics of the records that are projected to small keys in Redis.

    `may_mark` says that this Redis is filled, or will be: that it is read from the tape's beginning.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        store: StateStore,
        dead_letters: DeadLetters,
        codec: Codec | None = None,
        name: str = "state",
        may_mark: bool = True,
    ) -> None:
        self.name = name
        self._may_mark = may_mark
        self.store = store
        self._dead_letters = dead_letters
        self._codec = codec or Codec(catalogue)
        self._projections = {
            catalogue.topic_name(catalogue.by_record(record)): projections
            for record, projections in PROJECTIONS.items()
        }
        self.topics = tuple(self._projections)
        self._marked_at_us: int | None = None

    def process(self, batch: Sequence[Record]) -> None:
        """Write what the batch changes, joined by key as far as that goes. Raises StateUnavailable."""
        waiting: dict[str, Write] = {}
        outdone: dict[str, list[Write]] = {}
        refused: list[tuple[Record, DecodeError]] = []
        for record in batch:
            try:
                plain = self._codec.decode_fields(record.topic, record.value)
            except DecodeError as error:
                refused.append((record, error))
                continue
            for project in self._projections[record.topic]:
                write = project(self.store, record, plain)
                slot = write.slot
                held = waiting.get(slot)
                if held is None:
                    waiting[slot] = write
                else:
                    waiting[slot] = joined = write.joined(held)
                    outdone.setdefault(slot, []).append(held if joined is write else write)
        if waiting:
            early = self.store.write(list(waiting.values()))
            # One bad clock must not take with it what is true now: which of the others is newest, the scripts find out.
            if behind := [one for each in early for one in outdone.get(each.slot, ())]:
                self.store.write(behind)
        # Last: while Redis is away the batch comes again and again, and each time would repeat its dead letters.
        for record, why in refused:
            self._dead_letters.send(record, why.reason, why, stage="VALUE_CONVERTER")

    def examine(self, record: Record) -> None:
        """Decode it, and see what it would write."""
        plain = self._codec.decode_fields(record.topic, record.value)
        for project in self._projections[record.topic]:
            project(self.store, record, plain)

    def pass_over(self, records: Sequence[Record]) -> None:
        """The offsets are Kafka's."""

    def tick(self, now_us: int) -> None:
        """Keep the marker alive that says that this Redis is filled."""
        if self._marked_at_us is None and self._may_mark:
            self.store.mark_filled()
        elif self._marked_at_us is not None and now_us - self._marked_at_us <= MARK_INTERVAL_US:
            return
        elif not self.store.renew_mark():
            # A new marker would say that this Redis is filled, and the next start would not fill it.
            logger.error(
                "Redis was emptied: stop all workers of the group and start them again, to fill it from the tape",
                extra=_EMPTIED,
            )
        self._marked_at_us = now_us
