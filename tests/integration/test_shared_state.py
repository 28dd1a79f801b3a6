"""What processes of trading code share: no call too many, no second holder, nothing that never expires (I2)."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis as redis_client

import shared_state_process
from shared_state_process import CALLS, TURN
from streams_rig import WorkerProcess
from tradetape.streams.errors import (
    DeclarationRefused,
    LimitReached,
    LockBusy,
    LockLost,
    NotDeclared,
    StateUnavailable,
)  # fmt: skip
from tradetape.streams.state import Counter, Flag, Lock, RateLimit, SharedState
from tradetape.streams.state.connection import connect
from tradetape.streams.state.keys import Keys
from waiting import eventually

PROCESSES = 8
SECOND = timedelta(seconds=1)
ORDERS = RateLimit("orders", calls=5, window=30 * SECOND)
BRIEF = RateLimit("brief", calls=2, window=timedelta(milliseconds=120), start_within=timedelta(milliseconds=60))
BOOK = Lock("book", expires_after=timedelta(milliseconds=200))
PAUSE = Flag("pause", expires_after=60 * SECOND)
BLINK = Flag("blink", expires_after=timedelta(milliseconds=60))
RETRIES = Counter("retries", expires_after=3_600 * SECOND)
TICK = Counter("tick", expires_after=timedelta(milliseconds=60))
ALL = (ORDERS, BRIEF, BOOK, PAUSE, BLINK, RETRIES, TICK)


@pytest.fixture
def shared(redis_url: str) -> Iterator[SharedState]:
    with SharedState(connect(redis_url), ALL, prefix="t") as made:
        yield made


@pytest.fixture
def client(redis_url: str) -> Iterator[Any]:
    with redis_client.Redis.from_url(redis_url, decode_responses=True) as made:
        yield made


class Line(NamedTuple):
    """What a process wrote down."""

    what: str
    process: int
    fence: int
    at: float


def lines(ledger: Path) -> list[Line]:
    """The whole lines so far."""
    text = ledger.read_text(encoding="utf-8") if ledger.exists() else ""
    split = [one.split() for one in text.splitlines(keepends=True) if one.endswith("\n")]
    return [Line(what, int(process), int(fence), float(at)) for what, process, fence, at in split]


def start(what: str, redis_url: str, folder: Path, *, seconds: float, number: int = 0) -> WorkerProcess:
    command = [shared_state_process.__file__, redis_url, str(folder / "ledger"), what, str(seconds)]
    return WorkerProcess(command, environment={}, log=folder / f"{number}.log")


def test_eight_processes_never_make_more_calls_in_any_window_than_the_limit(redis_url: str, tmp_path: Path) -> None:
    with ExitStack() as processes:
        running = [
            processes.enter_context(start("limit", redis_url, tmp_path, seconds=1.5, number=number))
            for number in range(PROCESSES)
        ]
        eventually(
            "all have begun", lambda: sum(one.what == "begin" for one in lines(tmp_path / "ledger")) == PROCESSES
        )
        running[0].kill()
        eventually("they end", lambda: all(one.has_ended for one in running))
    calls = sorted(one.at for one in lines(tmp_path / "ledger") if one.what == "call")
    window_s, most = CALLS.window.total_seconds(), CALLS.calls
    too_close = [later - first for first, later in zip(calls, calls[most:], strict=False) if later - first < window_s]
    assert too_close == []
    # While all of them ask, nearly all that may be granted is.
    begun = max(one.at for one in lines(tmp_path / "ledger") if one.what == "begin")
    spanned_s = (CALLS.window + CALLS.start_within).total_seconds()
    possible = (calls[-1] - begun) / spanned_s * most
    assert sum(at > begun for at in calls) >= 0.5 * possible


@pytest.mark.long
def test_eight_processes_hold_a_lock_one_at_a_time_and_a_killed_holder_until_it_expires(
    redis_url: str, tmp_path: Path
) -> None:
    ledger, killed = tmp_path / "ledger", set()
    with ExitStack() as processes:
        running = [
            processes.enter_context(start("lock", redis_url, tmp_path, seconds=60, number=number))
            for number in range(PROCESSES)
        ]
        eventually("all have begun", lambda: sum(one.what == "begin" for one in lines(ledger)) == PROCESSES)
        for victim in running[:2]:
            before = len(lines(ledger))
            eventually("it has the lock", lambda before=before, one=victim: holds(ledger, before, one))  # type: ignore[misc]
            victim.kill()
            killed.add(victim.pid)
            after = len(lines(ledger))
            eventually("the others go on", lambda after=after: len(lines(ledger)) > after + 60)  # type: ignore[misc]
    check_turns(lines(ledger), killed)


def holds(ledger: Path, since: int, process: WorkerProcess) -> bool:
    """Whether it holds the lock just now, as far as its ledger says."""
    own = [one for one in lines(ledger)[since:] if one.process == process.pid]
    return bool(own) and own[-1].what == "enter"


def check_turns(found: list[Line], killed: set[int]) -> None:
    """Nobody entered before the last holder had left or, if it was killed, before its lock had expired."""
    asked = {one.fence: one for one in found if one.what == "asked"}
    entered = sorted((one for one in found if one.what == "enter"), key=lambda one: one.at)
    left = {one.fence: one.at for one in found if one.what == "leave"}
    assert len(entered) > 100
    assert [one.fence for one in entered] == sorted({one.fence for one in entered}), "a later holder's fence is greater"
    died_holding = 0
    for holder, following in pairwise(entered):
        if holder.fence in left:
            assert left[holder.fence] <= following.at
        else:
            died_holding += 1
            assert holder.process in killed
            assert following.at - asked[holder.fence].at >= TURN.expires_after.total_seconds()
    assert died_holding <= len(killed)


def test_a_holder_that_was_paused_too_long_learns_that_it_lost_the_lock_and_its_fence_is_the_smaller_one(
    shared: SharedState,
) -> None:
    late = shared.lock(BOOK, "main")
    was_held = late.is_held
    with shared.lock(BOOK, "main", timeout_s=5.0) as next_one:
        assert (was_held, late.is_held) == (True, False)
        assert late.fence < next_one.fence
        with pytest.raises(LockLost):
            late.extend()
        with pytest.raises(LockLost):
            late.release()
        assert next_one.is_held, "the late holder released its own lock and no other"


def lose(shared: SharedState, *, error: Exception | None = None) -> None:
    """Hold a lock until somebody else has it; then raise, if there is something to raise."""
    with shared.lock(BOOK, timeout_s=5.0) as held:
        eventually("it expires", lambda: not held.is_held)
        shared.lock(BOOK, timeout_s=5.0)
        if error:
            raise error


def test_leaving_the_block_of_a_lost_lock_raises_but_never_hides_the_error_of_its_work(shared: SharedState) -> None:
    with pytest.raises(LockLost, match="somebody else may have taken it"):
        lose(shared)
    with pytest.raises(KeyError):
        lose(shared, error=KeyError())


def test_a_lock_that_is_extended_outlives_its_first_expiry(shared: SharedState) -> None:
    began = time.monotonic()
    with shared.lock(BOOK, "main") as held:
        while time.monotonic() - began < 3 * BOOK.expires_after.total_seconds():
            held.extend()
            with pytest.raises(LockBusy, match="book was not free"):
                shared.lock(BOOK, "main", timeout_s=0.05)
    with shared.lock(BOOK, "main"):
        """It is free at once."""


def test_fences_grow_also_when_redis_was_emptied_or_its_clock_is_behind_the_last_one(
    shared: SharedState, client: Any
) -> None:
    fences = []
    for number in range(4):
        with shared.lock(BOOK) as held:
            fences.append(held.fence)
        if number == 1:
            client.flushall()
        if number == 2:
            fences.append(held.fence + 10**12)
            client.set(Keys("t").shared("fence", "book"), str(fences[-1]))
    assert fences == sorted(set(fences))


def test_a_lost_answer_does_not_lock_its_own_holder_out(shared: SharedState, client: Any) -> None:
    keys = [Keys("t").shared(kind, "book") for kind in ("lock", "fence")]
    script = shared._acquire
    first = script(keys=keys, args=["token", 60_000, 60_000])
    assert script(keys=keys, args=["token", 60_000, 60_000]) == first
    assert script(keys=keys, args=["other", 60_000, 60_000]) is None
    assert client.pttl(keys[0]) > 0


def test_a_limit_is_waited_for_or_says_how_long_to_wait_and_each_subject_has_its_own(
    shared: SharedState, client: Any
) -> None:
    for _ in range(2):
        assert shared.permit(ORDERS, "a", weight=2).is_fresh
    with pytest.raises(LimitReached, match="orders is reached") as reached:
        shared.permit(ORDERS, "a", weight=2)
    assert 25 < reached.value.retry_after_s <= 30.1
    assert shared.permit(ORDERS, "a").is_fresh
    assert shared.permit(ORDERS, "b", weight=5).is_fresh

    began = time.monotonic()
    for _ in range(5):
        shared.permit(BRIEF, timeout_s=5.0)
    # Two at once, two after a window and the time in which a call may begin, one after another such.
    assert time.monotonic() - began >= 2 * 0.18
    assert client.llen(Keys("t").shared("limit", "brief")) <= BRIEF.calls


def test_a_permit_goes_stale_when_its_call_is_put_off(shared: SharedState) -> None:
    permit = shared.permit(BRIEF)
    eventually("it goes stale", lambda: not permit.is_fresh)
    assert time.monotonic() - permit.asked_at >= BRIEF.start_within.total_seconds()


def test_a_clock_that_is_set_back_grants_nothing_more(shared: SharedState, client: Any) -> None:
    key = Keys("t").shared("limit", "orders")
    ahead = str(int(time.time() * 1_000_000) + 3_600_000_000)
    client.rpush(key, *[ahead] * 4)
    shared.permit(ORDERS)
    with pytest.raises(LimitReached):
        shared.permit(ORDERS)
    assert client.lrange(key, 0, -1) == [ahead] * 5


def test_a_flag_is_up_until_it_is_lowered_or_expires(shared: SharedState) -> None:
    assert shared.flag(PAUSE, "binance:BTCUSDT") is None
    assert shared.raise_flag(PAUSE, "binance:BTCUSDT", note="maintenance")
    assert not shared.raise_flag(PAUSE, "binance:BTCUSDT", note="longer maintenance")
    up, down = shared.flags(PAUSE, ["binance:BTCUSDT", "binance:ETHUSDT"])
    assert down is None
    assert up is not None
    assert up.note == "longer maintenance"
    assert timedelta(0) < up.expires_in <= PAUSE.expires_after
    assert shared.lower_flag(PAUSE, "binance:BTCUSDT")
    assert not shared.lower_flag(PAUSE, "binance:BTCUSDT")
    assert shared.flag(PAUSE, "binance:BTCUSDT") is None
    shared.raise_flag(BLINK)
    eventually("it expires", lambda: shared.flag(BLINK) is None)


def test_a_counter_begins_again_after_its_expiry_however_often_it_is_counted_up(shared: SharedState) -> None:
    assert shared.counted(RETRIES, "a") == 0
    assert [shared.count(RETRIES, "a"), shared.count(RETRIES, "a", by=3), shared.count(RETRIES, "b")] == [1, 4, 1]
    assert shared.counted(RETRIES, "a") == 4
    seen = [shared.count(TICK)]
    eventually("it begins again", lambda: bool(seen.append(shared.count(TICK)) or seen[-1] == 1))  # type: ignore[func-returns-value]


def test_every_key_is_declared_and_expires(shared: SharedState, client: Any) -> None:
    shared.permit(ORDERS, "venue:binance")
    shared.raise_flag(PAUSE)
    shared.count(RETRIES, "x/y.z")
    held = shared.lock(BOOK, "main")
    keys = list(client.scan_iter())
    kinds = {}
    for key in keys:
        assert client.pttl(key) > 0, key
        pattern = Keys("t").pattern_of(key)
        assert pattern is not None, key
        assert (pattern.owner, pattern.type) == ("trading code", client.type(key))
        kinds[pattern.kind] = key
    assert kinds.keys() == {"limit", "flag", "count", "lock", "fence"}
    assert kinds["limit"] == "t:1:limit:{orders:venue:binance}"
    held.release()


@pytest.mark.parametrize(
    "use",
    [
        lambda shared: shared.permit(RateLimit("other", calls=5, window=SECOND)),
        lambda shared: shared.permit(RateLimit("orders", calls=50, window=30 * SECOND)),
        lambda shared: shared.lock(Lock("orders", expires_after=SECOND)),
        lambda shared: shared.raise_flag(Flag("book", expires_after=SECOND)),
        lambda shared: shared.count(Counter("pause", expires_after=SECOND)),
    ],
)
def test_what_was_not_declared_is_refused(shared: SharedState, client: Any, use: Callable[[SharedState], Any]) -> None:
    with pytest.raises(NotDeclared, match="book, brief, orders"):
        use(shared)
    assert client.dbsize() == 0


@pytest.mark.parametrize("subject", ["a b", "{a}", "a*", "x" * 129, "é"])
def test_a_subject_that_would_break_its_key_is_refused(shared: SharedState, client: Any, subject: str) -> None:
    with pytest.raises(DeclarationRefused, match="cannot be shared under"):
        shared.raise_flag(PAUSE, subject)
    assert client.dbsize() == 0


def test_a_redis_that_is_away_is_said_to_be() -> None:
    with SharedState(connect("redis://127.0.0.1:1/0"), ALL) as nobody:
        for use in (
            lambda: nobody.permit(ORDERS), lambda: nobody.lock(BOOK), lambda: nobody.raise_flag(PAUSE),
            lambda: nobody.flag(PAUSE), lambda: nobody.count(RETRIES), lambda: nobody.counted(RETRIES),
        ):  # fmt: skip
            with pytest.raises(StateUnavailable):
                use()
