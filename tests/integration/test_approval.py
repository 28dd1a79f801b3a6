"""Approval on a real Kafka and Redis: each signal is answered once, whatever comes twice, at once, or is lost (I8, I9, I10)."""

from __future__ import annotations

import uuid
from collections.abc import Iterator

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
