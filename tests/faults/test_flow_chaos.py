"""The whole flow on real candles while its workers are killed and paused at random: signal, decision, trade, order, position.

Each step is judged by what lies on the tape, and orders by the far side's own book, which no worker can touch.
"""

from __future__ import annotations

import random
from collections import Counter, defaultdict
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path
from typing import Any

import pytest

from dispatch_rig import OrderServer
from flow_rig import Bot, Chance, Crew, Exchange, FlowRig, real_bars
from tradetape.schemas import Event, SignalDecision, Trade, TradeClosed, TradeDispatch
from tradetape.streams.approval import policy_file
from tradetape.streams.approval.audit import SAME, audit
from tradetape.streams.tape import Tape
from waiting import eventually

pytestmark = pytest.mark.long

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
BARS, BARS_PER_S = 700, 8.0
POLICY = "[openings]\nminimum_score = 0.2\nmaximum_open_trades = 150\n"
LEAST_ACKED = 200
TIMEOUT_S = 400.0
SETTLE_S = 180.0
FINAL = {"ACKED", "EXPIRED", "IN_DOUBT"}


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str, redis_url: str, tmp_path: Path) -> FlowRig:
    return FlowRig(kafka=kafka, prefix=topic_prefix, dsn=postgres, redis_url=redis_url, folder=tmp_path, policy=POLICY)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OrderServer]:
    # It takes its time, so that many a dispatcher dies between the call and the answer.
    made = OrderServer(tmp_path, plan={"answers": ["hang"], "hang_s": 0.25})
    yield made
    made.close()


def test_whatever_is_killed_or_paused_each_signal_has_one_answer_and_each_trade_at_most_one_order(
    rig: FlowRig, server: OrderServer, market_data: Path
) -> None:
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed {seed}")
    exchange, crew = Exchange(server), rig.crew(server)
    chance = Chance(crew, random.Random(seed))
    try:
        with rig.tape_of_bot() as tape:
            bot = Bot(tape, exchange, real_bars(market_data, SYMBOLS, BARS), bars_per_s=BARS_PER_S)
            eventually("all bars are told", lambda: _has_gone_by(bot, chance), timeout_s=TIMEOUT_S)
            crew.wake_all()
            eventually("the flow comes to rest", lambda: _is_at_rest(rig, bot, crew), timeout_s=SETTLE_S)
    finally:
        crew.kill()
    print(Counter(crew.struck))
    assert len(set(crew.struck)) == 6, "every role was killed and paused"
    judge_decisions(rig, bot.signal_ids)
    judge_orders(rig, server)
    judge_positions(rig, exchange)


def _has_gone_by(bot: Bot, chance: Chance) -> bool:
    bot.step()
    chance.step()
    return bot.is_done


def _is_at_rest(rig: FlowRig, bot: Bot, crew: Crew) -> bool:
    """Nothing is on its way any more."""
    crew.mend()
    bot.trade()
    if {one["signal_id"] for one in rig.on_tape(SignalDecision)} != bot.signal_ids:
        return False
    trades, outcomes = {one["trade_id"] for one in rig.on_tape(Trade)}, last_outcomes(rig)
    if trades != outcomes.keys() or not FINAL.issuperset(outcomes.values()):
        return False
    return closed(rig).keys() == expected_closes(rig, bot.exchange).keys()


def last_outcomes(rig: FlowRig) -> dict[str, str]:
    """What the tape says last of each trade; each has one leg."""
    return {one["trade_id"]: one["outcome"] for one in rig.on_tape(TradeDispatch)}


def closed(rig: FlowRig) -> dict[str, dict[str, Any]]:
    return {one["trade_id"]: one for one in rig.on_tape(TradeClosed)}


def expected_closes(rig: FlowRig, exchange: Exchange) -> dict[str, tuple[str, Decimal]]:
    """How each position ended, and its profit: the book's prices subtracted, nothing where its entry came too late."""
    outcomes = last_outcomes(rig)
    late = [
        one["trade_id"]
        for one in rig.on_tape(Trade)
        if one["action"] == "ENTER" and outcomes.get(one["trade_id"]) == "EXPIRED"
    ]
    left = {one: ("COMPLETED", price - exchange.entries[one]) for one, price in exchange.exits.items()}
    return {**left, **dict.fromkeys(late, ("EXPIRED", Decimal(0)))}


def assert_repeats_are_alike(rig: FlowRig, event_class: type[Event]) -> None:
    """A record that lies on the tape twice is the same, byte for byte."""
    contents = defaultdict(set)
    for record in rig.tape(rig.topic(event_class)):
        contents[rig.fields(record)["event_id"]].add(record.value)
    assert {len(one) for one in contents.values()} == {1}


def judge_decisions(rig: FlowRig, signal_ids: set[str]) -> None:
    """One decision for each signal, one trade for each that passed, and each decision follows from its facts."""
    assert_repeats_are_alike(rig, SignalDecision)
    assert_repeats_are_alike(rig, Trade)
    decisions, trades = rig.on_tape(SignalDecision), rig.on_tape(Trade)
    assert Counter(one["signal_id"] for one in decisions) == dict.fromkeys(signal_ids, 1)
    passed = [one["signal_id"] for one in decisions if one["outcome"] == "PASSED"]
    assert len(passed) < len(decisions), "some signal is refused"
    assert Counter(one["signal_id"] for one in trades) == dict.fromkeys(passed, 1)
    with Tape(kafka=rig.kafka, catalogue=rig.catalogue) as tape:
        results = [one.result for one in audit(tape, None, None, policy_file.load(str(rig.policy)))]
    assert Counter(results) == {SAME: len(signal_ids)}


def judge_orders(rig: FlowRig, server: OrderServer) -> None:
    """None was sent twice, each acknowledged one was sent, no expired one was."""
    posts, outcomes = Counter(server.posts()), last_outcomes(rig)
    print(Counter(outcomes.values()))
    keys = {f"{one['idempotency_key']}:0": outcomes[one["trade_id"]] for one in rig.on_tape(Trade)}
    assert posts.keys() <= keys.keys()
    assert set(posts.values()) == {1}, "an order was sent twice"
    sent = {outcome: {posts[key] for key in keys if keys[key] == outcome} for outcome in ("ACKED", "EXPIRED")}
    assert sent["ACKED"] == {1}
    assert sent["EXPIRED"] <= {0}
    assert Counter(outcomes.values())["ACKED"] >= LEAST_ACKED


def judge_positions(rig: FlowRig, exchange: Exchange) -> None:
    """Each position that was left, or never entered, is closed once, with its profit."""
    closes = rig.on_tape(TradeClosed)
    assert len(closes) == len(closed(rig))
    found = {one["trade_id"]: (one["close_status"], one["pnl_quote"]) for one in closes}
    assert found == expected_closes(rig, exchange)
