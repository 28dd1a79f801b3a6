"""A server's clock beside ours. Kafka tells nobody its clock, so this is about Redis and PostgreSQL."""

from __future__ import annotations

from collections.abc import Callable

from tradetape.console.doctor.finding import Finding, State
from tradetape.schemas.stamping import wall_clock_us

WARN_S = 1.0
FAIL_S = 30.0
"""State expires by event time on Redis' clock: half a minute is half of a 1-minute bar."""
_SECOND_US = 1_000_000


def compare(subject: str, ask_us: Callable[[], int], *, clock_us: Callable[[], int] = wall_clock_us) -> Finding:
    """How far a server's clock is from ours. The time of the question itself is not held against it."""
    before = clock_us()
    theirs = ask_us()
    after = clock_us()
    off_s = max(before - theirs, theirs - after, 0) / _SECOND_US
    if off_s < WARN_S:
        return Finding(subject, State.OK, f"within {WARN_S:g} s of ours")
    way = "behind" if theirs < before else "ahead of"
    state = State.WARN if off_s < FAIL_S else State.FAIL
    return Finding(subject, state, f"{off_s:.1f} s {way} ours", "on both machines: sudo timedatectl set-ntp true")
