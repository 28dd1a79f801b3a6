"""`tradetape work dispatch` as a process that dies of kill -9 at a step of its choice: `dispatch_process.py STEP KEY WORDS…`.

STEP is "before" or "after" and a seam of SEAMS, such as "after call"; KEY is the idempotency key of the order at which it
dies, under any other the worker lives on. With "stopped" in front, such as "stopped before call", it sends itself SIGSTOP
instead, and goes on from there when it is woken. The worker is the installed one: only its seams are wrapped.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from typing import Any

from tradetape.console.cli import main
from tradetape.sinks.dispatch.intents import Intents
from tradetape.sinks.dispatch.telling import Telling
from tradetape.sinks.dispatch.webhook import WebhookExecutor

SEAMS = ("intent", "intent on tape", "call", "outcome", "outcome on tape", "offset")
STEPS = [f"{when} {seam}" for seam in SEAMS for when in ("before", "after")]
"""Every moment at which a dispatcher may die, in their order."""
STOPPED = "stopped "


def _named(seam: str, arguments: tuple[Any, ...], current: dict[str, str]) -> list[str | None]:
    """The keys of the orders that a call of a seam is about."""
    if seam in ("intent", "call", "outcome"):
        order = arguments[1]
        current[str(order.trade.trade_id)] = order.key
        return [str(order.key)]
    if seam == "offset":
        # Only when the order itself is settled.
        return [current.get(one.trade_id) for one in arguments[2]]
    event = arguments[1]
    is_intent = event.outcome is not None and event.outcome.value == "INTENDED"
    return [current.get(event.trade_id)] if is_intent == (seam == "intent on tape") else []


def wrap(owner: type, method: str, seam: str, step: str, key: str, current: dict[str, str]) -> None:
    """Die or stop before or after this call, where it is the step and about the order."""
    original: Callable[..., Any] = getattr(owner, method)
    number = signal.SIGSTOP if step.startswith(STOPPED) else signal.SIGKILL
    step = step.removeprefix(STOPPED)

    def wrapped(*arguments: Any, **named: Any) -> Any:
        is_it = step.endswith(f" {seam}") and key in _named(seam, arguments, current)
        _named(seam, arguments, current)
        if is_it and step.startswith("before"):
            os.kill(os.getpid(), number)
        found = original(*arguments, **named)
        if is_it and step.startswith("after"):
            os.kill(os.getpid(), number)
        return found

    setattr(owner, method, wrapped)


if __name__ == "__main__":
    step, key, *words = sys.argv[1:]
    known: dict[str, str] = {}
    wrap(Intents, "intend", "intent", step, key, known)
    wrap(Telling, "tell", "intent on tape", step, key, known)
    wrap(WebhookExecutor, "submit", "call", step, key, known)
    wrap(Intents, "note", "outcome", step, key, known)
    wrap(Telling, "tell", "outcome on tape", step, key, known)
    wrap(Intents, "settle", "offset", step, key, known)
    sys.exit(main(["work", "dispatch", *words]))
