"""What the system is busy with: each decision counted once, each stage's last scan, each trade from approval to close."""

from __future__ import annotations

import json
import random
import re
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from decimal import Decimal
from itertools import permutations
from pathlib import Path
from typing import Any

import msgspec
import pytest
import redis as redis_client

from console_rig import clean_environment, tradetape
from streams_rig import Tape, now
from tradetape.schemas import (
    CATALOGUE,
    Action,
    CloseStatus,
    Codec,
    DecisionOutcome,
    Direction,
    DispatchOutcome,
    MarketCondition,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
    times,
)  # fmt: skip
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.processors.current_state import CurrentState
from tradetape.streams.record import Record
from tradetape.streams.state.activity import OUTCOMES
from tradetape.streams.state.connection import connect
from tradetape.streams.state.keys import Keys
from tradetape.streams.state.reader import StateReader
from tradetape.streams.state.store import StateStore

MINUTE = timedelta(minutes=1)
CODEC = Codec(CATALOGUE)


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis_client.Redis.from_url(redis_url, decode_responses=True) as made:
        yield made


@pytest.fixture
def store(redis_url: str) -> Iterator[StateStore]:
    made = StateStore.from_url(redis_url, prefix="t")
    yield made
    made.close()


@pytest.fixture
def reader(redis_url: str) -> Iterator[StateReader]:
    with StateReader(connect(redis_url), prefix="t") as made:
        yield made


def take(store: StateStore, records: list[Record]) -> None:
    """Take records the way a worker would."""
    letters = MemoryDeadLetters()
    CurrentState(catalogue=CATALOGUE, codec=CODEC, store=store, dead_letters=letters).process(records)
    assert not letters.letters


def decision(number: int, *, at: datetime, outcome: DecisionOutcome, stage: str = "tech_filter") -> SignalDecision:
    return SignalDecision(
        venue="binance", symbol=f"COIN{number}USDT", event_time=at, signal_id=f"signal-{number}", stage=stage,
        outcome=outcome,
    )  # fmt: skip


def test_a_decision_counts_once_however_often_and_in_whatever_order_it_is_delivered(
    store: StateStore, reader: StateReader, client: Any
) -> None:
    chance, start = random.Random(7), now().replace(second=0, microsecond=0) - 10 * MINUTE
    events = [
        decision(
            number, at=start + timedelta(seconds=chance.randrange(600)), stage=chance.choice(("tech_filter", "risk")),
            outcome=chance.choice((DecisionOutcome.PASSED, DecisionOutcome.REJECTED, DecisionOutcome.ERROR)),
        )
        for number in range(600)
    ]  # fmt: skip
    tape = Tape()
    # An emitter that crashed sends again what was on its way: the same events at new offsets.
    records = [tape.record(one) for one in [*events, *chance.sample(events, 150)]]
    for _ in range(4):
        chance.shuffle(records)
        for begin in range(0, len(records), 100):
            take(store, records[begin : begin + chance.randrange(100, 200)])
    expected: Counter[tuple[str, datetime, str]] = Counter()
    for one in events:
        assert one.event_time
        expected[one.stage, one.event_time.replace(second=0, microsecond=0), one.outcome.name] += 1
    found = reader.decision_counts(["tech_filter", "risk", "nobody"], minutes=15)
    assert {(one.stage, one.minute, name): n for one in found for name, n in one.by_outcome.items()} == expected
    assert sum(one.total for one in found) == 600
    assert sum(one.passed for one in found) == sum(one.outcome is DecisionOutcome.PASSED for one in events)
    sets = [key for key in client.scan_iter() if ":decisions:" in key]
    assert len(sets) == len(expected)
    for key in sets:
        assert client.object("encoding", key) == "intset"
        assert 0 < client.pttl(key) <= 1.1 * 120 * 60_000
        pattern = Keys("t").pattern_of(key)
        assert pattern is not None
        assert (pattern.kind, pattern.type) == ("decisions", "set")


def test_a_minute_is_not_counted_past_its_horizon(store: StateStore, reader: StateReader) -> None:
    tape = Tape()
    long_ago = decision(1, at=now() - 140 * MINUTE, outcome=DecisionOutcome.PASSED)
    take(store, [tape.record(long_ago)])
    assert reader.decision_counts(["tech_filter"], minutes=200) == []
    # The set of its minute, and the newest decision of the stage, which is kept for a day.
    assert store.results == {"expired": 1, "applied": 1}


def test_every_outcome_that_the_tape_knows_is_counted() -> None:
    assert set(OUTCOMES) == {one.name for one in DecisionOutcome}


