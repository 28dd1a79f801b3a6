"""What became of one signal and why, as the tape has it: the signal, what each stage decided, the trade."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Any

import msgspec

from tradetape.console.table_text import text
from tradetape.schemas import Codec, DecodeError, Event, SignalDecision, Trade, TradeSignal
from tradetape.streams.approval.policy import LIMIT
from tradetape.streams.topic_reader import TopicReader


class Explanation(msgspec.Struct):
    """Everything that is known of a signal."""

    signal: TradeSignal | None = None
    decisions: list[SignalDecision] = []
    """One for each stage, as first recorded."""
    trade: Trade | None = None


class SignalSearch:
    """Finds a signal by its id, or by that of its trade. Reads whole topics, but decodes only what names the id."""

    def __init__(self, reader: TopicReader, codec: Codec) -> None:
        self._reader = reader
        self._codec = codec

    def explanation(self, wanted: str) -> Explanation:
        """What the tape says; all of it empty where it says nothing. Raises BrokersUnreachable."""
        trades = [one for one in self._naming(Trade, wanted) if wanted in (one.signal_id, one.trade_id)]
        signal_id = trades[0].signal_id if trades else wanted
        signals = [one for one in self._naming(TradeSignal, signal_id) if one.signal_id == signal_id]
        decisions = [one for one in self._naming(SignalDecision, signal_id) if one.signal_id == signal_id]
        stages = {one.stage: one for one in reversed(decisions)}
        return Explanation(_first(signals), sorted(stages.values(), key=lambda one: one.emitted_at), _first(trades))

    def _naming(self, event_class: type[Any], wanted: str) -> Iterator[Any]:
        catalogue = self._codec.catalogue
        partitions = self._reader.partitions([catalogue.topic_name(catalogue.by_class(event_class))])
        sought = wanted.encode()
        for record in self._reader.read(self._reader.begins(partitions), self._reader.ends(partitions)):
            if sought in (record.value or b""):
                try:
                    yield self._codec.decode(record.topic, record.value)
                except DecodeError:
                    continue


def _first(events: Iterable[Any]) -> Any:
    return next(iter(events), None)


def lines(found: Explanation) -> Iterator[str]:
    """For people."""
    if found.signal is not None:
        yield from _signal_lines(found.signal)
    for decision in found.decisions:
        yield ""
        yield from _decision_lines(decision)
    if found.trade is not None:
        yield ""
        yield f"trade {found.trade.trade_id}"
        yield from _pairs(
            {
                "planned_entry_price": found.trade.planned_entry_price,
                **_of(found.trade, "quantity amount_quote valid_until"),
            }
        )


def _signal_lines(signal: TradeSignal) -> Iterator[str]:
    yield f"signal {signal.signal_id}"
    yield f"  {signal.strategy_id}: {signal.action} {signal.direction} {signal.venue}:{signal.symbol}, {signal.run_mode}"
    yield from _pairs(_of(signal, "event_time valid_until score reference_price entry_price"))


def _decision_lines(decision: SignalDecision) -> Iterator[str]:
    policy = f", policy {decision.policy_version}" if decision.policy_version else ""
    yield f"{decision.stage}: {decision.outcome}{policy}"
    for reason in decision.reasons:
        yield f"  because {reason}"
    if decision.score is not None or decision.threshold is not None:
        yield f"  score {text(decision.score) or 'none'}, threshold {text(decision.threshold) or 'none'}"
    facts = {name: value for name, value in decision.facts.items() if not name.startswith(LIMIT)}
    limits = {name.removeprefix(LIMIT): value for name, value in decision.facts.items() if name.startswith(LIMIT)}
    for title, values in (("facts", facts), ("limits", limits)):
        if values:
            yield f"  {title}"
            yield from _pairs(values, indent=4)


def _of(event: Event, names: str) -> dict[str, Any]:
    return {name: getattr(event, name) for name in names.split()}


def _pairs(values: dict[str, Any], *, indent: int = 2) -> Iterator[str]:
    known = {name: value for name, value in values.items() if value is not None}
    width = max(map(len, known), default=0)
    for name, value in sorted(known.items()) if indent > 2 else known.items():
        yield f"{' ' * indent}{name:<{width}}  {text(value)}"
