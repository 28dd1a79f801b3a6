"""The positions worker as a process, and what the history makes of its closes: none lost, none doubled, all explained (I6, I8)."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from decimal import Decimal
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka import KafkaException
from confluent_kafka.admin import AdminClient

from history_rig import EngineThread, HistoryRig
from positions_rig import START, Story, at, closes_of, content
from raw_producer import raw_producer
from streams_rig import DEADLINE_S, WorkerProcess, now
from topics_rig import TopicsRig
from tradetape.console import topics
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import (
    Action,
    Candle,
    Codec,
    DecisionOutcome,
    Direction,
    DispatchOutcome,
    Fill,
    IndicatorUpdate,
    RunMode,
    Side,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
)
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.effects import KafkaEffects
from tradetape.streams.engines.kafka import KafkaEngine
from tradetape.streams.positions.past import Decoded, Past
from tradetape.streams.processors.positions import Positions
from tradetape.streams.reading_turn import ReadingTurn
from tradetape.streams.record import Record
from tradetape.streams.tape import Tape
from tradetape.streams.topic_reader import TopicReader
from waiting import eventually

SYMBOLS = tuple(f"COIN{number}USDT" for number in range(6))
POSITIONS = 6


class Market:
    """One test's topics, and the workers that read them."""

    def __init__(self, *, servers: str, prefix: str, folder: Path) -> None:
        rig = TopicsRig(servers, prefix)
        self.catalogue, self.kafka = rig.catalogue, rig.kafka
        self.group = f"{prefix}positions"
        self._prefix, self._folder = prefix, folder
        self._admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        self._producer = raw_producer(servers)

    def write(self, records: list[Record]) -> None:
        """Put records onto their topics, partitioned by their keys."""
        for record in records:
            self._producer.produce(record.topic, record.value, record.key, timestamp=record.timestamp_ms)
        assert self._producer.flush(DEADLINE_S) == 0

    @contextmanager
    def worker(self, engine: str, name: str = "positions") -> Iterator[WorkerProcess]:
        """`tradetape work positions`."""
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers, "TRADETAPE_TOPIC_PREFIX": self._prefix,
            "TRADETAPE_RUN_MODE": "PAPER",
        }  # fmt: skip
        command = ["-m", "tradetape.console", "work", "positions", "--engine", engine, "--group", self.group]
        with WorkerProcess(command, environment=environment, log=self._folder / f"{name}.log") as process:
            yield process

    def closes(self) -> list[TradeClosed]:
        """Every record of trades-closed, repeats too."""
        with Tape(kafka=self.kafka, catalogue=self.catalogue) as tape:
            return list(tape.read(TradeClosed, order="tape"))

    def has_closed_more_than(self, count: int) -> bool:
        """Whether another close is on the tape."""
        return len(self.closes()) > count

    def holdings(self) -> list[set[tuple[str, int]]]:
        """The partitions of each member of the group, once all are given out."""
        (found,) = self._admin.describe_consumer_groups([self.group], request_timeout=2.0).values()
        try:
            members = found.result().members
        except KafkaException:
            # The coordinator of a group that begins just now may not be there yet.
            return []
        held = [{(one.topic, one.partition) for one in member.assignment.topic_partitions} for member in members]
        return held if sum(map(len, held)) == 3 * topics.LOCAL_PARTITIONS else []


@pytest.fixture
def market(kafka: str, topic_prefix: str, tmp_path: Path) -> Market:
    return Market(servers=kafka, prefix=topic_prefix, folder=tmp_path)


