"""A bot in lock-step with the flow: it looks at a bar only when all that the last one led to has come to rest.

Then nothing that is decided depends on who is faster, and two runs on the same bars must say the same, whatever happens
to the workers of one of them.
"""

from __future__ import annotations

import json
import random
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import timedelta
from decimal import Decimal
from itertools import product
from typing import Any, Self

import msgspec

from dispatch_rig import OrderServer
from flow_rig import PAUSE_S, VENUE, Crew, FlowRig
from tradetape.producers import Producer
from tradetape.schemas import (
    Action,
    Candle,
    DecisionOutcome,
    Direction,
    Event,
    Fill,
    IndicatorUpdate,
    Side,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
)
from tradetape.streams.approval.memory import Memory
from tradetape.streams.topic_reader import TopicReader
from waiting import eventually

STRATEGY = "averages"
FAST, SLOW = 9, 30
SETTLE_TIMEOUT_S = 120.0
WATCHED = (SignalDecision, Trade, TradeDispatch, TradeClosed)


class Watch:
    """What the tape says so far, followed by a thread as it comes."""

    def __init__(self, rig: FlowRig) -> None:
        self.decisions: dict[str, SignalDecision] = {}
        """By signal."""
        self.outcomes: dict[str, str] = {}
        """The last word on each trade, all of which have one leg."""
        self.closes: set[str] = set()
        """Trades whose position is closed."""
        self._codec = rig.codec
        self._reader = TopicReader(rig.kafka)
        self._starts = self._reader.begins(self._reader.partitions([rig.topic(one) for one in WATCHED]))
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._follow, name="watch", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(30)
        self._reader.close()

    def _follow(self) -> None:
        for record in self._reader.follow(self._starts, stop=self._stop):
            event = self._codec.decode(record.topic, record.value)
            if isinstance(event, SignalDecision):
                self.decisions.setdefault(event.signal_id, event)
            elif isinstance(event, TradeDispatch):
                self.outcomes[event.trade_id] = event.outcome.value
            elif isinstance(event, TradeClosed):
                self.closes.add(event.trade_id)


class Venue:
    """Fills each order once it was acknowledged: all of it at once, at the bar's close, one unit."""

    def __init__(self, server: OrderServer) -> None:
        self._server = server

    def fill(self, trade_id: str, bar: Candle) -> Fill:
        """Of the order as it was taken."""
        taken = ((one["key"], json.loads(one["body"])) for one in self._server.calls() if one["is_order"])
        key, order = next((key, order) for key, order in taken if order["trade_id"] == trade_id)
        is_buy = (order["action"] == "ENTER") == (order["direction"] == "LONG")
        price = Decimal(str(bar.close))
        return Fill(
            venue=VENUE, symbol=bar.symbol, event_time=bar.close_time, trade_id=trade_id,
            position_ref=order["position_ref"], venue_order_id=key, venue_trade_id=key,
            side=Side.BUY if is_buy else Side.SELL, price=price, quantity=Decimal(1), amount_quote=price,
            fee=price / 1_000, fee_asset="USDT",
        )  # fmt: skip


class Averages:
    """Two moving averages of one symbol."""

    def __init__(self) -> None:
        self.values: dict[str, float] = {}
        self._was_above: bool | None = None

    def add(self, close: float) -> Direction | None:
        """The next close; which way they have just crossed."""
        for name, bars in ((f"ema_{FAST}", FAST), (f"ema_{SLOW}", SLOW)):
            before = self.values.get(name, close)
            self.values[name] = before + (close - before) * 2 / (bars + 1)
        is_above = self.values[f"ema_{FAST}"] > self.values[f"ema_{SLOW}"]
        has_crossed = self._was_above is not None and is_above is not self._was_above
        self._was_above = is_above
        if not has_crossed:
            return None
        return Direction.LONG if is_above else Direction.SHORT


