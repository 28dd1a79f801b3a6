"""A process of trading code that shares a limit and a lock with others, and writes down what it did outside of Redis.

    shared_state_process.py REDIS_URL LEDGER limit|lock SECONDS

The ledger's lines are appended whole, each with the time of CLOCK_MONOTONIC, which all processes of a machine share.
"""

from __future__ import annotations

import os
import sys
import time
from datetime import timedelta

from tradetape.streams.errors import LimitReached, LockBusy, LockLost
from tradetape.streams.state import Lock, RateLimit, SharedState
from tradetape.streams.state.connection import connect

CALLS = RateLimit("calls", calls=10, window=timedelta(milliseconds=300), start_within=timedelta(milliseconds=100))
TURN = Lock("turn", expires_after=timedelta(seconds=1))
WORK_S = 0.004


class Ledger:
    """One line for each thing done."""

    def __init__(self, path: str) -> None:
        self._file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT)

    def write(self, what: str, fence: int, at: float) -> None:
        os.write(self._file, f"{what} {os.getpid()} {fence} {at!r}\n".encode())


def call(shared: SharedState, ledger: Ledger) -> None:
    """Make one call as soon as the limit allows."""
    try:
        permit = shared.permit(CALLS, "venue", timeout_s=1.0)
    except LimitReached:
        return
    at = time.monotonic()
    if permit.is_fresh:
        ledger.write("call", 0, at)


def take_turn(shared: SharedState, ledger: Ledger) -> None:
    """Do a little under the lock."""
    asked_at = time.monotonic()
    try:
        with shared.lock(TURN, "account", timeout_s=5.0) as held:
            ledger.write("asked", held.fence, asked_at)
            ledger.write("enter", held.fence, time.monotonic())
            time.sleep(WORK_S)
            ledger.write("leave", held.fence, time.monotonic())
    except (LockBusy, LockLost) as error:
        ledger.write(type(error).__name__, 0, time.monotonic())


def main() -> None:
    """Work until the time is over."""
    url, path, what, seconds = sys.argv[1:]
    ledger, until = Ledger(path), time.monotonic() + float(seconds)
    with SharedState(connect(url), [CALLS, TURN], prefix="t") as shared:
        step = {"limit": call, "lock": take_turn}[what]
        ledger.write("begin", 0, time.monotonic())
        while time.monotonic() < until:
            step(shared, ledger)


if __name__ == "__main__":
    main()