def stories(market: Market) -> list[Story]:
    """Positions of several symbols, each with a fill in parts, some that came to nothing, and the candles of their lives."""
    told = []
    for symbol in SYMBOLS:
        story = Story(symbol, catalogue=market.catalogue)
        # The broker deletes candles by the time of their emission, also in the middle of a test.
        story.emitted_at = now()
        for number in range(POSITIONS):
            start = 600 * number
            enter = story.trade(seconds=start)
            if number % 3 == 2:
                story.dispatch(enter, DispatchOutcome.EXPIRED, seconds=start)
                continue
            story.dispatch(enter, DispatchOutcome.ACKED, seconds=start)
            for part in ("0.25", "0.75"):
                story.fill(enter, Side.BUY, part, f"{100 + number}", seconds=start + 5, fee="0.01", fee_asset="USDT")
            for minute in range(1, 4):
                story.candle(start + 60 * minute, f"{90 - minute - number}", f"{120 + minute + number}")
            leave = story.trade(Action.EXIT, position_ref=enter.trade_id, seconds=start + 290)
            story.fill(leave, Side.SELL, "1", "110", seconds=start + 290)
        told.append(story)
    return told


def mixed(told: list[Story], seed: int) -> list[Record]:
    """All records in some order in which candles come first, and each symbol and topic keeps its own."""
    chance = random.Random(seed)
    queues: dict[tuple[str, bytes | None], list[Record]] = {}
    for story in told:
        for record in story.records:
            queues.setdefault((record.topic, record.key), []).append(record)
    records = [record for (topic, _), queue in queues.items() if topic.endswith(".candles") for record in queue]
    waiting = [list(reversed(queue)) for (topic, _), queue in queues.items() if not topic.endswith(".candles")]
    while waiting:
        queue = chance.choice(waiting)
        records.append(queue.pop())
        if not queue:
            waiting.remove(queue)
    return records


def expected(told: list[Story]) -> dict[str, dict[str, Any]]:
    """What the processor makes of the same stories in memory."""
    return {closed.trade_id: content(closed) for story in told for closed in closes_of(story)}


@pytest.mark.long
@pytest.mark.parametrize("engine", ["kafka", "faust"])
def test_killed_again_and_again_it_loses_no_close_doubles_none_and_changes_none(market: Market, engine: str) -> None:
    told = stories(market)
    wanted, records = expected(told), mixed(told, seed=11)
    assert len(wanted) == len(SYMBOLS) * POSITIONS
    half, more = len(records) // 2, len(records) // 4
    for number, part in enumerate((records[:half], records[half : half + more], records[half + more :])):
        closed_before = len(market.closes())
        market.write(part)
        with market.worker(engine, f"{engine}-{number}") as worker:
            worker.until("something is closed", partial(market.has_closed_more_than, closed_before))
            worker.kill()
    with market.worker(engine) as worker:
        worker.until("all is closed", lambda: {one.trade_id for one in market.closes()} == wanted.keys())
        assert worker.stop() == 0
    closes = market.closes()
    assert len(closes) == len(wanted)
    for one in closes:
        assert content(one) == wanted[one.trade_id]


def are_whole(holdings: list[set[tuple[str, int]]], *, members: int) -> bool:
    """Whether all members hold something, and with a partition those of its number on the other topics."""
    return len([held for held in holdings if held]) == members and all(
        len(held) == 3 * len({number for _, number in held}) for held in holdings
    )


@pytest.mark.parametrize(("engine", "members"), [("kafka", 3), pytest.param("faust", 3, marks=pytest.mark.long)])
def test_several_workers_are_given_the_partitions_of_one_number_together(
    market: Market, engine: str, members: int
) -> None:
    told = stories(market)
    with ExitStack() as running:
        workers = [running.enter_context(market.worker(engine, f"{engine}-{number}")) for number in range(members)]
        # Three: between two, four partitions of each topic are dealt out evenly by any rule.
        eventually("each holds whole numbers", lambda: are_whole(market.holdings(), members=members))
        market.write(mixed(told, seed=5))
        wanted = expected(told)
        workers[0].until("all is closed", lambda: {one.trade_id for one in market.closes()} == wanted.keys())
        assert [worker.stop() for worker in workers] == [0] * members
    closes = market.closes()
    assert len(closes) == len(wanted)
    for one in closes:
        assert content(one) == wanted[one.trade_id]
        assert one.min_price is not None or not one.fill_ids


