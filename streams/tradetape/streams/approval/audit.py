"""Takes recorded decisions again, from what they recorded, and says where another one comes out (I9)."""

from __future__ import annotations

import heapq
from collections.abc import Iterable, Iterator
from datetime import datetime
from itertools import groupby
from operator import attrgetter
from typing import Literal, NamedTuple

from tradetape.schemas import Action, DecisionOutcome, Event, SignalDecision, TradeSignal
from tradetape.streams.approval.answering import STAGE
from tradetape.streams.approval.book import price_of
from tradetape.streams.approval.policy import Facts, Limits, Policy, judge, recorded
from tradetape.streams.tape import Tape

Result = Literal["same", "different", "unchecked"]
SAME: Result = "same"
DIFFERENT: Result = "different"
UNCHECKED: Result = "unchecked"


class Recomputed(NamedTuple):
    """A decision that was taken again; `why` says what differs, or why it could not be taken."""

    decision: SignalDecision
    result: Result
    why: str = ""


def audit(tape: Tape, start: datetime | None, end: datetime | None, policy: Policy | None) -> Iterator[Recomputed]:
    """Every decision of approval of a stretch of event time, taken again. Raises what Tape.read raises.

    A signal and its decisions have one event time, so only those of one instant are in memory at once.
    """
    signals: Iterable[Event] = tape.read(TradeSignal, start, end)
    decisions: Iterable[Event] = tape.read(SignalDecision, start, end)
    by_time = heapq.merge(signals, decisions, key=attrgetter("event_time"))
    for _, together in groupby(by_time, key=attrgetter("event_time")):
        at_once = list(together)
        judged = {one.signal_id: one for one in at_once if isinstance(one, TradeSignal)}
        for one in at_once:
            if isinstance(one, SignalDecision) and one.stage == STAGE:
                yield recompute(judged.get(one.signal_id), one, policy)


def recompute(signal: TradeSignal | None, decision: SignalDecision, policy: Policy | None = None) -> Recomputed:
    """Take a decision again from its facts and limits; `policy` is needed where one in Python had its say.

    Where the policy is the one that decided, the limits and what it says of the symbol are compared as well.
    """
    if signal is None:
        return Recomputed(decision, DIFFERENT, "its signal is not on the tape")
    try:
        facts, limits = recorded(decision.facts)
    except ValueError as error:
        return Recomputed(decision, UNCHECKED, f"its facts are not understood: {error}")
    is_same_policy = policy is not None and policy.version == decision.policy_version
    if limits.python and not is_same_policy:
        return Recomputed(decision, UNCHECKED, f"needs the policy {decision.policy_version}, with its Python")
    found = list(_differences(signal, decision, facts, limits, policy if is_same_policy else None))
    return Recomputed(decision, DIFFERENT if found else SAME, "; ".join(found))


def _differences(
    signal: TradeSignal, decision: SignalDecision, facts: Facts, limits: Limits, policy: Policy | None
) -> Iterator[str]:
    verdict = judge(signal, facts, limits, policy.python if policy else None)
    pairs: list[tuple[str, object, object]] = [
        ("outcome", decision.outcome.value, verdict.outcome.value),
        ("reasons", list(decision.reasons), list(verdict.reasons)),
        ("threshold", decision.threshold, verdict.threshold),
        ("score", decision.score, signal.score),
        ("price", facts.price, price_of(signal)),
        ("is_opening", facts.is_opening, signal.action == Action.ENTER),
        ("trade", decision.trade_id is not None, verdict.outcome == DecisionOutcome.PASSED),
    ]
    if policy is not None:
        pairs.append(("limits", limits, policy.limits))
        pairs.append(("is_symbol_allowed", facts.is_symbol_allowed, policy.allows(signal.venue, signal.symbol)))
    for name, told, found in pairs:
        if told != found:
            yield f"{name} {told} recorded, {found} found"
