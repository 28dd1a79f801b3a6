"""What the bot emitted, by record: the first column of the final table, kept beside the bot and not inside of it."""

from __future__ import annotations

from collections import defaultdict

from tradetape.console.demo.bot import Emitter, EventT
from tradetape.schemas import Catalogue, Event


class Ledger:
    """Passes events on to a producer and writes down the ids of those that it took."""

    def __init__(self, tape: Emitter, catalogue: Catalogue) -> None:
        self.ids: defaultdict[str, list[str]] = defaultdict(list)
        """Event ids by record, in the order of their emission."""
        self.count = 0
        self.latest: dict[str, Event] = {}
        """By record, the event emitted last, as stamped."""
        self._tape = tape
        self._catalogue = catalogue

    def emit(self, event: EventT) -> EventT:
        """Emit an event and remember its id."""
        stamped = self._tape.emit(event)
        assert stamped.event_id
        record = self._catalogue.by_class(type(stamped)).record
        self.ids[record].append(stamped.event_id)
        self.latest[record] = stamped
        self.count += 1
        return stamped
