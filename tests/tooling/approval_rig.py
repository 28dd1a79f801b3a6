"""Everything a test of approval needs of its own: topics, a memory, workers, and a look at what lies on the tape."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any, TypeVar

import redis as redis_client

from streams_rig import Tape as TestTape
from topics_rig import TopicsRig
from tradetape.schemas import (
    Action,
    CloseStatus,
    Codec,
    Direction,
    DispatchOutcome,
    Event,
    RunMode,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
)
from tradetape.schemas.stamping import wall_clock_us
from tradetape.streams.approval.memory import Memory
from tradetape.streams.approval.policy import Limits, Policy
from tradetape.streams.approval.tape_memory import TapeMemory
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.effects import Effects, KafkaEffects
from tradetape.streams.processors.approval import Approval
from tradetape.streams.reading_turn import ReadingTurn
from tradetape.streams.record import Record
from tradetape.streams.tape import Tape

EventT = TypeVar("EventT", bound=Event)
AT = datetime(2025, 3, 1, 12, tzinfo=UTC)
ONE_PER_SYMBOL = Policy(limits=Limits(one_open_trade_per_symbol=True), version="test")


def signal(symbol: str = "BTCUSDT", minute: int = 0, **more: Any) -> TradeSignal:
    """A signal to go long that a bar triggered, so many minutes after AT."""
    given: dict[str, Any] = {
        "strategy_id": "rsi-dip", "venue": "binance", "symbol": symbol, "timeframe": "1m",
        "bar_close_time": AT + timedelta(minutes=minute), "action": Action.ENTER, "direction": Direction.LONG,
        "reference_price": Decimal("100"), "score": 0.7,
    }  # fmt: skip
    return TradeSignal(**{**given, **more})


def closed(trade: Trade, minute: int = 1, **more: Any) -> TradeClosed:
    """The end of a trade."""
    nothing = dict.fromkeys(("quantity", "entry_cost_quote", "exit_value_quote", "fees_quote", "pnl_quote"), Decimal(0))
    return TradeClosed(
        venue=trade.venue, symbol=trade.symbol, closed_at=AT + timedelta(minutes=minute), trade_id=trade.trade_id,
        signal_id=trade.signal_id, strategy_id=trade.strategy_id, direction=trade.direction, legs_filled=1, legs_max=1,
        close_status=CloseStatus.COMPLETED, correlation_id=trade.correlation_id, causation_id=trade.event_id,
        **{**nothing, **more},
    )  # fmt: skip


def dispatched(trade: Trade, outcome: DispatchOutcome, **more: Any) -> TradeDispatch:
    """A step of a trade's dispatch."""
    given = {"leg_index": 0, "attempt": 1, "executor": "paper", "event_time": trade.event_time, **more}
    return TradeDispatch(
        venue=trade.venue, symbol=trade.symbol, trade_id=trade.trade_id, outcome=outcome,
        correlation_id=trade.correlation_id, **given,
    )  # fmt: skip


class ApprovalRig(TopicsRig):
    """One test's topics and Redis."""

    def __init__(self, kafka: str, topic_prefix: str, redis_url: str) -> None:
        super().__init__(kafka, topic_prefix)
        self.codec = Codec(self.catalogue)
        self.redis_url = redis_url
        self.redis_prefix = topic_prefix.rstrip(".")
        self.redis = redis_client.Redis.from_url(redis_url, decode_responses=False)
        self.letters = MemoryDeadLetters("approval")
        self._records = TestTape(self.catalogue)
        self._open: list[Callable[[], None]] = [self.redis.close]

    def record(self, event: Event) -> Record:
        """The record that its producer would have written; the same event is the same signal."""
        return self._records.record(event)

    def memory(self) -> Memory:
        """A client of the memory, closed with the rig."""
        memory = Memory.from_url(self.redis_url, prefix=self.redis_prefix)
        self._open.append(memory.close)
        return memory

    def tape_memory(self, run_mode: RunMode = RunMode.PAPER) -> TapeMemory:
        """What rebuilds a memory, closed with the rig."""
        tape = TapeMemory(kafka=self.kafka, codec=self.codec, run_mode=run_mode)
        self._open.append(tape.close)
        return tape

    def effects(self) -> KafkaEffects:
        """What writes to the test's topics, closed with the rig."""
        effects = KafkaEffects(worker="approval", codec=self.codec, kafka=self.kafka)
        self._open.append(effects.close)
        return effects

    def worker(
        self,
        policy: Policy | None = None,
        *,
        effects: Effects | None = None,
        memory: Memory | None = None,
        run_mode: RunMode = RunMode.PAPER,
        settle_s: float = 0.0,
        turn: ReadingTurn | None = None,
        now_us: Callable[[], int] = wall_clock_us,
    ) -> Approval:
        """A worker as a new process would be; one that takes nothing for on its way, unless told how long."""
        return Approval(
            codec=self.codec, memory=memory or self.memory(), tape=self.tape_memory(run_mode),
            effects=effects or self.effects(), dead_letters=self.letters, run_mode=run_mode, policy=policy,
            settle_s=settle_s, turn=turn, now_us=now_us,
        )  # fmt: skip

    def on_tape(self, event_class: type[EventT]) -> list[EventT]:
        """Every record of a topic, repeats too."""
        with Tape(kafka=self.kafka, catalogue=self.catalogue) as tape:
            return list(tape.read(event_class, order="tape"))

    def decisions(self) -> list[SignalDecision]:
        return self.on_tape(SignalDecision)

    def trades(self) -> list[Trade]:
        return self.on_tape(Trade)

    def remembered(self) -> dict[str, Any]:
        """All that the memory holds, but the marker."""
        found: dict[str, Any] = {}
        for key in sorted(self.redis.scan_iter(f"{self.redis_prefix}:*")):
            name = key.decode()
            if not name.endswith(":account"):
                found[name] = self.redis.get(key) if self.redis.type(key) == b"string" else self.redis.hgetall(key)
        return found

    def lose_redis(self) -> None:
        """As after a FLUSHALL, or a new machine."""
        self.redis.flushall()

    def close(self) -> None:
        """Let go of every connection."""
        for close in reversed(self._open):
            close()
