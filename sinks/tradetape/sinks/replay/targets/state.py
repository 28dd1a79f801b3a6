"""Replays into current state: into the live prefix through its compare-and-set, or the past under a prefix of its own.

The live prefix never holds what has expired (I1, I2). A past state lives as long from now on as it had left then.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence

import redis

from tradetape.schemas import Codec
from tradetape.sinks.errors import ReplayRefused
from tradetape.sinks.replay.refusals import Refusals
from tradetape.sinks.replay.targets.target import Difference
from tradetape.streams.processors.current_state import CurrentState
from tradetape.streams.record import Record
from tradetape.streams.state.connection import connect, mapped_errors
from tradetape.streams.state.keys import Keys
from tradetape.streams.state.store import StateStore
from tradetape.streams.state.writes import Write

MAX_SERIES = 1_000_000
"""How many series a past state may have: its newest events are held in memory until the replay has come through."""
SCAN_COUNT = 1_000


class LiveStateTarget:
    """Writes what has not expired where it is newer than what is there."""

    begins_anew = False

    def __init__(self, *, url: str, codec: Codec, prefix: str, refusals: Refusals) -> None:
        self._store = StateStore.from_url(url, prefix=prefix)
        self._processor = _processor(codec, self._store, refusals)

    @property
    def counts(self) -> Counter[str]:
        """What became of the newest events of each batch: applied, stale, expired, future."""
        return self._store.results

    def check(self) -> None:
        """What is newer there stays."""

    def open(self) -> None:
        """Nothing is to be made."""

    def write(self, records: Sequence[Record], stream_time_us: int) -> None:
        """Apply them. Raises StateUnavailable."""
        if records:
            self._processor.process(records)

    def finish(self) -> list[Difference]:
        """Nothing to compare."""
        return []

    def close(self) -> None:
        """Close the connections."""
        self._store.close()


class PastStateTarget:
    """Builds the state as it was at `at_us`, or, where that is None, as it was at each moment of a paced replay.

    A state at one instant is written at the end, at once: what was about to expire then is still there to look at.
    """

    def __init__(
        self,
        *,
        url: str,
        codec: Codec,
        prefix: str,
        live_prefix: str,
        at_us: int | None,
        now_us: Callable[[], int],
        refusals: Refusals,
    ) -> None:
        """Raises ReplayRefused for the live prefix, and for one that overlaps it."""
        keys, live = Keys(prefix), Keys(live_prefix)
        if keys.root.startswith(live.root) or live.root.startswith(keys.root):
            raise ReplayRefused(f"{prefix} is the live prefix, or overlaps it: the past goes under a prefix of its own")
        self.begins_anew = at_us is not None
        self._at_us = at_us
        self._client = connect(url)
        self._root = keys.root
        self._store = PastStore(self._client, live=live, past=keys, now_us=now_us)
        self._processor = _processor(codec, self._store, refusals)

    @property
    def counts(self) -> Counter[str]:
        """As of the live target."""
        return self._store.results

    def check(self) -> None:
        """Raises ReplayRefused where the prefix holds keys of another replay: an older state would not replace them."""
        pattern = "".join(f"\\{one}" if one in "*?[]\\^" else one for one in self._root) + "*"
        with mapped_errors():
            if next(self._client.scan_iter(match=pattern, count=SCAN_COUNT), None) is not None:
                raise ReplayRefused(
                    f"there are keys under {self._root} already: name another prefix, or let them expire"
                )

    def open(self) -> None:
        """Nothing is to be made."""

    def write(self, records: Sequence[Record], stream_time_us: int) -> None:
        """Take them. Raises StateUnavailable, ReplayRefused for more series than are held."""
        if records:
            self._processor.process(records)
            if self._at_us is None:
                self._store.settle(stream_time_us)

    def finish(self) -> list[Difference]:
        """Write the state of one instant."""
        if self._at_us is not None:
            self._store.settle(self._at_us)
        return []

    def close(self) -> None:
        """Close the connections."""
        self._store.close()


class PastStore(StateStore):
    """Holds what is to be written, joined by key; `settle` writes it, with expiries moved by now − stream time.

    Changes come under their live keys, of which the expiry is a function, and are written under those of the past.
    """

    def __init__(self, client: redis.Redis, *, live: Keys, past: Keys, now_us: Callable[[], int]) -> None:
        super().__init__(client, live)
        self._past = past
        self._now_us = now_us
        self._waiting: dict[str, Write] = {}

    def write(self, writes: Sequence[Write]) -> list[Write]:
        """Hold them until they are settled. Raises ReplayRefused."""
        for one in writes:
            held = self._waiting.get(one.slot)
            self._waiting[one.slot] = one if held is None else one.joined(held)
        if len(self._waiting) > MAX_SERIES:
            raise ReplayRefused(f"the state has more than {MAX_SERIES:,} keys; narrow it down with --topics")
        return []

    def settle(self, stream_time_us: int) -> None:
        """Write what is held, as if it were now that instant. Raises StateUnavailable."""
        shift_ms = (self._now_us() - stream_time_us) // 1_000
        moved = [
            one.moved(self._past.root + one.key.removeprefix(self.keys.root), one.expires_at_ms + shift_ms)
            for one in self._waiting.values()
        ]
        super().write(moved)
        self._waiting.clear()


def _processor(codec: Codec, store: StateStore, refusals: Refusals) -> CurrentState:
    return CurrentState(
        catalogue=codec.catalogue, codec=codec, store=store, dead_letters=refusals, name="replay", may_mark=False
    )