class SlowPast(Past):
    """A past that takes its time, as a long one does."""

    def read(self, *arguments: Any, **more: Any) -> Iterator[Decoded]:
        for one in super().read(*arguments, **more):
            time.sleep(0.1)
            yield one


@pytest.mark.long
def test_a_past_that_takes_longer_than_kafka_waits_for_a_poll_is_read_in_turns_by_a_member_that_stays(
    market: Market, caplog: pytest.LogCaptureFixture
) -> None:
    told = stories(market)
    wanted = expected(told)
    market.write(mixed(told, seed=7))
    kafka = KafkaSettings(
        bootstrap_servers=market.kafka.bootstrap_servers,
        options={"max.poll.interval.ms": "12000", "session.timeout.ms": "6000"},
    )
    codec, letters = Codec(market.catalogue), MemoryDeadLetters("positions")
    reader, effects = TopicReader(kafka), KafkaEffects(worker="positions", codec=codec, kafka=kafka)
    processor = Positions(
        codec=codec, past=SlowPast(reader=reader, codec=codec), effects=effects, dead_letters=letters,
        run_mode=RunMode.PAPER, turn=ReadingTurn(3.0),
    )  # fmt: skip
    thread = EngineThread(KafkaEngine(processor=processor, kafka=kafka, group=market.group, dead_letters=letters))
    began = time.monotonic()
    thread.start()
    eventually("all is closed", lambda: {one.trade_id for one in market.closes()} == wanted.keys(), timeout_s=180.0)
    took_s = time.monotonic() - began
    thread.end()
    effects.close()
    reader.close()
    assert thread.failure is None
    assert took_s > 12, "it took longer than Kafka waits"
    assert "maximum poll interval" not in caplog.text
    assert len(market.closes()) == len(wanted)
    for one in market.closes():
        assert content(one) == wanted[one.trade_id]


def test_every_closed_trade_in_the_history_walks_back_to_its_signal_its_decision_and_its_indicators(
    kafka: str, topic_prefix: str, postgres: str, tmp_path: Path
) -> None:
    rig = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)
    market = Market(servers=kafka, prefix=topic_prefix, folder=tmp_path)
    with rig.producer() as tape:
        chains = [Chain(tape, symbol) for symbol in SYMBOLS[:3]]
        rejected = chains[2]
        for chain in chains[:2]:
            chain.enter()
            chain.leave()
        rejected.reject()
        assert tape.flush(DEADLINE_S)
    with market.worker("kafka") as worker:
        worker.until("all is closed", lambda: len(market.closes()) == 3)
        assert worker.stop() == 0
    rig.store()

    walked = {row["trade_id"]: row for row in rig.rows(WALK)}
    assert len(walked) == 3
    for chain in chains:
        row = walked[chain.trade.trade_id]
        assert row["signal_id"] == chain.signal.signal_id
        assert row["input_event_ids"] == [chain.update.event_id]
        assert row["rsi_14"] == 28.4
        assert [one["outcome"] for one in row["decisions"]] == ["PASSED"]
        assert row["correlation_id"] == chain.signal.signal_id
        assert row["run_mode"] == "PAPER"
    for chain in chains[:2]:
        row = walked[chain.trade.trade_id]
        assert (row["close_status"], row["pnl_quote"], row["fills"]) == ("COMPLETED", Decimal("0.945"), 1)
        assert row["closing_fill"] == chain.fills[-1].fill_id
        assert row["close_fill_ids"] == [fill.fill_id for fill in chain.fills]
        assert (row["min_price"], row["max_price"]) == (Decimal("9.75"), Decimal("12.5"))
    row = walked[rejected.trade.trade_id]
    assert (row["close_status"], row["exit_reason"], row["fills"]) == ("FAILED", "no money", 0)
    assert rig.rows("SELECT sum(trades) AS trades, sum(pnl_quote) AS pnl FROM tradetape.daily_pnl") == [
        {"trades": 3, "pnl": 2 * Decimal("0.945")}
    ]


