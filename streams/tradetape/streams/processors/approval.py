"""Turns signals into trades, or refuses them, and says why: trade-signals → signal-decisions, trades (I8, I9, I10).

A signal is answered once. The answer is written to the memory before it is emitted, in one step with the book that it
rests on, so a signal that comes again, after a crash or to another worker, gets the same answer, byte for byte. The
decision is on the tape before its trade is: no trade stands there that nobody approved.

Two memories may give a signal two answers: one worker stalls between memory and tape, Redis is emptied, the next owner
knows nothing of it. The first decision on the tape is the answer then, and only it is followed by a trade. Whoever has
put a decision there looks for an earlier one, unless there can be none: the memory that it was written into is still
there, and was there before the signal was.
"""

from __future__ import annotations

import logging
import time
import uuid
from collections import Counter
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import NamedTuple

from tradetape.schemas import Codec, DecodeError, RunMode, TradeClosed, TradeDispatch, TradeSignal, times
from tradetape.schemas.stamping import wall_clock_us
from tradetape.streams.approval.book import ends_a_leg, series_of
from tradetape.streams.approval.memory import EXPIRY_MS, Answer, Memory, Recalled
from tradetape.streams.approval.policy import Policy
from tradetape.streams.approval.round import Round
from tradetape.streams.approval.tape_memory import Rebuilding, TapeMemory
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.effects import Effects
from tradetape.streams.errors import StateUnavailable
from tradetape.streams.processor import Partition
from tradetape.streams.reading_turn import ReadingTurn
from tradetape.streams.record import Record

logger = logging.getLogger("tradetape.streams")

MAX_ROUNDS = 100
"""How often something is decided or rebuilt anew because another worker wrote in between."""
SETTLE_S = 30.0
"""Longer than a worker tries to bring what it wrote into a memory that is lost since onto the tape."""
ARRIVAL_S = 2.0
"""In which all of that arrives while Kafka is well; before it, a lost memory is not rebuilt."""
TOUCH_INTERVAL_US = times.MINUTE_US
SKEW_MS = times.DAY_US // 1_000
"""By how much clocks may differ where a signal's age tells whether its answer may have expired."""
_READ = (TradeSignal, TradeClosed, TradeDispatch)
_REBUILD = {"action": "rebuild"}


class Item(NamedTuple):
    """A record of the batch that is acted on."""

    record: Record
    event: TradeSignal | TradeClosed | TradeDispatch


