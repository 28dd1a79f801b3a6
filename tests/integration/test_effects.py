"""What a processor emits on a real broker: acknowledged when `emit` returns, or tried again without a new number."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from topics_rig import TopicsRig
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import CATALOGUE, Codec, DecisionOutcome, RunMode, SignalDecision
from tradetape.streams.effects import KafkaEffects
from tradetape.streams.errors import EffectsRefused
from tradetape.streams.tape import Tape

AT = datetime(2024, 5, 1, 12, tzinfo=UTC)


def decisions(count: int, stage: str = "approval") -> list[SignalDecision]:
    return [
        SignalDecision(
            event_time=AT, run_mode=RunMode.PAPER, correlation_id="c", venue="binance", symbol="BTCUSDT",
            signal_id=f"signal {number}", stage=stage, outcome=DecisionOutcome.PASSED,
        )
        for number in range(count)
    ]  # fmt: skip


def read(rig: TopicsRig) -> list[SignalDecision]:
    with Tape(kafka=rig.kafka, catalogue=rig.catalogue) as tape:
        return list(tape.read(SignalDecision, order="tape"))


def test_everything_is_on_the_tape_in_order_when_emit_returns(kafka: str, topic_prefix: str) -> None:
    rig = TopicsRig(kafka, topic_prefix)
    effects = KafkaEffects(worker="approval", codec=Codec(rig.catalogue), kafka=rig.kafka)
    try:
        effects.emit(decisions(200))
        assert [one.signal_id for one in read(rig)] == [f"signal {number}" for number in range(200)]
    finally:
        effects.close()


def test_what_kafka_does_not_take_is_tried_again_under_the_same_number(kafka: str, topic_prefix: str) -> None:
    hasty = KafkaSettings(bootstrap_servers=kafka, options={"delivery.timeout.ms": "2000"})
    effects = KafkaEffects(worker="approval", codec=Codec(CATALOGUE.with_prefix(topic_prefix)), kafka=hasty)
    try:
        with pytest.raises(EffectsRefused):
            effects.emit(decisions(2))
        rig = TopicsRig(kafka, topic_prefix)
        effects.emit(decisions(2))
        assert [one.producer_seq for one in read(rig)] == [1, 2]
    finally:
        effects.close()
