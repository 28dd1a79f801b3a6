"""What can be written into current state: three kinds of change, each with a script that applies it once however often it comes.

None of them needs to know what was written before: the newest event replaces, members join a set, a step raises a
trade. So redelivery, rebalance and replay, in any order, leave the same state (I3).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import msgspec

FUTURE_US = 5_000_000
"""How far ahead of Redis' own clock an event may be: one bad clock must not freeze a key."""

Argument = str | int


class Write(msgspec.Struct, frozen=True, gc=False, kw_only=True):
    """One change of one key, which is no longer current from `expires_at_ms` on, in milliseconds since 1970."""

    script: ClassVar[str]

    key: str
    expires_at_ms: int

    @property
    def slot(self) -> str:
        """What it has in common with the changes that it can be joined with before they are written."""
        return self.key

    def joined(self, earlier: Any) -> Write:
        """The one change that does what it and an earlier one of its slot do."""
        raise NotImplementedError

    def arguments(self) -> Sequence[Argument]:
        """What the script is given behind the key."""
        raise NotImplementedError

    def moved(self, key: str, expires_at_ms: int) -> Write:
        """The same for another key, with another expiry."""
        return msgspec.structs.replace(self, key=key, expires_at_ms=expires_at_ms)


class Update(Write, frozen=True, gc=False, kw_only=True):
    """The newest event of one key: its order, its expiry, and the fields of its hash as text."""

    script: ClassVar[str] = "newest.lua"

    event_time_us: int
    partition: int
    offset: int
    fields: Mapping[str, str]

    @property
    def order(self) -> tuple[int, int, int]:
        """What makes an event newer."""
        return self.event_time_us, self.partition, self.offset

    def joined(self, earlier: Update) -> Update:
        """The newer of the two."""
        return earlier if earlier.order >= self.order else self

    def arguments(self) -> Sequence[Argument]:
        """As newest.lua has them."""
        flat = [text for pair in self.fields.items() for text in pair]
        return [self.event_time_us, self.partition, self.offset, self.expires_at_ms, FUTURE_US, *flat]


class Members(Write, frozen=True, gc=False, kw_only=True):
    """Events that belong to a set, each as an integer of its id: how many there are is a count that no repeat raises."""

    script: ClassVar[str] = "members.lua"

    numbers: set[int]

    def joined(self, earlier: Members) -> Members:
        """All of them, in the set of the earlier one."""
        earlier.numbers.update(self.numbers)
        return earlier

    def arguments(self) -> Sequence[Argument]:
        """As members.lua has them."""
        return [self.expires_at_ms, *self.numbers]


class TradeStep(Write, frozen=True, gc=False, kw_only=True):
    """What became of one trade: approved, dispatched or closed; trades.lua says how the steps add up."""

    script: ClassVar[str] = "trades.lua"

    trade_id: str
    step: str
    event_time_us: int
    partition: int
    offset: int
    text: str
    """What the step says in words: action and direction, a dispatch's outcome, how it was closed."""
    fields: Mapping[str, str]

    @property
    def order(self) -> tuple[int, int, int]:
        """What makes a step of one kind newer."""
        return self.event_time_us, self.partition, self.offset

    @property
    def slot(self) -> str:
        """A trade is approved and closed once, and of its dispatches the newest counts."""
        return f"{self.key} {self.trade_id} {self.step}"

    def joined(self, earlier: TradeStep) -> TradeStep:
        """The newer of the two."""
        return earlier if earlier.order >= self.order else self

    def arguments(self) -> Sequence[Argument]:
        """As trades.lua has them."""
        flat = [text for pair in self.fields.items() for text in pair]
        place = (self.event_time_us, self.partition, self.offset)
        return [self.step, self.trade_id, *place, self.expires_at_ms, FUTURE_US, self.text, *flat]
