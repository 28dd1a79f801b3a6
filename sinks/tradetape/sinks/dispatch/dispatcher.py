"""The steps by which one order reaches its executor: intended, told, called, noted, told; in this order, or not at all.

An attempt without an outcome is never sent again blindly. Only an executor that is declared idempotent is called twice
under one key; any other may be asked what it knows, and what stays unknown is IN_DOUBT until a person resolves it.
"""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable
from datetime import datetime

import msgspec

from tradetape.schemas import DispatchOutcome, Event, TradeDispatch, times
from tradetape.sinks.dispatch.executor import Answer, Executor, Following, Lookup, Order, OrderNotTaken
from tradetape.sinks.dispatch.intents import WHY, Intents
from tradetape.sinks.dispatch.job import Attempt, Job
from tradetape.sinks.errors import ExecutorBusy

logger = logging.getLogger("tradetape.sinks")

MAX_ATTEMPTS = 3
"""How often an idempotent executor that gives no answer is sent the same order."""
MAX_REFUSALS = 10
"""How often an executor may ask for patience before its refusal is taken for final."""
ERROR_CHARACTERS = 500

Clock = Callable[[Order], int | None]
"""The time by which an order expires, in microseconds since 1970; None while it is not known."""


class Dispatcher:
    """Carries orders to one executor. `counts` holds outcomes by their names, `refused` and `repeated`."""

    def __init__(
        self,
        *,
        intents: Intents,
        tell: Callable[[Event], None],
        executor: Executor,
        clock: Clock,
        now_us: Callable[[], int],
    ) -> None:
        self.counts: Counter[str] = Counter()
        self._intents = intents
        self._put_on_tape = tell
        self._executor = executor
        self._clock = clock
        self._now_us = now_us

    def carry(self, job: Job) -> Attempt:
        """Bring an order to where nothing more is to be sent for it; its last attempt.

        Raises Transient (ExecutorBusy, DatabaseUnavailable, EffectsRefused) to be called again with the same job, which
        goes on where it was, and Fenced.
        """
        if job.attempt is None:
            self._begin(job)
        assert job.attempt is not None
        while not job.attempt.is_final:
            if job.attempt.outcome is DispatchOutcome.TIMEOUT:
                self._try_again(job, job.attempt)
            elif job.is_uncalled or job.answer is not None:
                self._hand_over(job, job.attempt)
            elif job.attempt.is_refused:
                self._send_again(job, job.attempt)
            else:
                self._recover(job, job.attempt)
        if not job.attempt.is_on_tape:
            self._tell(job.attempt)
        return job.attempt

    def _begin(self, job: Job) -> None:
        """Step 1 of an order that was never seen; else where an earlier process has left it."""
        job.attempt, job.is_uncalled = self._intents.intend(
            job.order, attempt=1, executor=self._executor.name, at=self._now(), expired=self._expired(job.order)
        )
        if job.attempt.outcome is DispatchOutcome.EXPIRED and job.is_uncalled:
            self.counts["expired"] += 1
        if job.attempt.is_final and not job.is_uncalled:
            self.counts["repeated"] += 1
            self._resume(job, job.attempt)

    def _hand_over(self, job: Job, attempt: Attempt) -> None:
        """Steps 2 to 4. Step 1, the intent, is committed; step 5, the offset, follows when the whole trade is done."""
        order = job.order
        # Step 2: the tape knows of the intent before anybody is called.
        if not job.is_told:
            self._tell(attempt)
            job.is_told = True
        # Step 3: the call. From here on nobody may say that it was not called.
        if job.answer is None:
            job.is_uncalled = False
            try:
                job.answer = self._called(job)
            except OrderNotTaken as refusal:
                self._refused(job, attempt, refusal)
                raise ExecutorBusy(f"{self._executor.name}: {refusal}", retry_after_s=refusal.retry_after_s) from None
        # Step 4: what became of it, first in the table, then on the tape.
        answer = job.answer
        job.attempt = self._intents.note(
            order, attempt, answer.outcome, external_id=answer.external_id, error=answer.error and answer.error[:ERROR_CHARACTERS]
        )  # fmt: skip
        job.answer = None
        self._count(job.attempt)

    def _called(self, job: Job) -> Answer:
        """What the executor says; where it says nothing, what can be known all the same. Raises OrderNotTaken."""
        try:
            if job.dropped.is_set():
                raise OrderNotTaken("the dispatcher was stopped before the call", is_away=True)
            return self._executor.submit(job.order)
        except OrderNotTaken as refusal:
            if not refusal.is_away:
                job.refusals += 1
                if job.refusals >= MAX_REFUSALS:
                    return Answer(DispatchOutcome.REJECTED, None, f"refused {job.refusals} times: {refusal}")
            raise
        except Exception as error:  # noqa: BLE001  # whatever it was, the order may have been taken
            logger.warning("%s gave no answer for %s: %s", self._executor.name, job.order.key, _words(error))
            return self._unanswered(job.order, _words(error))

    def _unanswered(self, order: Order, why: str) -> Answer:
        if self._executor.is_idempotent:
            return Answer(DispatchOutcome.TIMEOUT, None, why)
        return self._looked_up(order, why)

    def _looked_up(self, order: Order, why: str) -> Answer:
        """What the executor knows of an order that may have been taken; IN_DOUBT where it does not say."""
        found: Answer | None = None
        if isinstance(self._executor, Lookup):
            try:
                found = self._executor.lookup(order)
                why = why if found else f"{why}; the executor knows nothing of it, which proves nothing"
            except Exception as error:  # noqa: BLE001  # no answer to a question leaves things as they were
                why = f"{why}; and asked again: {_words(error)}"
        return found or Answer(DispatchOutcome.IN_DOUBT, None, why)

    def _refused(self, job: Job, attempt: Attempt, refusal: OrderNotTaken) -> None:
        """It was certainly not taken: written down, so that whoever comes after us may send it again."""
        self.counts["refused"] += 1
        # Until that is committed it may be called again by us alone, who know it.
        job.is_uncalled = True
        job.attempt = self._intents.note(job.order, attempt, None, error=str(refusal)[:ERROR_CHARACTERS])
        job.is_uncalled = False

    def _send_again(self, job: Job, attempt: Attempt) -> None:
        """An attempt that was refused, by us or by an earlier process: the same attempt once more, unless it is too late."""
        if why := self._expired(job.order):
            job.attempt = self._intents.note(job.order, attempt, DispatchOutcome.EXPIRED, error=why)
            self._count(job.attempt)
            return
        job.attempt = self._intents.intend_again(job.order, attempt)
        job.is_uncalled = True

    def _recover(self, job: Job, attempt: Attempt) -> None:
        """An attempt that another process left without an outcome: it may have been called, or not."""
        job.answer = self._unanswered(job.order, "the dispatcher ended before it knew what became of it")
        job.is_told = True

    def _try_again(self, job: Job, attempt: Attempt) -> None:
        """No answer from an executor that is idempotent: another attempt under the same key, as long as that makes sense."""
        if not attempt.is_on_tape:
            self._tell(attempt)
            job.attempt = msgspec.structs.replace(attempt, is_on_tape=True)
            raise ExecutorBusy(f"{self._executor.name} gave no answer: {attempt.error}")
        expired = self._expired(job.order)
        if self._executor.is_idempotent and attempt.attempt < MAX_ATTEMPTS and not expired:
            job.attempt, job.is_uncalled = self._intents.intend(
                job.order, attempt=attempt.attempt + 1, executor=self._executor.name, at=self._now()
            )
            job.is_told = False
            return
        why = f"{attempt.error or 'no answer'}; {expired or f'{attempt.attempt} attempts'}"
        answer = self._looked_up(job.order, why)
        job.attempt = self._intents.note(
            job.order, attempt, answer.outcome, external_id=answer.external_id, error=answer.error
        )
        self._count(job.attempt)

    def _resume(self, job: Job, attempt: Attempt) -> None:
        if attempt.outcome is DispatchOutcome.ACKED and isinstance(self._executor, Following):
            self._executor.resume(job.order)

    def _expired(self, order: Order) -> str | None:
        """Why it may not be sent any more; None while it may."""
        until = order.trade.valid_until
        if until is None or (now_us := self._clock(order)) is None or now_us < times.from_datetime(until):
            return None
        return f"valid until {until.isoformat()}, and it is {times.to_text(now_us)}"

    def _tell(self, attempt: Attempt) -> None:
        """Put an attempt's state on the tape, and wait until Kafka has it. Raises EffectsRefused."""
        self._put_on_tape(event_of(attempt))

    def _count(self, attempt: Attempt) -> None:
        assert attempt.outcome is not None
        self.counts[attempt.outcome.value.lower()] += 1
        if attempt.outcome is DispatchOutcome.IN_DOUBT:
            logger.error(
                "IN DOUBT: trade %s leg %d may have reached %s or not (%s); look there, then: tradetape dispatch resolve %s %d --as …",
                attempt.trade_id, attempt.leg_index, attempt.executor, attempt.error, attempt.trade_id, attempt.leg_index,
                extra={"action": "in_doubt"},
            )  # fmt: skip

    def _now(self) -> datetime:
        return times.to_datetime(self._now_us())


def event_of(attempt: Attempt) -> TradeDispatch:
    """What the tape says of an attempt: the same event however often it is told."""
    return TradeDispatch(
        venue=attempt.venue, symbol=attempt.symbol, event_time=attempt.intended_at, run_mode=attempt.run_mode,
        correlation_id=attempt.correlation_id, causation_id=attempt.trade_id, trade_id=attempt.trade_id,
        leg_index=attempt.leg_index, attempt=attempt.attempt, outcome=attempt.outcome or DispatchOutcome.INTENDED,
        executor=attempt.executor, external_id=attempt.external_id, error=attempt.error if attempt.outcome else None,
        tags={WHY: attempt.resolved_why} if attempt.resolved_why else {},
    )  # fmt: skip


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__
