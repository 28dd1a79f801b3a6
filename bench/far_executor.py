"""An executor that answers after as long as an exchange's bridge takes."""

from __future__ import annotations

import time

from tradetape.sinks.dispatch.executor import Answer, Order

ANSWER_S = 0.25


class FarExecutor:
    """Acknowledges every order."""

    name = "far"
    is_idempotent = False

    def submit(self, order: Order) -> Answer:
        """Wait as for a network."""
        time.sleep(ANSWER_S)
        return Answer(external_id=order.key)