WALK = """
    SELECT j.trade_id, j.signal_id, j.decisions, j.input_event_ids, j.fills, j.close_status, j.exit_reason, j.pnl_quote,
           c.run_mode, c.correlation_id, c.min_price, c.max_price, c.fill_ids AS close_fill_ids, u.rsi_14,
           f.fill_id AS closing_fill
    FROM tradetape.closed_trades c
    JOIN tradetape.trade_journal j ON j.close_id = c.event_id
    JOIN tradetape.indicator_updates u ON u.event_id::text = j.input_event_ids ->> 0
    LEFT JOIN tradetape.fills f ON f.event_id::text = c.causation_id
"""


class Chain:
    """One symbol's way from its indicators to its fills, each step naming the one before it."""

    def __init__(self, tape: Any, symbol: str) -> None:
        self._tape = tape
        self._common: dict[str, Any] = {"venue": "binance", "symbol": symbol, "run_mode": "PAPER"}
        self.fills: list[Fill] = []
        self.update: IndicatorUpdate = self._emit(
            IndicatorUpdate, timeframe="1h", bar_close_time=START, values={"rsi_14": 28.4}
        )
        self.signal: TradeSignal = self._signal(Action.ENTER, 0, input_event_ids=[self.update.event_id])
        self._emit(
            SignalDecision, event_time=START, signal_id=self.signal.signal_id, stage="approval",
            outcome=DecisionOutcome.PASSED, causation_id=self.signal.event_id,
        )  # fmt: skip
        self.trade: Trade = self._trade(self.signal, 0)

    def _emit(self, kind: Any, **fields: Any) -> Any:
        return self._tape.emit(kind(**self._common, **fields))

    def _signal(self, action: Action, seconds: float, **more: Any) -> Any:
        return self._emit(
            TradeSignal,
            event_time=at(seconds),
            strategy_id="dip",
            timeframe="1h",
            action=action,
            direction=Direction.LONG,
            **more,
        )

    def _trade(self, signal: TradeSignal, seconds: float, **more: Any) -> Any:
        return self._emit(
            Trade, event_time=at(seconds), signal_id=signal.signal_id, strategy_id="dip", action=signal.action,
            direction=Direction.LONG, approved_at=at(seconds), approved_by="test", idempotency_key=signal.signal_id,
            causation_id=signal.event_id, correlation_id=signal.signal_id, **more,
        )  # fmt: skip

    def _fill(self, trade: Trade, side: Side, price: str, seconds: float) -> None:
        self.fills.append(
            self._emit(
                Fill, event_time=at(seconds), trade_id=trade.trade_id, venue_order_id=trade.trade_id, venue_trade_id="1",
                side=side, price=price, quantity="0.5", amount_quote=Decimal(price) / 2, fee="0.0275", fee_asset="USDT",
            )
        )  # fmt: skip

    def enter(self) -> None:
        """The entry is dispatched and filled."""
        self._dispatch(DispatchOutcome.ACKED)
        self._fill(self.trade, Side.BUY, "10", 1)
        for minute in range(1, 3):
            self._emit(
                Candle, timeframe="1m", open_time=at(60 * minute), close_time=at(60 * minute + 60), open="10", high="12.5",
                low="9.75", close="11", volume="3", is_final=True,
            )  # fmt: skip

    def leave(self) -> None:
        """The strategy leaves, and is filled."""
        signal = self._signal(Action.EXIT, 180, position_ref=self.trade.trade_id)
        self._fill(self._trade(signal, 180, position_ref=self.trade.trade_id), Side.SELL, "12", 182)

    def reject(self) -> None:
        """The executor refuses."""
        self._dispatch(DispatchOutcome.REJECTED, error="no money")

    def _dispatch(self, outcome: DispatchOutcome, **more: Any) -> None:
        for one, said in ((DispatchOutcome.INTENDED, {}), (outcome, more)):
            self._emit(
                TradeDispatch, event_time=at(0), trade_id=self.trade.trade_id, leg_index=0, attempt=1, outcome=one,
                executor="test", **said,
            )  # fmt: skip
