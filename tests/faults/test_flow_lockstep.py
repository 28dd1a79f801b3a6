"""Thirty days of three symbols through the whole flow twice: in peace, and with every worker struck and Redis emptied.

The bot looks at a bar when all that the last one led to has settled, so both runs have to say the same: every decision
with its facts, every trade, order, fill and closed position, ids included.
"""

from __future__ import annotations

import random
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from itertools import product
from pathlib import Path

import pytest
import redis as redis_client

from dispatch_rig import OrderServer
from flow_rig import VENUE, Crew, FlowRig, real_bars
from lockstep_rig import Deck, LockstepBot, Watch, contents, moved
from streams_rig import now
from tradetape.schemas import Event, Fill, SignalDecision, Trade, TradeClosed, TradeDispatch, TradeSignal
from tradetape.streams import StateReader
from tradetape.streams.approval import policy_file
from tradetape.streams.approval.audit import SAME, audit
from tradetape.streams.approval.memory import Memory
from tradetape.streams.tape import Tape
from waiting import eventually

pytestmark = pytest.mark.long

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
TIMEFRAME, LENGTH = "15m", timedelta(minutes=15)
BARS = 30 * 96
"""Thirty days."""
SIGNALS = 500
"""Fewer than these bars lead to."""
ROUNDS = 4
FLUSHES = 4
LEAST_ACKED = 300
POLICY = "[openings]\nmaximum_open_trades = 2\none_open_trade_per_symbol = true\nminimum_price_move_ratio = 0.002\n"
SETTLE_S = 120.0
WALK = """
    SELECT c.trade_id, s.signal_id, d.outcome, count(u.event_id) AS inputs, bool_and(u.ema_9 IS NOT NULL OR u.extra ? 'ema_9')
           AS has_values
    FROM tradetape.closed_trades c
    JOIN tradetape.trades t ON t.trade_id = c.trade_id
    JOIN tradetape.trade_signals s ON s.signal_id = t.signal_id AND s.signal_id = c.signal_id
    JOIN tradetape.signal_decisions d ON d.signal_id = s.signal_id AND d.trade_id = t.trade_id
    JOIN tradetape.indicator_updates u ON u.event_id = ANY (s.input_event_ids)
    GROUP BY 1, 2, 3
"""


class Run:
    """One run of the flow, up to where nothing more comes of it."""

    def __init__(self, rig: FlowRig, server: OrderServer) -> None:
        self.rig = rig
        self.server = server

    def go(self, bars: Callable[[], object], deck_of: Callable[[Crew], Deck] | None = None) -> None:
        """Send the bars through."""
        began, crew = time.monotonic(), self.rig.crew(self.server, "--webhook-idempotent", keeps=True)
        deck = deck_of(crew) if deck_of else None
        memory = Memory.from_url(self.rig.redis_url, prefix=self.rig.redis_prefix)
        try:
            with self.rig.tape_of_bot() as tape, Watch(self.rig) as watch:
                bot = LockstepBot(self.rig, self.server, tape, watch, memory)
                bot.run(bars(), meanwhile=deck.step if deck else lambda _: crew.mend())  # type: ignore[arg-type]
                assert tape.flush(SETTLE_S)
            assert bot.signals > SIGNALS, bot.signals
            crew.wake_all()
            self._come_to_rest(crew, bot)
        finally:
            memory.close()
            crew.kill()
        print(f"{bot.signals} signals in {time.monotonic() - began:.0f} s; {dict(Counter(crew.struck))}")
        self.struck = crew.struck

    def _come_to_rest(self, crew: Crew, bot: LockstepBot) -> None:
        """The history holds all of the tape, and the state all that is current."""

        def is_stored() -> bool:
            crew.mend()
            return self.rig.is_stored()

        eventually("the history holds the tape", is_stored, timeout_s=SETTLE_S)
        # A worker that starts finds out that Redis was emptied.
        for place, role in enumerate(crew.roles):
            if role.name == "state":
                crew.kill_one(place)
        with redis_client.Redis.from_url(self.rig.redis_url) as client:
            reader = StateReader(client, prefix=self.rig.redis_prefix)

            def is_current() -> bool:
                crew.mend()
                return all(self._is_current(reader, bot, symbol) for symbol in SYMBOLS)

            eventually("the state is the newest", is_current, timeout_s=SETTLE_S)

    def _is_current(self, reader: StateReader, bot: LockstepBot, symbol: str) -> bool:
        candle, update = bot.last[symbol]
        seen, values = reader.candle(VENUE, symbol, TIMEFRAME), reader.indicators(VENUE, symbol, TIMEFRAME)
        held = {bot.positions[symbol][0]} if symbol in bot.positions else set()
        in_flight = {one.trade_id for one in reader.trades_in_flight(VENUE, symbol)}
        return (
            (seen and seen.event_id) == candle.event_id
            and (values and values.event_id) == update.event_id
            and held <= in_flight
        )