def test_last_scans_are_the_newest_decision_of_a_stage_and_signal_of_a_strategy(
    store: StateStore, redis_url: str
) -> None:
    at, tape = now() - timedelta(seconds=30), Tape()

    def signal(symbol: str, seconds: int, action: Action) -> TradeSignal:
        return TradeSignal(
            venue="binance", symbol=symbol, timeframe="1m", event_time=at + timedelta(seconds=seconds),
            strategy_id="dip:v2", action=action, direction=Direction.LONG,
        )  # fmt: skip

    records = [
        tape.record(one)
        for one in (
            signal("ETHUSDT", 2, Action.EXIT), signal("BTCUSDT", 1, Action.ENTER),
            decision(1, at=at, outcome=DecisionOutcome.PASSED),
            decision(2, at=at + timedelta(seconds=9), outcome=DecisionOutcome.REJECTED),
        )
    ]  # fmt: skip
    take(store, records)
    take(store, records[2:3])
    clock = times.from_datetime(at) + 10_000_000
    with StateReader(connect(redis_url), prefix="t", clock=lambda: clock) as reader:
        stage, unknown, strategy = reader.last_scans(stages=["tech_filter", "nobody"], strategies=["dip:v2"])
    assert unknown is None
    assert stage is not None
    assert strategy is not None
    assert (stage.symbol, stage.what, stage.age) == ("COIN2USDT", "REJECTED", timedelta(seconds=1))
    assert (strategy.venue, strategy.symbol, strategy.what) == ("binance", "ETHUSDT", "EXIT")
    assert strategy.age == timedelta(seconds=8)


def test_market_wide_conditions_are_read_together(store: StateStore, reader: StateReader) -> None:
    tape, at = Tape(), now()
    conditions = [
        MarketCondition(venue="binance", symbol="MARKET", scope=scope, condition=condition, event_time=at)
        for scope, condition in (("btc", "bullish"), ("market", "calm"))
    ]
    take(store, [tape.record(one) for one in conditions])
    found = reader.conditions(["market", "nobody", "btc"])
    assert [one.condition if one else None for one in found] == ["calm", None, "bullish"]


class Story:
    """One trade from its approval to the close of its position, as records of four topics."""

    def __init__(self, *, at: datetime, symbol: str = "BTCUSDT", signal: str = "s1") -> None:
        tape = Tape()
        common: dict[str, Any] = {"venue": "binance", "symbol": symbol}
        trade = Trade(
            **common, event_time=at, signal_id=signal, strategy_id="dip", action=Action.ENTER, direction=Direction.LONG,
            planned_entry_price="64123.10", approved_at=at, approved_by="approval", idempotency_key="k",
        )  # fmt: skip
        self.approved = tape.record(trade)
        self.trade_id: str = CODEC.decode_fields(self.approved.topic, self.approved.value)["trade_id"]
        dispatch: dict[str, Any] = {
            **common,
            "event_time": at,
            "trade_id": self.trade_id,
            "leg_index": 0,
            "attempt": 1,
            "executor": "x",
        }
        self.intended = tape.record(TradeDispatch(**dispatch, outcome=DispatchOutcome.INTENDED))
        self.acked = tape.record(TradeDispatch(**dispatch, outcome=DispatchOutcome.ACKED))
        leaving: dict[str, Any] = {
            **common, "event_time": at + timedelta(seconds=2), "strategy_id": "dip", "direction": Direction.LONG,
            "approved_at": at, "approved_by": "approval", "idempotency_key": "k", "position_ref": self.trade_id,
        }  # fmt: skip
        self.exit = tape.record(Trade(**leaving, signal_id="s2", action=Action.EXIT))
        closed_at = at + timedelta(seconds=3)
        self.closed = tape.record(TradeClosed(
            **common, event_time=closed_at, trade_id=self.trade_id, strategy_id="dip", direction=Direction.LONG,
            opened_at=at, closed_at=closed_at, entry_price_avg="1", exit_price_avg="2", quantity="1",
            entry_cost_quote="1", exit_value_quote="2", fees_quote="0", pnl_quote="1", pnl_ratio=1.0, legs_filled=1,
            legs_max=1, fill_ids=[], close_status=CloseStatus.COMPLETED,
        ))  # fmt: skip


def test_a_trade_is_in_flight_from_its_approval_until_its_position_is_closed(
    store: StateStore, reader: StateReader, client: Any
) -> None:
    at = now() - timedelta(minutes=1)
    story = Story(at=at)

    def flying() -> list[tuple[str, str | None]]:
        return [(one.action, one.dispatched) for one in reader.trades_in_flight("binance", "BTC/USDT")]

    assert flying() == []
    take(store, [story.approved])
    (trade,) = reader.trades_in_flight("binance", "BTCUSDT")
    assert (trade.trade_id, trade.direction, trade.strategy_id, trade.event_time) == (story.trade_id, "LONG", "dip", at)
    assert (trade.planned_entry_price, trade.position_ref, trade.dispatched) == (Decimal("64123.1"), None, None)
    take(store, [story.intended])
    assert flying() == [("ENTER", "INTENDED")]
    take(store, [story.acked, story.exit])
    assert flying() == [("ENTER", "ACKED"), ("EXIT", None)]
    (key,) = client.scan_iter()
    assert client.object("encoding", key) in ("listpack", "ziplist")
    assert client.pttl(key) / 86_400_000 == pytest.approx(30, abs=0.01)
    pattern = Keys("t").pattern_of(key)
    assert pattern is not None
    assert pattern.kind == "trades"
    take(store, [story.closed])
    assert flying() == []


