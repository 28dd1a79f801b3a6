"""What tests of positions share: the events of a story as a tape of their own, and the closes that follow from it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Context, Decimal
from functools import lru_cache
from typing import Any

from tradetape.schemas import (
    CATALOGUE,
    Action,
    Candle,
    Catalogue,
    Codec,
    Direction,
    DispatchOutcome,
    Event,
    Fill,
    RunMode,
    Side,
    Trade,
    TradeClosed,
    TradeDispatch,
)
from tradetape.schemas.names import record_key
from tradetape.schemas.stamping import Stamper
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.effects import MemoryEffects
from tradetape.streams.engines.memory import MemoryEngine, MemoryReader
from tradetape.streams.positions.past import Past
from tradetape.streams.processors.positions import Positions
from tradetape.streams.record import Record

START = datetime(2025, 5, 6, 12, tzinfo=UTC)
VENUE = "binance"
WIDE = Context(prec=80)
"""Decimal arithmetic in which nothing of the tape's is rounded."""


def at(seconds: float) -> datetime:
    """A time of the story."""
    return START + timedelta(seconds=seconds)


@lru_cache
def _codec(catalogue: Catalogue) -> Codec:
    """One for all stories: making it takes longer than telling most of them."""
    return Codec(catalogue)


class Story:
    """The events of one symbol and their records, each topic with offsets of its own, all in one partition."""

    def __init__(self, symbol: str = "BTCUSDT", *, catalogue: Catalogue = CATALOGUE, partition: int = 0) -> None:
        self.symbol = symbol
        self.records: list[Record] = []
        self.codec = _codec(catalogue)
        self.emitted_at = START + timedelta(days=30)
        self._stamper = Stamper(codec=self.codec, source="test", run_mode=RunMode.PAPER, clock=self._now_us)
        self._partition = partition
        self._offsets: Counter[str] = Counter()
        self._number = 0

    def _now_us(self) -> int:
        return int(self.emitted_at.timestamp() * 1_000_000)

    def emit(self, event: Event) -> Any:
        """Stamp an event and put it onto its topic; the event as stamped."""
        event_type, stamped, value, emitted_at_us = self._stamper.stamp(event)
        self._stamper.keep()
        topic = self.codec.catalogue.topic_name(event_type)
        key = record_key(stamped.venue, stamped.symbol)
        self.put(topic, key, value, timestamp_ms=emitted_at_us // 1_000)
        return stamped

    def put(self, topic: str, key: bytes, value: bytes, *, timestamp_ms: int = 0) -> Record:
        """A record as it is."""
        record = Record(topic, self._partition, self._offsets[topic], key, value, (), timestamp_ms)
        self._offsets[topic] += 1
        self.records.append(record)
        return record

    def trade(
        self, action: Action = Action.ENTER, direction: Direction = Direction.LONG, *, seconds: float = 0, **more: Any
    ) -> Trade:
        """An approved trade, with a signal of its own."""
        self._number += 1
        given = {
            "signal_id": f"{self.symbol}-signal-{self._number}", "strategy_id": "rsi-dip", "event_time": at(seconds),
            "approved_at": at(seconds), "approved_by": "test", "idempotency_key": f"{self.symbol}-{self._number}",
        }  # fmt: skip
        trade: Trade = self.emit(
            Trade(venue=VENUE, symbol=self.symbol, action=action, direction=direction, **{**given, **more})
        )
        return trade

    def dispatch(
        self, trade: Trade, outcome: DispatchOutcome, *, seconds: float = 0, leg: int = 0, attempt: int = 1, **more: Any
    ) -> TradeDispatch:
        """What became of an order."""
        assert trade.trade_id
        dispatch: TradeDispatch = self.emit(
            TradeDispatch(
                venue=VENUE, symbol=self.symbol, event_time=at(seconds), trade_id=trade.trade_id, leg_index=leg,
                attempt=attempt, outcome=outcome, executor="test", **more,
            )
        )  # fmt: skip
        return dispatch

    def fill(
        self, trade: Trade | None, side: Side, quantity: str, price: str, *, seconds: float = 0, **more: Any
    ) -> Fill:
        """An execution of an order, or of one that it does not name."""
        self._number += 1
        given = {
            "event_time": at(seconds), "trade_id": trade.trade_id if trade else None, "venue_order_id": f"o{self._number}",
            "venue_trade_id": f"{self.symbol}-{self._number}",
            "amount_quote": WIDE.multiply(Decimal(quantity), Decimal(price)),
        }  # fmt: skip
        fill: Fill = self.emit(
            Fill(
                venue=VENUE, symbol=self.symbol, side=side, price=price, quantity=quantity,
                **{**given, **more},
            )
        )  # fmt: skip
        return fill

    def candle(
        self, opens: float, low: str, high: str, *, timeframe: str = "1m", length_s: int = 60, **more: Any
    ) -> None:
        """A finished candle that opens then."""
        prices = {"open": low, "close": high, "low": low, "high": high, "volume": "1"}
        self.emit(
            Candle(
                venue=VENUE, symbol=self.symbol, timeframe=timeframe,
                **{"is_final": True, "open_time": at(opens), "close_time": at(opens + length_s), **prices, **more},
            )
        )  # fmt: skip

    def again(self, number: int = -1) -> None:
        """One of the records once more, as a producer repeats it after a crash."""
        record = self.records[number]
        self.put(record.topic, record.key or b"", record.value or b"", timestamp_ms=record.timestamp_ms)


def nobody_dies(_: Sequence[Record], __: object) -> None:
    """Instead of a child process for each look at the past, of which property tests take thousands."""


class Run:
    """The processor on one tape. Each `process` is what a restarted worker would be, unless it is told to go on."""

    def __init__(self, tape: list[Record], codec: Codec, *, run_mode: RunMode = RunMode.PAPER) -> None:
        self.tape = tape
        self.effects = MemoryEffects(codec=codec, worker="positions")
        self.dead_letters = MemoryDeadLetters("positions")
        self._codec, self._run_mode = codec, run_mode
        self.positions = self.restarted()

    def restarted(self) -> Positions:
        """A processor that remembers nothing."""
        self.positions = Positions(
            codec=self._codec, past=Past(reader=MemoryReader(self.tape), codec=self._codec, find_death=nobody_dies), effects=self.effects, dead_letters=self.dead_letters,
            run_mode=self._run_mode, candle_waits=0,
        )  # fmt: skip
        return self.positions

    def deliver(self, records: Sequence[Record], *, batch: int = 500) -> None:
        """Feed records, and put what follows from them onto the tape."""
        MemoryEngine(
            processor=self.positions, dead_letters=self.dead_letters, records=records, max_batch_records=batch
        ).run()

    def closes(self) -> list[TradeClosed]:
        """What was emitted."""
        return [event for event in self.effects.events() if isinstance(event, TradeClosed)]


def closes_of(story: Story) -> list[TradeClosed]:
    """What one worker makes of a whole story."""
    run = Run(story.records, story.codec)
    run.deliver(story.records)
    return run.closes()


def content(closed: TradeClosed) -> dict[str, Any]:
    """All of a close that does not name the run that emitted it."""
    names = set(closed.__struct_fields__) - {"emitted_at", "producer_run_id", "producer_seq"}
    return {name: getattr(closed, name) for name in sorted(names)}