@pytest.fixture
def bars(market_data: Path) -> Callable[[], object]:
    """The bars, moved so that the last one has just closed: the state holds nothing older."""
    last = [one[0].close_time for one in real_bars(market_data, SYMBOLS[:1], BARS, TIMEFRAME)][-1]
    until = datetime.fromtimestamp(now().timestamp() // LENGTH.total_seconds() * LENGTH.total_seconds(), UTC)
    return lambda: moved(real_bars(market_data, SYMBOLS, BARS, TIMEFRAME), until - last)


@pytest.mark.timeout(900)
def test_a_run_under_kills_pauses_rebalances_and_flushes_says_what_a_quiet_run_says(
    kafka: str, topic_prefix: str, postgres: str, second_postgres: str, redis_url: str, tmp_path: Path,
    bars: Callable[[], object], request: pytest.FixtureRequest,
) -> None:  # fmt: skip
    seed = random.SystemRandom().randrange(10_000)
    print(f"seed {seed}")
    chance = random.Random(seed)

    def run(name: str, dsn: str) -> Run:
        folder = tmp_path / name
        folder.mkdir()
        server = OrderServer(folder, plan={"is_idempotent": True, "answers": ["hang"], "hang_s": 0.02})
        request.addfinalizer(server.close)
        rig = FlowRig(
            kafka=kafka, prefix=f"{topic_prefix}{name}.", dsn=dsn, redis_url=redis_url, folder=folder, policy=POLICY
        )
        return Run(rig, server)

    def flush() -> None:
        with redis_client.Redis.from_url(redis_url) as client:
            client.flushall()

    quiet, chaos = run("quiet", postgres), run("chaos", second_postgres)
    quiet.go(bars)
    chaos.go(bars, lambda crew: Deck(crew, chance, signals=SIGNALS, rounds=ROUNDS, floods=[flush] * FLUSHES))
    roles = ("approval", "dispatch", "positions", "history", "state")
    assert {f"{role} {kind}" for role, kind in product(roles, Deck.KINDS)} <= set(chaos.struck)
    for one in (quiet, chaos):
        judge_one(one)
        assert_alike(one.rig, SignalDecision)
        assert_alike(one.rig, Trade)
    judge_equal(quiet.rig, chaos.rig)


def judge_one(run: Run) -> None:
    """What holds of each run by itself."""
    rig = run.rig
    decisions, trades, closes = rig.on_tape(SignalDecision), rig.on_tape(Trade), rig.on_tape(TradeClosed)
    signals = {one["signal_id"] for one in rig.on_tape(TradeSignal)}
    passed = Counter(one["signal_id"] for one in decisions if one["outcome"] == "PASSED")
    assert Counter(one["signal_id"] for one in decisions) == dict.fromkeys(signals, 1)
    assert Counter(one["signal_id"] for one in trades) == passed
    assert LEAST_ACKED <= len(passed) < len(signals), "enough is traded, and something is refused"
    assert run.server.accepted() == {f"{one['idempotency_key']}:0": 1 for one in trades}, "each order is taken once"
    with Tape(kafka=rig.kafka, catalogue=rig.catalogue) as tape:
        results = [one.result for one in audit(tape, None, None, policy_file.load(str(rig.policy)))]
    assert Counter(results) == {SAME: len(signals)}
    assert rig.assert_every_event_once() > 2 * len(SYMBOLS) * BARS
    walked = rig.rows(WALK)
    assert {one["trade_id"] for one in walked} == {one["trade_id"] for one in closes}
    assert all(one["outcome"] == "PASSED" and one["inputs"] == 1 and one["has_values"] for one in walked)
    print(f"{len(signals)} signals, {len(trades)} trades, {len(closes)} closed, all walked back")


def assert_alike(rig: FlowRig, event_class: type[Event]) -> None:
    """What lies on the tape more than once is the same, byte for byte."""
    values: defaultdict[str, set[bytes | None]] = defaultdict(set)
    for record in rig.tape(rig.topic(event_class)):
        values[rig.fields(record)["event_id"]].add(record.value)
    assert {len(one) for one in values.values()} == {1}


def judge_equal(quiet: FlowRig, chaos: FlowRig) -> None:
    """Both runs say the same."""
    compared: tuple[type[Event], ...] = (TradeSignal, SignalDecision, Trade, Fill, TradeClosed)
    for event_class in compared:
        expected, found = contents(quiet, event_class), contents(chaos, event_class)
        assert found.keys() == expected.keys(), event_class
        assert {one: (found[one], expected[one]) for one in expected if found[one] != expected[one]} == {}
    # An order whose dispatcher died over it is sent once more, under the same key: a further attempt tells so.
    attempts = [contents(one, TradeDispatch, "event_time") for one in (quiet, chaos)]
    again = {one["trade_id"] for one in attempts[1].values() if one["attempt"] > 1}
    print(f"{len(again)} orders were sent once more")
    expected, found = (
        {event_id: one for event_id, one in of_run.items() if one["trade_id"] not in again} for of_run in attempts
    )
    assert found == expected
    last = [{one["trade_id"]: (one["outcome"], one["external_id"]) for one in of_run.values()} for of_run in attempts]
    assert last[0] == last[1]
