"""Raises the alarm when a series of bars falls silent, and takes it back when the series returns.

From each final candle or indicator update the next is due a timeframe and a grace after its close. Where none has come
by then, a MarketCondition says so; its event time is that due time, so it is the same event whenever and however often
it is emitted (I9). What was raised and taken back is read again from the tape at the start, beside the bars of the last
hours: a restart forgets no series and raises nothing anew.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import msgspec

from tradetape.schemas import Catalogue, Codec, DecodeError, MarketCondition, NameRefused, RunMode, names, times
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.effects import Effects
from tradetape.streams.processor import Partition
from tradetape.streams.processors.staleness_past import Past
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.streams")

SCOPE = "staleness"
STALE, FRESH = "stale", "fresh"
LAST_CLOSE = "last_close_s"
"""The value of a condition that says which bar came last, in seconds since 1970."""
DEFAULT_GRACE_US = 10 * times.SECOND_US
MAX_SERIES = 100_000
"""How many series one worker watches; further ones are counted as unwatched."""
KINDS = {"Candle": "candles", "IndicatorUpdate": "indicators"}

Plain = Mapping[str, Any]


class Series(NamedTuple):
    """What is watched: the scope names kind, timeframe and, where it is not the default one, set of indicators."""

    venue: str
    symbol: str
    scope: str


class Watch(msgspec.Struct, frozen=True, gc=False):
    """The last bar of a series, and whether the alarm is raised. `is_armed` says that a bar of it was read by this worker."""

    partition: int
    timeframe_us: int
    closed_at_us: int
    run_mode: str
    correlation_id: str
    event_id: str
    is_stale: bool
    is_armed: bool

    def due_us(self, grace_us: int) -> int:
        """When the next bar has to have come."""
        return self.closed_at_us + self.timeframe_us + grace_us


class Staleness:
    """Processor from candles and indicator updates to market conditions. Times of tick are microseconds since 1970.

    `is_behind` says of a partition whether there are records of it still to be read. What is not there yet must not be
    taken for missing, so the time there is then when its last record was emitted. `past` gives what earlier workers read.
    """

    name = "staleness"

    def __init__(
        self,
        *,
        codec: Codec,
        effects: Effects,
        dead_letters: DeadLetters,
        past: Past,
        is_behind: Callable[[Partition], bool] = lambda _: False,
        grace_us: int = DEFAULT_GRACE_US,
        stall_us: int | None = None,
    ) -> None:
        """`stall_us` is for a clock that goes on while the process does not: see tick."""
        catalogue = codec.catalogue
        self._kinds = {_topic(catalogue, record): kind for record, kind in KINDS.items()}
        self._topics_of_kind = {kind: topic for topic, kind in self._kinds.items()}
        self.topics = tuple(self._kinds)
        self.counts: Counter[str] = Counter()
        self._conditions_topic = _topic(catalogue, "MarketCondition")
        self._codec = codec
        self._effects = effects
        self._dead_letters = dead_letters
        self._past = past
        self._is_behind = is_behind
        self._grace_us = grace_us
        self._stall_us = stall_us
        self._ticked_at_us: int | None = None
        self._watches: dict[Series, Watch] = {}
        self._emitted_at_us: dict[Partition, int] = {}
        self._held: set[Partition] = set()
        """Of a batch that is not taken yet, perhaps because a schema cannot be had: its bars are there, and not missing."""

    def assigned(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        """Read what was raised in these partitions; start some hours ago. Raises Transient."""
        taken, watches = set(partitions), dict[Series, Watch]()
        # A series has the same partition in every topic: they have the same key, and as many partitions.
        for record in self._past.conditions({one.partition for one in partitions}):
            if (found := self._recalled(record)) is not None and self._partition(*found) in taken:
                watches[found[0]] = found[1]
        starts = self._past.starts(partitions)
        self._watches.update(watches)
        return starts

    def released(self, partitions: Iterable[Partition]) -> None:
        """Somebody else watches these."""
        gone = set(partitions)
        self._watches = {one: watch for one, watch in self._watches.items() if self._partition(one, watch) not in gone}
        self._held -= gone
        for one in gone:
            self._emitted_at_us.pop(one, None)

    def process(self, batch: Sequence[Record]) -> None:
        """Take the bars of a batch. Raises EffectsRefused, RegistryUnreachable, and has then taken none of them."""
        self._held = {Partition(record.topic, record.partition) for record in batch}
        changed: dict[Series, Watch] = {}
        conditions: list[MarketCondition] = []
        refused: list[tuple[Record, DecodeError]] = []
        for record in batch:
            try:
                plain = self._codec.decode_fields(record.topic, record.value)
            except DecodeError as error:
                refused.append((record, error))
                continue
            if plain["is_final"]:
                self._take(record, plain, changed, conditions)
        self._tell(conditions, changed)
        for record in batch:
            place = Partition(record.topic, record.partition)
            self._emitted_at_us[place] = max(self._emitted_at_us.get(place, 0), record.timestamp_ms * 1_000)
        self._held.clear()
        for record, why in refused:
            self._dead_letters.send(record, why.reason, why, stage="VALUE_CONVERTER")

    def tick(self, now_us: int) -> None:
        """Raise the alarm for what is due. Raises EffectsRefused; then the next tick does.

        A process that stood still for `stall_us` has not read what came meanwhile: its first tick raises nothing.
        """
        before_us, self._ticked_at_us = self._ticked_at_us, now_us
        if self._stall_us is not None and before_us is not None and now_us - before_us > self._stall_us:
            return
        times_us = {
            place: emitted_at_us if place in self._held or self._is_behind(place) else now_us
            for place, emitted_at_us in self._emitted_at_us.items()
        }
        changed = {
            series: msgspec.structs.replace(watch, is_stale=True)
            for series, watch in self._watches.items()
            if watch.is_armed and not watch.is_stale
            and watch.due_us(self._grace_us) <= times_us.get(self._partition(series, watch), 0)
        }  # fmt: skip
        self._tell([self._raised(series, watch) for series, watch in changed.items()], changed)

    def examine(self, record: Record) -> None:
        """Decode it."""
        self._codec.decode_fields(record.topic, record.value)

    def pass_over(self, records: Sequence[Record]) -> None:
        """Where to start is a question of time here, and no offset is kept."""

    @property
    def stale(self) -> int:
        """How many of the series watched are silent now."""
        return sum(watch.is_stale for watch in self._watches.values())

    def _take(
        self, record: Record, plain: Plain, changed: dict[Series, Watch], conditions: list[MarketCondition]
    ) -> None:
        series, closed_at_us = self._series(record.topic, plain), plain["event_time"]
        before = changed.get(series) or self._watches.get(series)
        if before is None and len(self._watches) + len(changed) >= MAX_SERIES:
            self.counts["unwatched"] += 1
            return
        if before is not None and closed_at_us <= before.closed_at_us:
            # Late or repeated; or read before by an earlier worker, from whose conditions we know the series.
            changed[series] = msgspec.structs.replace(before, is_armed=True)
            return
        now = changed[series] = Watch(
            record.partition, names.timeframe_us(plain["timeframe"]), closed_at_us, plain["run_mode"],
            plain["correlation_id"], plain["event_id"], is_stale=False, is_armed=True,
        )  # fmt: skip
        if before is None:
            return
        was_silent = before.is_armed and before.due_us(self._grace_us) <= closed_at_us
        if was_silent and not before.is_stale:
            conditions.append(self._raised(series, before))
        if was_silent or before.is_stale:
            conditions.append(self._cleared(series, before, now))

    def _tell(self, conditions: Sequence[MarketCondition], changed: Mapping[Series, Watch]) -> None:
        if conditions:
            self._effects.emit(conditions)
        self._watches.update(changed)
        for one in conditions:
            is_alarm = one.condition == STALE
            self.counts["raised" if is_alarm else "cleared"] += 1
            logger.log(
                logging.WARNING if is_alarm else logging.INFO,
                "%s %s %s is %s as of %s", one.venue, one.symbol, one.scope, one.condition, one.event_time,
                extra={"action": one.condition},
            )  # fmt: skip

    def _raised(self, series: Series, last: Watch) -> MarketCondition:
        return _condition(series, STALE, last.due_us(self._grace_us), last)

    def _cleared(self, series: Series, before: Watch, now: Watch) -> MarketCondition:
        # A bar that was merely late closed before it was due; what is told of a series never goes back in time.
        return _condition(series, FRESH, max(before.due_us(self._grace_us), now.closed_at_us), now)

    def _series(self, topic: str, plain: Plain) -> Series:
        kind, more = self._kinds[topic], plain.get("indicator_set", "default")
        scope = f"{SCOPE}:{kind}:{plain['timeframe']}" + ("" if more == "default" else f":{more}")
        return Series(plain["venue"], plain["symbol"], scope)

    def _partition(self, series: Series, watch: Watch) -> Partition:
        return Partition(self._topics_of_kind[series.scope.split(":")[1]], watch.partition)

    def _recalled(self, record: Record) -> tuple[Series, Watch] | None:
        """What a condition on the tape says about a series, where one of us emitted it."""
        try:
            plain = self._codec.decode_fields(record.topic, record.value)
        except DecodeError:
            return None  # Its dead letter is the business of those who keep conditions.
        scope, kind, timeframe = (*plain["scope"].split(":"), "", "", "")[:3]
        if scope != SCOPE or kind not in self._topics_of_kind or LAST_CLOSE not in plain["values"]:
            return None
        try:
            timeframe_us = names.timeframe_us(timeframe)
        except NameRefused:
            return None
        closed_at_us = round(plain["values"][LAST_CLOSE] * times.SECOND_US)
        watch = Watch(
            record.partition, timeframe_us, closed_at_us, plain["run_mode"], plain["correlation_id"],
            plain["causation_id"] or plain["event_id"], is_stale=plain["condition"] == STALE, is_armed=False,
        )  # fmt: skip
        return Series(plain["venue"], plain["symbol"], plain["scope"]), watch


def _condition(series: Series, condition: str, event_time_us: int, bar: Watch) -> MarketCondition:
    return MarketCondition(
        venue=series.venue, symbol=series.symbol, scope=series.scope, condition=condition,
        event_time=times.to_datetime(event_time_us), values={LAST_CLOSE: bar.closed_at_us / times.SECOND_US},
        run_mode=RunMode[bar.run_mode], correlation_id=bar.correlation_id, causation_id=bar.event_id,
    )  # fmt: skip


def _topic(catalogue: Catalogue, record: str) -> str:
    return catalogue.topic_name(catalogue.by_record(record))
