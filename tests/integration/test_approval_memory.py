"""The memory of approval may be lost at any moment, also under running workers: no signal is answered anew (I1, I9)."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from approval_rig import AT, ONE_PER_SYMBOL, ApprovalRig, closed, dispatched, signal
from tradetape.schemas import DispatchOutcome, Event, Leg, SignalDecision
from tradetape.schemas.stamping import wall_clock_us
from tradetape.streams.approval.memory import Memory, Recalled
from tradetape.streams.approval.policy import Limits, Policy
from tradetape.streams.effects import Effects, Output
from tradetape.streams.errors import EffectsRefused, StillReading
from tradetape.streams.reading_turn import ReadingTurn
from tradetape.streams.record import Record
from tradetape.streams.state.keys import Keys
from tradetape.streams.topic_reader import TopicReader

DAY_US = 86_400_000_000


class Killed(Exception):
    """The process ends here."""


class Interrupted:
    """Effects to which something happens at one of their sends; a batch sends its decisions first, then its trades."""

    def __init__(self, effects: Effects, at: int, act: Callable[[], None]) -> None:
        self._effects, self._at, self._act = effects, at, act
        self.emit, self.stamped, self.kept = effects.emit, effects.stamped, effects.kept

    def send(self, outputs: Sequence[Output]) -> None:
        self._at -= 1
        if self._at == 0:
            self._act()
        self._effects.send(outputs)


def die() -> None:
    raise Killed


@pytest.fixture
def rig(kafka: str, topic_prefix: str, redis_url: str) -> Iterator[ApprovalRig]:
    made = ApprovalRig(kafka, topic_prefix, redis_url)
    yield made
    made.close()


def outcomes(rig: ApprovalRig) -> list[str]:
    return [one.outcome.value for one in rig.decisions()]


def put(rig: ApprovalRig, event: Event) -> Event:
    """An event that another worker put onto the tape, in the run mode of the test."""
    record = rig.record(event)
    rig.put(record.topic, record.value, key=record.key or b"")
    return rig.codec.decode(record.topic, record.value)


@pytest.mark.parametrize("sends_before_death", [1, 2])
def test_a_worker_that_dies_between_memory_and_tape_leaves_each_decision_and_trade_once(
    rig: ApprovalRig, sends_before_death: int
) -> None:
    records = [rig.record(signal()), rig.record(signal("ETHUSDT"))]
    with pytest.raises(Killed):
        rig.worker(ONE_PER_SYMBOL, effects=Interrupted(rig.effects(), sends_before_death, die)).process(records)
    before = rig.remembered()
    rig.worker(ONE_PER_SYMBOL).process(records)
    assert len({one.event_id for one in rig.decisions()}) == len({repr(one) for one in rig.decisions()}) == 2
    assert len(rig.trades()) == 2
    assert rig.remembered() == before


def test_what_kafka_did_not_acknowledge_is_said_again_as_it_was_also_when_the_memory_is_lost(rig: ApprovalRig) -> None:
    other = rig.worker(ONE_PER_SYMBOL)

    def refuse() -> None:
        rig.lose_redis()
        other.process([rig.record(signal("ETHUSDT"))])
        raise EffectsRefused("the broker did not answer; who knows what it has")

    records = [rig.record(signal())]
    worker = rig.worker(ONE_PER_SYMBOL, effects=Interrupted(rig.effects(), 1, refuse))
    with pytest.raises(EffectsRefused):
        worker.process(records)
    worker.process(records)
    facts = {one.symbol: one.facts for one in rig.decisions()}
    assert [facts[symbol]["open_trades"] for symbol in ("BTCUSDT", "ETHUSDT")] == ["0", "0"]
    assert len(rig.decisions()) == len(rig.trades()) == 2


def test_a_round_is_thrown_away_when_another_worker_decides_in_between(rig: ApprovalRig) -> None:
    last_place = Policy(limits=Limits(maximum_open_trades=1), version="test")
    other = rig.worker(last_place)
    other.process([rig.record(signal("SOLUSDT", valid_until=AT))])
    meanwhile = [rig.record(signal("ETHUSDT"))]

    class Slow(Memory):
        def remember(self, *arguments: Any, **more: Any) -> bool:
            if meanwhile:
                other.process([meanwhile.pop()])
            return super().remember(*arguments, **more)

    slow = Slow.from_url(rig.redis_url, prefix=rig.redis_prefix)
    rig.worker(last_place, memory=slow).process([rig.record(signal())])
    slow.close()
    assert [one.symbol for one in rig.trades()] == ["ETHUSDT"]
    assert {one.symbol: one.facts["open_trades"] for one in rig.decisions()} == {
        "SOLUSDT": "0", "ETHUSDT": "0", "BTCUSDT": "1",
    }  # fmt: skip


def test_the_rebuilt_memory_is_the_one_that_was_lost(rig: ApprovalRig) -> None:
    worker = rig.worker(ONE_PER_SYMBOL)
    symbols = [f"COIN{number}USDT" for number in range(6)]
    worker.process([rig.record(signal(symbol, legs=[Leg(leg_index=1)])) for symbol in symbols])
    worker.process([rig.record(signal(symbols[0], minute=3)), rig.record(signal("ETHUSDT", reference_price=None))])
    trades = {trade.symbol: trade for trade in rig.trades()}
    ends = [
        put(rig, one)
        for one in (
            closed(trades["COIN1USDT"]),
            dispatched(trades["COIN2USDT"], DispatchOutcome.EXPIRED),
            dispatched(trades["COIN3USDT"], DispatchOutcome.EXPIRED),
            dispatched(trades["COIN3USDT"], DispatchOutcome.EXPIRED, leg_index=1),
            dispatched(trades["COIN4USDT"], DispatchOutcome.REJECTED),
        )
    ]
    worker.process([rig.record(one) for one in ends])
    before = rig.remembered()
    assert before
    rig.lose_redis()
    again = rig.worker(ONE_PER_SYMBOL)
    again.process([rig.record(closed(trades["COIN1USDT"]))])
    assert rig.remembered() == before


def test_how_an_order_gets_on_is_no_reason_to_look_at_the_memory(
    rig: ApprovalRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    worker = rig.worker()
    worker.process([rig.record(signal())])
    (trade,) = rig.trades()
    looks: list[object] = []
    recall = Memory.recall

    def counted(self: Memory, *arguments: Any) -> Recalled:
        looks.append(arguments)
        return recall(self, *arguments)

    monkeypatch.setattr(Memory, "recall", counted)
    for outcome in (DispatchOutcome.INTENDED, DispatchOutcome.ACKED, DispatchOutcome.REJECTED):
        worker.process([rig.record(dispatched(trade, outcome))])
    assert not looks
    worker.process([rig.record(dispatched(trade, DispatchOutcome.EXPIRED))])
    assert len(looks) == 1


def test_a_long_tape_is_read_in_turns_and_what_was_read_is_kept(rig: ApprovalRig) -> None:
    records = [rig.record(signal(f"COIN{number}USDT")) for number in range(6)]
    rig.worker(ONE_PER_SYMBOL).process(records)
    before = rig.remembered()
    rig.lose_redis()
    hasty, turns = rig.worker(ONE_PER_SYMBOL, turn=ReadingTurn(0)), 0
    while True:
        try:
            hasty.process(records[:1])
        except StillReading:
            turns += 1
            assert turns < 100
        else:
            break
    assert turns > len(records)
    assert rig.remembered() == before


LAST_PLACE = Policy(limits=Limits(maximum_open_trades=1), version="test")


def lying_on_the_tape(rig: ApprovalRig, *signals: Event) -> list[Record]:
    """Signals as an engine would bring them, with the offsets that they have."""
    for one in signals:
        put(rig, one)
    topic = rig.catalogue.topic_name(rig.catalogue.by_record("TradeSignal"))
    reader = TopicReader(rig.kafka)
    places = reader.partitions([topic])
    records = list(reader.read(reader.begins(places), reader.ends(places)))
    reader.close()
    by_symbol = {rig.codec.decode(one.topic, one.value).symbol: one for one in records}
    return [by_symbol[one.symbol] for one in signals]


@pytest.mark.parametrize("is_stalled_first", [True, False])
def test_of_two_answers_under_two_memories_the_first_on_the_tape_holds(
    rig: ApprovalRig, is_stalled_first: bool
) -> None:
    """A worker stalls with an answer that only its memory knows; Redis is emptied, and the next owner knows nothing of it."""
    disputed, other = lying_on_the_tape(rig, signal(), signal("ETHUSDT"))
    waiting: list[Callable[[], None]] = []

    def go_on() -> None:
        while waiting:
            waiting.pop()()

    class Stalled(Interrupted):
        """Its first send reaches Kafka when somebody else says so, or after them."""

        def send(self, outputs: Sequence[Output]) -> None:
            if outputs and self._at:
                self._at = 0
                waiting.append(lambda: self._effects.send(outputs))
                self._act()
                go_on()
            else:
                self._effects.send(outputs)

    def next_owner() -> None:
        rig.lose_redis()
        # It has read the tape, and is about to put its own decision there.
        effects = Interrupted(rig.effects(), 3, go_on) if is_stalled_first else rig.effects()
        following = rig.worker(LAST_PLACE, effects=effects)
        following.process([other])
        following.process([disputed])

    rig.worker(LAST_PLACE, effects=Stalled(rig.effects(), 1, next_owner)).process([disputed])

    def answers() -> list[SignalDecision]:
        return [one for one in rig.decisions() if one.symbol == "BTCUSDT"]

    first, second = answers()
    assert {first.outcome.value, second.outcome.value} == {"PASSED", "REJECTED"}
    traded = {one.symbol for one in rig.trades()}
    assert traded == ({"BTCUSDT", "ETHUSDT"} if first.outcome.value == "PASSED" else {"ETHUSDT"})
    assert (first.outcome.value == "PASSED") is is_stalled_first
    # Whoever comes next says so too, from this memory and from one that is made of the tape.
    for is_lost in (False, True):
        if is_lost:
            rig.lose_redis()
        worker = rig.worker(LAST_PLACE)
        worker.process([disputed])
        assert repr(answers()[-1]) == repr(first)
        assert len(rig.memory().recall(None).book.trades) == len(traded)
    assert {one.symbol for one in rig.trades()} == traded


def test_a_lost_memory_is_noticed_under_a_running_worker_and_no_symbol_is_traded_twice(rig: ApprovalRig) -> None:
    workers = [rig.worker(ONE_PER_SYMBOL) for _ in range(2)]
    for number, worker in enumerate(workers * 3):
        rig.lose_redis()
        worker.process([rig.record(signal(minute=number)), rig.record(signal("ETHUSDT", minute=number))])
    assert sorted(one.symbol for one in rig.trades()) == ["BTCUSDT", "ETHUSDT"]
    assert len({one.event_id for one in rig.decisions()}) == len(rig.decisions()) == 12


def test_what_was_on_its_way_while_another_worker_rebuilt_the_memory_is_known_afterwards(rig: ApprovalRig) -> None:
    other = rig.worker(ONE_PER_SYMBOL)
    other.process([rig.record(signal("SOLUSDT"))])

    def lose_and_rebuild_elsewhere() -> None:
        rig.lose_redis()
        other.process([rig.record(signal("ETHUSDT"))])

    worker = rig.worker(ONE_PER_SYMBOL, effects=Interrupted(rig.effects(), 1, lose_and_rebuild_elsewhere))
    worker.process([rig.record(signal())])
    other.process([rig.record(signal(minute=1))])
    assert sorted(one.symbol for one in rig.trades()) == ["BTCUSDT", "ETHUSDT", "SOLUSDT"]
    (refused,) = [one for one in rig.decisions() if one.outcome == "REJECTED"]
    assert (refused.symbol, refused.facts["open_trades"]) == ("BTCUSDT", "3")


def test_what_a_dead_worker_had_sent_and_reaches_the_tape_after_the_rebuild_stands(rig: ApprovalRig) -> None:
    on_its_way: list[Output] = []

    class Lingering(Interrupted):
        def send(self, outputs: Sequence[Output]) -> None:
            on_its_way.extend(outputs)
            raise Killed

    records = [rig.record(signal())]
    rig.worker(ONE_PER_SYMBOL).process([rig.record(signal("SOLUSDT"))])
    with pytest.raises(Killed):
        rig.worker(ONE_PER_SYMBOL, effects=Lingering(rig.effects(), 0, die)).process(records)
    rig.lose_redis()
    other = rig.worker(ONE_PER_SYMBOL, settle_s=60)
    other.process([rig.record(signal("ETHUSDT"))])
    rig.effects().send(on_its_way)
    heir = rig.worker(ONE_PER_SYMBOL, settle_s=60)
    for worker in (other, heir):
        worker.process([rig.record(signal(strategy_id=f"other {worker is heir}"))])
        assert [one.symbol for one in rig.trades() if one.symbol == "BTCUSDT"] == []
    heir.process(records)
    (trade,) = [one for one in rig.trades() if one.symbol == "BTCUSDT"]
    decisions = [one for one in rig.decisions() if one.trade_id == trade.trade_id]
    assert {repr(one) for one in decisions} == {repr(rig.codec.decode(one.topic, one.value)) for one in on_its_way}


def test_a_memory_that_is_lost_while_it_is_rebuilt_is_rebuilt_once_more(rig: ApprovalRig) -> None:
    records = [rig.record(signal()), rig.record(signal("ETHUSDT"))]
    rig.worker(ONE_PER_SYMBOL).process(records)
    before = rig.remembered()
    rig.lose_redis()
    again = [rig.lose_redis]

    class Slow(Memory):
        def remember(self, *arguments: Any, **more: Any) -> bool:
            if again:
                again.pop()()
            return super().remember(*arguments, **more)

    slow = Slow.from_url(rig.redis_url, prefix=rig.redis_prefix)
    rig.worker(ONE_PER_SYMBOL, memory=slow).process(records)
    slow.close()
    assert rig.remembered() == before
    assert len({repr(one) for one in rig.decisions()}) == 2


def test_a_memory_that_another_worker_is_about_to_rebuild_is_not_begun_without_the_answers(rig: ApprovalRig) -> None:
    claimed = rig.memory()
    worker = rig.worker(ONE_PER_SYMBOL, settle_s=60)
    records = [rig.record(signal()), rig.record(signal(minute=1, reference_price=None))]
    rig.worker(ONE_PER_SYMBOL).process(records)
    worker.process([rig.record(signal("SOLUSDT"))])
    rig.worker(ONE_PER_SYMBOL, settle_s=60).process([rig.record(signal("ETHUSDT"))])
    rig.lose_redis()
    claimed.claim()
    worker.process(records)
    assert len({repr(one) for one in rig.decisions()}) == len({one.event_id for one in rig.decisions()}) == 4


def test_a_redis_that_came_back_with_an_older_file_is_brought_up_to_date(rig: ApprovalRig) -> None:
    worker = rig.worker(ONE_PER_SYMBOL)
    worker.process([rig.record(signal()), rig.record(signal("ETHUSDT"))])
    older = {key: rig.redis.dump(key) or b"" for key in rig.redis.scan_iter(f"{rig.redis_prefix}:*")}
    ended = put(rig, closed(rig.trades()[0]))
    worker.process([rig.record(ended), rig.record(signal("SOLUSDT", minute=1))])
    before = rig.remembered()

    rig.lose_redis()
    for key, content in older.items():
        rig.redis.restore(key, 60_000, content)
    # The marker of a server that has ended, as a restart on the older file leaves it.
    rig.redis.hset(f"{rig.redis_prefix}:1:approval:{{default}}:account", "run_id", "0" * 40)
    worker.process([rig.record(ended)])
    assert rig.remembered() == before


def test_a_decision_without_its_trade_on_the_tape_gets_that_trade_and_counts_as_open(rig: ApprovalRig) -> None:
    records = [rig.record(signal())]
    with pytest.raises(Killed):
        rig.worker(ONE_PER_SYMBOL, effects=Interrupted(rig.effects(), 2, die)).process(records)
    rig.lose_redis()
    assert rig.trades() == []
    worker = rig.worker(ONE_PER_SYMBOL)
    worker.process(records)
    worker.process([rig.record(signal(minute=1))])
    assert outcomes(rig) == ["PASSED", "PASSED", "REJECTED"]
    assert [trade.trade_id for trade in rig.trades()] == [rig.decisions()[0].trade_id]


def test_an_answer_that_redis_has_let_go_is_found_on_the_tape(rig: ApprovalRig) -> None:
    records = [rig.record(signal()), rig.record(signal("ETHUSDT"))]
    rig.worker(ONE_PER_SYMBOL).process(records[:1])
    for key in rig.redis.scan_iter("*:decision:*"):
        rig.redis.delete(key)
    late = rig.worker(ONE_PER_SYMBOL, now_us=lambda: wall_clock_us() + 8 * DAY_US)
    late.process(records)
    assert late.results["answered_long_ago"] == 1
    for events in (rig.decisions(), rig.trades()):
        assert sorted(one.symbol for one in events) == ["BTCUSDT", "ETHUSDT"]


def test_every_key_of_the_memory_is_declared_and_expires_a_week_after_its_last_use(rig: ApprovalRig) -> None:
    worker = rig.worker(ONE_PER_SYMBOL)
    records = [rig.record(signal())]
    worker.process(records)
    keys = list(rig.redis.scan_iter("*"))
    assert len(keys) == 5
    for key in keys:
        rig.redis.pexpire(key, 60_000)
    worker.tick(wall_clock_us())
    worker.process(records)
    for key in keys:
        declared = Keys(rig.redis_prefix).pattern_of(key.decode())
        assert declared is not None
        assert (declared.owner, declared.type.encode()) == ("approval", rig.redis.type(key))
        assert 6.9 < rig.redis.pttl(key) * 1_000 / DAY_US < 7.1
