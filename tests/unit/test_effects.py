"""What a processor emits is made of its input alone, and numbered without gaps."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime

import pytest

from tradetape.schemas import CATALOGUE, Codec, DecisionOutcome, EventError, RunMode, SignalDecision
from tradetape.schemas.identity import NAMESPACE
from tradetape.streams.effects import MemoryEffects
from tradetape.streams.errors import ProcessorBroken

SIGNAL_ID = "6f0c8f6e-5a55-5c0e-9d53-0a0e0f0b0c0d"
AT = datetime(2024, 5, 1, 12, tzinfo=UTC)
LATER_US = 1_764_000_000_000_000


def decision(**more: object) -> SignalDecision:
    given = {"run_mode": RunMode.PAPER, "correlation_id": SIGNAL_ID, "event_time": AT, **more}
    return SignalDecision(
        venue="binance", symbol="BTCUSDT", signal_id=SIGNAL_ID, stage="approval", outcome=DecisionOutcome.PASSED,
        **given,  # type: ignore[arg-type]
    )  # fmt: skip


@pytest.fixture
def effects() -> MemoryEffects:
    return MemoryEffects(codec=Codec(CATALOGUE), worker="approval", now_us=lambda: LATER_US)


def test_an_event_keeps_what_its_input_says_and_names_the_worker(effects: MemoryEffects) -> None:
    effects.emit([decision()])
    (event,) = effects.events()
    assert (event.event_time, event.run_mode, event.correlation_id) == (AT, RunMode.PAPER, SIGNAL_ID)
    assert event.producer == "approval"
    assert event.event_id == str(uuid.uuid5(NAMESPACE, f'["SignalDecision","{SIGNAL_ID}","approval"]'))
    (output,) = effects.outputs
    assert output.topic == "tradetape.signal-decisions"
    assert output.key == b"binance:BTCUSDT"
    assert output.timestamp_ms == LATER_US // 1_000


@pytest.mark.parametrize("name", ["run_mode", "correlation_id"])
def test_what_only_the_input_can_say_is_not_filled_in(effects: MemoryEffects, name: str) -> None:
    with pytest.raises(ProcessorBroken, match=name):
        effects.emit([decision(**{name: None})])
    assert effects.outputs == []


def test_an_invalid_event_is_refused_before_anything_is_sent(effects: MemoryEffects) -> None:
    with pytest.raises(EventError, match="event_time"):
        effects.emit([decision(), decision(event_time=None)])
    assert effects.outputs == []


def test_numbers_have_a_gap_only_where_something_was_lost(effects: MemoryEffects) -> None:
    effects.emit([decision(), decision()])
    effects.stamped([decision()])  # which somebody else decided first, so that it is never sent
    written = effects.stamped([decision()])
    effects.kept(written)
    effects.send(written)
    effects.send(written)
    effects.emit([decision()])
    assert [event.producer_seq for event in effects.events()] == [1, 2, 3, 3, 4]
