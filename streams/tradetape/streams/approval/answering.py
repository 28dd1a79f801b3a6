"""What a signal is answered with: the decision, and the trade where it passed. Made of the signal and the facts alone."""

from __future__ import annotations

from tradetape.schemas import DecisionOutcome, SignalDecision, Trade, TradeSignal
from tradetape.schemas.catalogue import EventType
from tradetape.streams.approval.book import price_of
from tradetape.streams.approval.policy import Facts, Policy, judge, record

STAGE = "approval"


def decision_of(signal: TradeSignal, facts: Facts, policy: Policy, *, trades: EventType) -> SignalDecision:
    """Judge a signal; `trades` is the event type of trades, which says what id one will have."""
    verdict = judge(signal, facts, policy.limits, policy.python)
    return SignalDecision(
        event_time=signal.event_time,
        run_mode=signal.run_mode,
        correlation_id=signal.correlation_id,
        causation_id=signal.event_id,
        venue=signal.venue,
        symbol=signal.symbol,
        tags=signal.tags,
        signal_id=signal.signal_id,
        stage=STAGE,
        outcome=verdict.outcome,
        score=signal.score,
        threshold=verdict.threshold,
        components=signal.score_components,
        facts=record(facts, policy.limits),
        policy_version=policy.version,
        reasons=verdict.reasons,
        trade_id=trade_id_of(signal, trades=trades) if verdict.outcome == DecisionOutcome.PASSED else None,
    )


def trade_of(signal: TradeSignal, *, trades: EventType) -> Trade:
    """The trade of a signal that passed, in full: nothing of it is known only here and now."""
    trade_id = trade_id_of(signal, trades=trades)
    return Trade(
        event_time=signal.event_time,
        run_mode=signal.run_mode,
        correlation_id=signal.correlation_id,
        causation_id=signal.event_id,
        venue=signal.venue,
        symbol=signal.symbol,
        tags=signal.tags,
        trade_id=trade_id,
        signal_id=signal.signal_id,
        strategy_id=signal.strategy_id,
        action=signal.action,
        direction=signal.direction,
        order_type=signal.order_type,
        planned_entry_price=price_of(signal),
        quantity=signal.quantity,
        amount_quote=signal.amount_quote,
        leverage=signal.leverage,
        stop_loss_price=signal.stop_loss_price,
        take_profits=signal.take_profits,
        trailing_stop=signal.trailing_stop,
        legs=signal.legs,
        position_ref=signal.position_ref,
        approved_at=signal.event_time,
        approved_by=STAGE,
        valid_until=signal.valid_until,
        idempotency_key=trade_id,
    )


def trade_id_of(signal: TradeSignal, *, trades: EventType) -> str:
    """The id that the trade of a signal has, if it becomes one."""
    assert trades.derive_id is not None, "a trade has a natural key"
    return trades.derive_id({"signal_id": signal.signal_id, "account_id": None})