class LockstepBot:
    """Turns round with every crossing of two averages: leaves what it holds, enters the other way."""

    def __init__(self, rig: FlowRig, server: OrderServer, tape: Producer, watch: Watch, memory: Memory) -> None:
        self.positions: dict[str, tuple[str, Direction]] = {}
        """What is held of each symbol: the trade that opened it, and its direction."""
        self.last: dict[str, tuple[Candle, IndicatorUpdate]] = {}
        """Of each symbol."""
        self.signals = 0
        self._venue = Venue(server)
        self._tape = tape
        self._watch = watch
        self._memory = memory
        self._averages: dict[str, Averages] = {}

    def run(self, bars: Iterable[Sequence[Candle]], *, meanwhile: Callable[[int], None]) -> None:
        """All bars. `meanwhile` is called again and again while effects settle, with the number of the signal."""
        for at_once in bars:
            for bar in at_once:
                self._look_at(bar, meanwhile)

    def _look_at(self, bar: Candle, meanwhile: Callable[[int], None]) -> None:
        averages = self._averages.setdefault(bar.symbol, Averages())
        crossed = averages.add(float(str(bar.close)))
        candle = self._tape.emit(bar)
        update = self._tape.emit(
            IndicatorUpdate(
                venue=VENUE, symbol=bar.symbol, timeframe=bar.timeframe, bar_close_time=bar.close_time, close=bar.close,
                values=averages.values, candle_event_id=candle.event_id, causation_id=candle.event_id,
            )
        )  # fmt: skip
        self.last[bar.symbol] = candle, update
        if crossed is None:
            return
        assert self._tape.flush(SETTLE_TIMEOUT_S), "the bars are not on the tape"
        if (held := self.positions.pop(bar.symbol, None)) is not None:
            position, direction = held
            self._trade(bar, update, Action.EXIT, direction, meanwhile, position_ref=position)
        if (trade_id := self._trade(bar, update, Action.ENTER, crossed, meanwhile)) is not None:
            self.positions[bar.symbol] = trade_id, crossed

    def _trade(
        self, bar: Candle, update: IndicatorUpdate, action: Action, direction: Direction,
        meanwhile: Callable[[int], None], **more: Any,
    ) -> str | None:  # fmt: skip
        """Signal, and wait until nothing more comes of it; the trade that it became."""
        assert update.event_id
        self.signals += 1
        number = self.signals
        signal_id = str(
            self._tape.emit(
                TradeSignal(
                    venue=VENUE, symbol=bar.symbol, strategy_id=STRATEGY, timeframe=bar.timeframe,
                    bar_close_time=bar.close_time, action=action, direction=direction, quantity=Decimal(1),
                    reference_price=bar.close, input_event_ids=[update.event_id], causation_id=update.event_id, **more,
                )
            ).signal_id
        )  # fmt: skip

        def has_come(what: Callable[[], object]) -> Callable[[], bool]:
            def look() -> bool:
                meanwhile(number)
                return bool(what())

            return look

        watch = self._watch
        eventually(
            f"signal {number} is decided", has_come(lambda: signal_id in watch.decisions), timeout_s=SETTLE_TIMEOUT_S
        )
        decision = watch.decisions[signal_id]
        if decision.outcome is not DecisionOutcome.PASSED:
            return None
        trade_id = str(decision.trade_id)
        acked = has_come(lambda: watch.outcomes.get(trade_id) == "ACKED")
        eventually(f"the order of signal {number} is acknowledged", acked, timeout_s=SETTLE_TIMEOUT_S)
        self._tape.emit(self._venue.fill(trade_id, bar))
        assert self._tape.flush(SETTLE_TIMEOUT_S), "the fill is not on the tape"
        if action is Action.EXIT:
            ended = has_come(lambda: self._has_ended(more["position_ref"]))
            eventually(f"the position of signal {number} is closed", ended, timeout_s=SETTLE_TIMEOUT_S)
        return trade_id

    def _has_ended(self, position: str) -> bool:
        """Its close is on the tape, and approval knows of it; a lost memory will, for it is made of the tape."""
        if position not in self._watch.closes:
            return False
        recalled = self._memory.recall(())
        return not recalled.is_valid or position not in recalled.book.trades


class Deck:
    """What happens to a crew, dealt over the signals of a run: every blow to every role, and Redis emptied."""

    KINDS = ("killed", "paused", "rebalanced")

    def __init__(
        self, crew: Crew, chance: random.Random, *, signals: int, rounds: int, floods: Sequence[Callable[[], None]]
    ) -> None:
        roles = sorted({role.name for role in crew.roles})
        blows: list[Callable[[], None]] = [
            self._blow(role, kind) for role, kind in product(roles, self.KINDS) for _ in range(rounds)
        ]
        blows += floods
        chance.shuffle(blows)
        self._crew = crew
        self._chance = chance
        numbers = sorted(chance.sample(range(1, signals), len(blows)))
        self._dealt = list(zip(numbers, blows, strict=True))
        self._due_at: float | None = None

    def _blow(self, role: str, kind: str) -> Callable[[], None]:
        def strike() -> None:
            places = [place for place, one in enumerate(self._crew.roles) if one.name == role]
            place = self._chance.choice(places)
            if kind == "killed":
                self._crew.kill_one(place)
            elif kind == "paused":
                self._crew.pause(place, self._chance.uniform(*PAUSE_S))
            else:
                self._crew.rebalance(place)

        return strike

    def step(self, number: int) -> None:
        """Mend the crew; strike a moment after the signal that the next blow was dealt to, in the middle of what it leads to."""
        self._crew.mend()
        while self._dealt and self._dealt[0][0] <= number:
            if self._due_at is None:
                self._due_at = time.monotonic() + self._chance.uniform(0, 0.15)
            if time.monotonic() < self._due_at:
                return
            self._due_at = None
            self._dealt.pop(0)[1]()


NOT_CONTENT = {"emitted_at", "producer_run_id", "producer_seq"}
"""What tells one telling of an event from another."""


def contents(rig: FlowRig, event_class: type[Event], *without: str) -> dict[str, dict[str, Any]]:
    """What the tape says of each event, by id."""
    left_out = NOT_CONTENT | set(without)
    return {
        one["event_id"]: {name: value for name, value in one.items() if name not in left_out}
        for one in rig.on_tape(event_class)
    }


def moved(bars: Iterable[Sequence[Candle]], by: timedelta) -> Iterator[list[Candle]]:
    """The same bars at another time."""
    for at_once in bars:
        yield [
            msgspec.structs.replace(one, open_time=one.open_time + by, close_time=one.close_time + by)
            for one in at_once
        ]
