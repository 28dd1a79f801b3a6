"""Approval on a real Kafka and Redis: each signal is answered once, whatever comes twice, at once, or is lost (I8, I9, I10)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import msgspec
import pytest

from approval_rig import AT, ONE_PER_SYMBOL, ApprovalRig, closed, dispatched, signal
from tradetape.schemas import Action, DecisionOutcome, DispatchOutcome, RunMode
from tradetape.schemas.identity import NAMESPACE


@pytest.fixture
def rig(kafka: str, topic_prefix: str, redis_url: str) -> Iterator[ApprovalRig]:
    made = ApprovalRig(kafka, topic_prefix, redis_url)
    yield made
    made.close()


def test_a_signal_becomes_a_decision_and_a_trade_of_its_own_chain(rig: ApprovalRig) -> None:
    record = rig.record(signal(tags={"desk": "a"}, amount_quote="50"))
    given = rig.codec.decode(record.topic, record.value)
    rig.worker().process([record])
    (decision,), (trade,) = rig.decisions(), rig.trades()
    assert decision.outcome == DecisionOutcome.PASSED
    assert decision.stage == "approval"
    assert decision.trade_id == trade.trade_id == trade.idempotency_key
    assert trade.trade_id == str(uuid.uuid5(NAMESPACE, f'["Trade","{given.event_id}",null]'))
    assert decision.event_id == str(uuid.uuid5(NAMESPACE, f'["SignalDecision","{given.event_id}","approval"]'))
    for event in (decision, trade):
        assert event.event_time == given.event_time == AT
        assert event.run_mode == RunMode.PAPER
        assert event.correlation_id == given.correlation_id
        assert event.causation_id == given.event_id
        assert event.tags == {"desk": "a"}
        assert event.producer == "approval"
    assert trade.amount_quote == 50
    assert trade.approved_at == AT


def test_without_a_policy_only_what_had_expired_when_it_was_sent_is_refused(rig: ApprovalRig) -> None:
    rig.worker().process([rig.record(signal(minute=number, valid_until=AT)) for number in (-1, 0, 1)])
    assert [one.outcome for one in rig.decisions()] == ["PASSED", "REJECTED", "REJECTED"]
    assert all(one.reasons[0].startswith("expired: ") for one in rig.decisions()[1:])
    assert [trade.event_time for trade in rig.trades()] == [rig.decisions()[0].event_time]


def test_a_refused_signal_names_its_rule_and_the_facts_and_becomes_no_trade(rig: ApprovalRig) -> None:
    worker = rig.worker(ONE_PER_SYMBOL)
    worker.process([rig.record(signal()), rig.record(signal(minute=5, reference_price="120"))])
    passed, refused = rig.decisions()
    assert (passed.outcome, refused.outcome) == ("PASSED", "REJECTED")
    assert refused.reasons[0].startswith("one_open_trade_per_symbol: ")
    assert refused.policy_version == "test"
    assert refused.trade_id is None
    assert refused.facts == {
        "is_opening": "true", "price": "120", "open_trades": "1", "open_trades_of_symbol": "1", "last_price": "100",
        "last_opened_at": "2025-03-01T12:00:00Z", "limit.one_open_trade_per_symbol": "true",
    }  # fmt: skip
    assert len(rig.trades()) == 1
    assert worker.results == {"passed": 1, "rejected": 1, "repeated": 0, "answered_long_ago": 0}
    assert worker.refusals == {"one_open_trade_per_symbol": 1}


def test_a_signal_that_comes_again_gets_its_answer_again_byte_for_byte(rig: ApprovalRig) -> None:
    records = [rig.record(signal()), rig.record(signal("ETHUSDT", valid_until=AT))]
    rig.worker(ONE_PER_SYMBOL).process(records)
    # After a crash the offset has not moved; a bot that was restarted says it again, and now wants another price.
    rig.worker(ONE_PER_SYMBOL).process(records)
    rig.worker(ONE_PER_SYMBOL).process([rig.record(signal(reference_price="250"))])
    assert len(rig.decisions()) == 5
    assert len({one.event_id: one for one in rig.decisions()}) == 2
    for events in (rig.decisions(), rig.trades()):
        first = {one.event_id: one for one in reversed(events)}
        assert all(one == first[one.event_id] for one in events)
    assert {one.planned_entry_price for one in rig.trades()} == {100}


@pytest.mark.parametrize("signal_mode", [RunMode.PAPER, RunMode.BACKTEST, RunMode.REPLAY])
def test_what_is_not_live_never_becomes_a_live_trade(rig: ApprovalRig, signal_mode: RunMode) -> None:
    worker = rig.worker(run_mode=RunMode.LIVE)
    worker.process([rig.record(signal(run_mode=signal_mode))])
    assert (rig.decisions(), rig.trades()) == ([], [])
    assert worker.results == {"other_mode": 1}


def test_a_live_signal_that_a_replay_wrote_never_becomes_a_trade(rig: ApprovalRig) -> None:
    worker = rig.worker(run_mode=RunMode.LIVE)
    record = rig.record(signal(run_mode=RunMode.LIVE))
    worker.process([msgspec.structs.replace(record, headers=(("x-replay", b"run"),))])
    assert (rig.decisions(), rig.trades()) == ([], [])
    assert worker.results == {"replayed": 1}


def test_a_closed_trade_lets_its_symbol_be_traded_again(rig: ApprovalRig) -> None:
    worker = rig.worker(ONE_PER_SYMBOL)
    worker.process([rig.record(signal())])
    (trade,) = rig.trades()
    worker.process([rig.record(closed(trade)), rig.record(signal(minute=2))])
    assert [one.outcome for one in rig.decisions()] == ["PASSED", "PASSED"]
    assert rig.decisions()[1].facts["last_closed_at"] == "2025-03-01T12:01:00Z"


@pytest.mark.parametrize(
    ("outcome", "answer"), [("EXPIRED", "PASSED"), ("REJECTED", "REJECTED"), ("ACKED", "REJECTED")]
)
def test_only_a_dispatch_that_expired_ends_a_trade_before_its_close(
    rig: ApprovalRig, outcome: str, answer: str
) -> None:
    worker = rig.worker(ONE_PER_SYMBOL)
    worker.process([rig.record(signal())])
    worker.process([rig.record(dispatched(rig.trades()[0], DispatchOutcome(outcome)))])
    worker.process([rig.record(signal(minute=2))])
    assert rig.decisions()[1].outcome == answer


def test_an_exit_passes_whatever_limits_openings_and_opens_nothing(rig: ApprovalRig) -> None:
    worker = rig.worker(ONE_PER_SYMBOL)
    worker.process([rig.record(signal())])
    worker.process([rig.record(signal(minute=1, action=Action.EXIT, position_ref=rig.trades()[0].trade_id))])
    assert [one.action for one in rig.trades()] == ["ENTER", "EXIT"]
    assert rig.decisions()[1].facts["open_trades"] == "1"


def test_a_record_that_cannot_be_read_is_a_dead_letter_and_its_neighbours_are_answered(rig: ApprovalRig) -> None:
    good = rig.record(signal())
    rig.worker().process([msgspec.structs.replace(good, value=b"\0nonsense", offset=99), good])
    assert [letter.record.offset for letter in rig.letters.letters] == [99]
    assert len(rig.trades()) == 1


def test_two_workers_that_have_the_same_signals_give_one_answer(rig: ApprovalRig) -> None:
    records = [rig.record(signal(minute=number)) for number in range(30)]
    workers = [rig.worker(ONE_PER_SYMBOL) for _ in range(2)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda worker: [worker.process([record]) for record in records], workers))
    for events in (rig.decisions(), rig.trades()):
        assert len({repr(one) for one in events}) == len({one.event_id for one in events})
    assert len({one.event_id for one in rig.trades()}) == 1
