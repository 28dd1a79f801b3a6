"""One look at the memory, and what a batch makes of it: known answers again, new ones for signals that have none.

Nothing of it holds before it is written: where another worker wrote in between, the whole round is thrown away.
"""

from __future__ import annotations

from collections.abc import Mapping

from tradetape.schemas import (
    Codec,
    DecisionOutcome,
    EventError,
    SignalDecision,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
)
from tradetape.streams.approval.answering import decision_of, trade_id_of, trade_of
from tradetape.streams.approval.memory import Answer, Recalled
from tradetape.streams.approval.policy import Policy
from tradetape.streams.effects import Effects, Output
from tradetape.streams.errors import BadRecord
from tradetape.streams.record import Record


class Round:
    """Decides upon one book, record by record. `said` are answers that this worker gave and that must stand."""

    def __init__(
        self, *, recalled: Recalled, said: Mapping[str, Answer], policy: Policy, effects: Effects, codec: Codec
    ) -> None:
        self.recalled = recalled
        self.book = recalled.book
        self.answers: dict[str, Answer] = {}
        """To each signal of the batch, in order."""
        self.unwritten: dict[str, Answer] = {}
        """Those that the memory does not hold yet."""
        self.decisions: list[SignalDecision] = []
        """Those that were made in this round."""
        self.stamped: list[Output] = []
        self.late_trades: dict[str, Output] = {}
        """By signal: those of answers that the memory holds without their trade."""
        self._said = said
        self._policy = policy
        self._effects = effects
        self._codec = codec
        self._trades = codec.catalogue.by_class(Trade)

    def note(self, event: TradeClosed | TradeDispatch) -> None:
        """Something became of a trade."""
        if isinstance(event, TradeClosed):
            self.book.closed(event)
        else:
            self.book.dispatched(event)

    def answer(self, record: Record, signal: TradeSignal) -> None:
        """Answer a signal. Raises BadRecord where no valid decision can be made of it."""
        signal_id = signal.signal_id
        if signal_id in self.answers:
            return
        remembered, said = self.recalled.answers.get(signal_id), self._said.get(signal_id)
        if remembered is not None:
            self.answers[signal_id] = self._whole(remembered, signal)
        elif said is not None:
            # It was written into a memory that was lost since.
            self._write(signal_id, said, trade_of(signal, trades=self._trades) if said.trade else None)
        else:
            self._decide(record, signal)

    def _decide(self, record: Record, signal: TradeSignal) -> None:
        decision = decision_of(signal, self.book.facts(signal, self._policy), self._policy, trades=self._trades)
        trade = trade_of(signal, trades=self._trades) if decision.outcome == DecisionOutcome.PASSED else None
        try:
            outputs = self._effects.stamped([decision] if trade is None else [decision, trade], ahead=len(self.stamped))
        except EventError as error:
            raise BadRecord(record, "invalid_value", str(error)) from error
        self.stamped += outputs
        self.decisions.append(decision)
        self._write(signal.signal_id, Answer(*outputs), trade)

    def _write(self, signal_id: str, answer: Answer, trade: Trade | None) -> None:
        self.answers[signal_id] = self.unwritten[signal_id] = answer
        if trade is not None:
            self.book.approved(trade)

    def _whole(self, answer: Answer, signal: TradeSignal) -> Answer:
        """An answer with its trade. The tape may know a decision alone, where a worker died before its trade was sent."""
        decision = self._codec.decode(answer.decision.topic, answer.decision.value)
        assert isinstance(decision, SignalDecision)
        if decision.outcome != DecisionOutcome.PASSED:
            self.book.refused(trade_id_of(signal, trades=self._trades))
            return answer
        if answer.trade is not None:
            return answer
        trade = trade_of(signal, trades=self._trades)
        (output,) = self._effects.stamped([trade], ahead=len(self.stamped))
        self.stamped.append(output)
        self.late_trades[signal.signal_id] = output
        self.book.approved(trade)
        return Answer(answer.decision, output)