def test_the_steps_of_a_trade_add_up_alike_in_any_order_and_however_often_they_come(
    store: StateStore, reader: StateReader, client: Any
) -> None:
    at = now() - timedelta(minutes=1)
    opened, closed = Story(at=at, signal="a"), Story(at=at, signal="b")
    steps = [opened.approved, opened.intended, opened.acked, closed.approved, closed.acked, closed.closed]
    orders, seen = list(permutations(steps)), set()
    for order in random.Random(5).sample(orders, 100):
        client.flushall()
        for one in order:
            take(store, [one])
        take(store, list(order[2:]))
        found = reader.trades_in_flight("binance", "BTCUSDT")
        seen.add(tuple((one.trade_id, one.dispatched) for one in found))
    assert seen == {((opened.trade_id, "ACKED"),)}


def test_many_symbols_are_asked_for_their_trades_at_once_and_in_order(store: StateStore, reader: StateReader) -> None:
    first, second = Story(at=now(), symbol="ETHUSDT"), Story(at=now(), symbol="BTCUSDT")
    take(store, [first.approved, second.approved])
    asked = [("binance", "BTCUSDT"), ("binance", "XRPUSDT"), ("binance", "ETHUSDT")]
    found = reader.trades_in_flight_many(asked)
    assert [[one.trade_id for one in trades] for trades in found] == [[second.trade_id], [], [first.trade_id]]


def test_what_has_expired_leaves_with_the_next_step_of_its_symbol(
    store: StateStore, reader: StateReader, client: Any
) -> None:
    old, new = Story(at=now() - timedelta(days=29), signal="old"), Story(at=now(), signal="new")
    take(store, [old.approved, old.acked])
    (key,) = client.scan_iter()
    soon = times.from_datetime(now()) // 1_000 + 40
    for name, value in client.hgetall(key).items():
        if not name.endswith(("_id", "_price")):
            client.hset(key, name, f"{value.rpartition(' ')[0]} {soon}")
    while times.from_datetime(now()) // 1_000 <= soon:
        assert client.exists(key)
    assert reader.trades_in_flight("binance", "BTCUSDT") == []
    take(store, [new.approved])
    assert [one.trade_id for one in reader.trades_in_flight("binance", "BTCUSDT")] == [new.trade_id]
    assert not [name for name in client.hkeys(key) if name.startswith(old.trade_id)]


def test_state_that_is_rebuilt_out_of_order_is_the_same(store: StateStore, client: Any) -> None:
    stories = [Story(at=now() - timedelta(hours=n), symbol=f"C{n % 3}USDT", signal=f"s{n}") for n in range(12)]
    records = [one for s in stories for one in (s.approved, s.intended, s.acked)]
    records += [one.closed for one in stories[::2]]

    def state() -> dict[str, dict[str, str]]:
        return {key: client.hgetall(key) for key in client.scan_iter()}

    records = [msgspec.structs.replace(one, offset=number) for number, one in enumerate(records)]
    take(store, records)
    before = state()
    client.flushall()
    random.Random(3).shuffle(records)
    for one in records:
        take(store, [one])
    assert state() == before


def test_the_command_tells_it_to_people_and_programs(store: StateStore, redis_url: str, tmp_path: Path) -> None:
    story, tape = Story(at=now()), Tape()
    decisions = [
        decision(number, at=now(), outcome=DecisionOutcome.PASSED if number < 2 else DecisionOutcome.REJECTED)
        for number in range(5)
    ]
    take(store, [story.approved, story.acked, *map(tape.record, decisions)])
    environment = clean_environment(tmp_path, REDIS_URL=redis_url, TRADETAPE_REDIS_PREFIX="t")
    told = tradetape("state", "activity", "--json", environment=environment)
    assert told.returncode == 0, told.stderr
    found = json.loads(told.stdout)
    assert [(one["stage"], one["by_outcome"]) for one in found["stages"]] == [
        ("tech_filter", {"PASSED": 2, "REJECTED": 3})
    ]
    assert [trade["trade_id"] for one in found["symbols"] for trade in one["trades"]] == [story.trade_id]
    text = tradetape("state", "activity", environment=environment).stdout
    assert re.search(r"^tech_filter +5 +2 +\w+ binance COIN\dUSDT, \d+ s ago$", text, re.MULTILINE)
    assert re.search(rf"^binance BTCUSDT +ENTER LONG +ACKED +\d+ s +{story.trade_id}$", text, re.MULTILINE)