class Approval:
    """Processor of one account. `results` counts what became of records, `refusals` the refused signals by rule."""

    def __init__(
        self,
        *,
        codec: Codec,
        memory: Memory,
        tape: TapeMemory,
        effects: Effects,
        dead_letters: DeadLetters,
        run_mode: RunMode,
        policy: Policy | None = None,
        name: str = "approval",
        settle_s: float = SETTLE_S,
        turn: ReadingTurn | None = None,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> None:
        """`now_us` only tells whether Redis may have forgotten an answer; no decision rests on it.

        `settle_s` is how long after a memory was lost the tape is looked at again for what was on its way then.
        """
        self.name = name
        self.results: Counter[str] = Counter()
        self.refusals: Counter[str] = Counter()
        self._codec = codec
        self._memory = memory
        self._tape = tape
        self._effects = effects
        self._dead_letters = dead_letters
        self._run_mode = run_mode
        self._policy = policy or Policy()
        self._settle_s = settle_s
        self._turn = turn or ReadingTurn()
        self._now_us = now_us
        self.topics = tuple(codec.catalogue.topic_name(codec.catalogue.by_class(one)) for one in _READ)
        self._generation = ""
        """The memory that holds all that this worker has said."""
        self._signals_before: dict[Partition, int] = {}
        """Where the signals ended when this memory was there already."""
        self._signals_before_of = ""
        self._reading: Rebuilding | None = None
        """Of the tape, while a memory is new."""
        self._said: dict[str, Answer] = {}
        """Of the batch at hand, by signal: perhaps on the tape, and perhaps only in a memory that is lost."""
        self._touched_at_us = 0

    def process(self, batch: Sequence[Record]) -> None:
        """Answer the signals of the batch, and note which trades have ended. Raises Transient, BadRecord."""
        self._turn.begin()
        # Step 1: what of it is to be acted on.
        items, undecodable = self._items(batch)
        signals = {one.event.signal_id: one.record for one in items if isinstance(one.event, TradeSignal)}
        self._said = {signal_id: answer for signal_id, answer in self._said.items() if signal_id in signals}
        sent: set[str] = set()
        while items:
            # Step 2: decide, and write the answers down, in one step with the book that they rest on.
            self._said = self._answered(items, signals)
            # Step 3: the decisions onto the tape.
            self._effects.send([one.decision for signal_id, one in self._said.items() if signal_id not in sent])
            sent.update(self._said)
            # Step 4: whether they stand, and the memory holds them. One that is lost is made anew from the tape.
            is_there = self._memory.generation() == self._generation
            if not self._overruled(signals, is_there=is_there) and is_there:
                break
        # Step 5: their trades.
        self._effects.send([one.trade for one in self._said.values() if one.trade is not None])
        self._said = {}
        # Last: while Redis is away the batch comes again and again, and each time would repeat its dead letters.
        for record, why in undecodable:
            self._dead_letters.send(record, why.reason, why, stage="VALUE_CONVERTER")

    def _overruled(self, signals: Mapping[str, Record], *, is_there: bool) -> bool:
        """Give way to decisions that lie on the tape before ours; whether there was any.

        `is_there` says that the memory is the one that ours were written into.
        """
        disputed = {
            signal_id: record.timestamp_ms
            for signal_id, record in signals.items()
            if signal_id in self._said and not (is_there and self._is_newer_than_memory(record))
        }
        if not disputed:
            return False
        firsts = self._tape.first_decisions(disputed, min(disputed.values()) - SKEW_MS)
        others = {one: first for one, first in firsts.items() if first.value != self._said[one].decision.value}
        if others:
            logger.warning("%d signals were answered before under a memory that is lost", len(others), extra=_REBUILD)
            self.results["overruled"] += len(others)
            held = self._memory.recall((), list(others)).answers
            self._memory.correct(
                {o: first for o, first in others.items() if o not in held or held[o].decision != first}
            )
            self._said = {one: answer for one, answer in self._said.items() if one not in others}
        return bool(others)

    def _is_newer_than_memory(self, record: Record) -> bool:
        return record.offset >= self._signals_before.get(Partition(record.topic, record.partition), 0)

    def examine(self, record: Record) -> None:
        """Decode it."""
        self._codec.decode(record.topic, record.value)

    def pass_over(self, records: Sequence[Record]) -> None:
        """The offsets are Kafka's."""

    def tick(self, now_us: int) -> None:
        """Keep the memory from expiring while nothing happens."""
        if now_us - self._touched_at_us > TOUCH_INTERVAL_US:
            self._memory.touch()
            self._touched_at_us = now_us

    def _items(self, batch: Sequence[Record]) -> tuple[list[Item], list[tuple[Record, DecodeError]]]:
        items: list[Item] = []
        undecodable: list[tuple[Record, DecodeError]] = []
        for record in batch:
            try:
                event = self._codec.decode(record.topic, record.value)
            except DecodeError as error:
                undecodable.append((record, error))
                continue
            if record.is_replayed:
                self.results["replayed"] += 1
            elif event.run_mode != self._run_mode:
                self.results["other_mode"] += 1
            elif not isinstance(event, TradeDispatch) or ends_a_leg(event):
                assert isinstance(event, _READ)
                items.append(Item(record, event))
        return items, undecodable

    def _answered(self, items: Sequence[Item], signals: Mapping[str, Record]) -> dict[str, Answer]:
        """The answer to each signal, written down."""
        series = {series_of(one.event) for one in items}
        passed_over: set[str] | None = None
        for _ in range(MAX_ROUNDS):
            recalled = self._recalled(series, list(signals))
            if passed_over is None:
                passed_over = self._answered_long_ago(signals, recalled)
            decided = self._decided(recalled, [one for one in items if not _is_signal_of(one, passed_over)])
            if self._is_written(decided):
                self._count(decided, len(passed_over))
                return decided.answers
        raise StateUnavailable(f"Redis: other workers wrote {MAX_ROUNDS} times before this one could")

    def _decided(self, recalled: Recalled, items: Sequence[Item]) -> Round:
        decided = Round(
            recalled=recalled, said=self._said, policy=self._policy, effects=self._effects, codec=self._codec
        )
        for record, event in items:
            if isinstance(event, TradeSignal):
                decided.answer(record, event)
            else:
                decided.note(event)
        return decided

    def _is_written(self, decided: Round) -> bool:
        has_news = bool(decided.unwritten) or decided.book.has_changed
        if has_news and not self._memory.remember(decided.recalled, decided.book, decided.unwritten):
            return False
        if decided.late_trades:
            self._memory.learn({}, decided.late_trades)
        self._effects.kept(decided.stamped)
        return True

    def _count(self, decided: Round, passed_over: int) -> None:
        for decision in decided.decisions:
            self.results[decision.outcome.lower()] += 1
            self.refusals.update({reason.partition(":")[0] for reason in decision.reasons})
        self.results["repeated"] += len(decided.answers.keys() - decided.unwritten.keys() - self._said.keys())
        self.results["answered_long_ago"] += passed_over

    def _answered_long_ago(self, signals: Mapping[str, Record], recalled: Recalled) -> set[str]:
        """Signals whose answer Redis no longer holds, since it is on the tape for longer than that."""
        least_ms = self._now_us() // 1_000 - EXPIRY_MS + SKEW_MS
        old = {
            signal_id: record.timestamp_ms
            for signal_id, record in signals.items()
            if record.timestamp_ms < least_ms and signal_id not in recalled.answers
        }
        return set(self._tape.first_decisions(old, min(old.values()) - SKEW_MS)) if old else set()

    def _recalled(self, series: Collection[str], signal_ids: Sequence[str]) -> Recalled:
        """What the memory holds, once it is whole and holds all that this worker has said."""
        for _ in range(MAX_ROUNDS):
            if self._reading is not None and self._reading.go_on():
                self._merge(self._reading)
            recalled = self._memory.recall(series, signal_ids)
            is_settled = recalled.age_ms > self._settle_s * 1_000
            is_known = self._generation == recalled.generation or (not self._generation and is_settled)
            if recalled.is_valid and is_known:
                self._generation = recalled.generation
                self._note_signals_before(recalled.generation)
                self._reading = None if is_settled else self._reading
                return recalled
            self._rebuild(is_lost=not recalled.is_valid)
        raise StateUnavailable(f"Redis: the memory of approval was lost {MAX_ROUNDS} times in a row")

    def _note_signals_before(self, generation: str) -> None:
        """What lies on the tape by now may have been answered under an earlier memory; what comes later may not."""
        if self._signals_before_of != generation:
            self._signals_before = self._tape.ends(TradeSignal)
            self._signals_before_of = generation

    def _rebuild(self, *, is_lost: bool) -> None:
        """Bring the memory to what the tape says, whatever is there: nothing, what is old, or what others rebuilt."""
        logger.warning("the memory of approval is new, or was lost: reading the tape", extra=_REBUILD)
        if is_lost:
            self._memory.claim()
            # Another worker may have written into it a moment ago, and not be on the tape with it yet.
            time.sleep(min(ARRIVAL_S, self._settle_s))
        since_ms = self._now_us() // 1_000 - EXPIRY_MS
        self._reading = Rebuilding(self._tape, self._memory, since_ms=since_ms, turn=self._turn)
        self._merge(self._reading)

    def _merge(self, reading: Rebuilding) -> None:
        """Bring what was read into the one memory that it is read for. Where that is lost, whoever looks next begins anew.

        Answers are written as they are read: another memory would get the book, and miss the answers read before.
        """
        for _ in range(MAX_ROUNDS):
            # In this order: what others note while we read moves the version, and what they noted before is on the tape.
            recalled = self._memory.recall(None)
            if not reading.is_for(recalled):
                self._reading = None
                return
            reading.go_on()
            recalled.book.merge(reading.book)
            if not recalled.is_valid:
                generation = uuid.uuid4().hex
                if recalled.version and self._memory.remember(recalled, recalled.book, {}, generation=generation):
                    self._generation = generation
                    reading.begun(generation, recalled)
                else:
                    self._reading = None
                return
            if not recalled.book.has_changed or self._memory.remember(recalled, recalled.book, {}):
                self._generation = recalled.generation
                return
        raise StateUnavailable(f"Redis: other workers wrote {MAX_ROUNDS} times before the memory was rebuilt")


def _is_signal_of(one: Item, signal_ids: Collection[str]) -> bool:
    return isinstance(one.event, TradeSignal) and one.event.signal_id in signal_ids
