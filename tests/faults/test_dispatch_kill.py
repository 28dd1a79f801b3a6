"""`kill -9` of the real dispatcher at each of its steps: no order is sent twice that may not be, and none is forgotten (I4)."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from dispatch_process import STEPS
from dispatch_rig import DispatchRig, OrderServer, trade
from streams_rig import WorkerProcess
from tradetape.schemas import Trade, TradeDispatch
from waiting import eventually

PROCESS = str(Path(__file__).parents[1] / "tooling" / "dispatch_process.py")
NOWHERE = ("nowhere", "")


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> DispatchRig:
    return DispatchRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OrderServer]:
    made = OrderServer(tmp_path)
    yield made
    made.close()


class Dispatchers:
    """Starts dispatchers one after the other, each in a consumer group of its own, so that it has the partitions at once."""

    def __init__(self, rig: DispatchRig, server: OrderServer, folder: Path, *options: str) -> None:
        self._rig = rig
        self._log = folder / "dispatch.log"
        self._options = ["--executor", "webhook", "--webhook-url", server.url, *options]
        self._count = 0

    def started(self, step: str, key: str) -> WorkerProcess:
        self._count += 1
        group = f"{self._rig.catalogue.prefix}{self._count}"
        words = [PROCESS, step, key, "--group", group, *self._options]
        return WorkerProcess(words, environment=self._rig.worker_environment(), log=self._log)

    def die_at(self, step: str, one: Trade) -> None:
        """Run one until it has killed itself at a step of this trade's order."""
        with self.started(step, f"{one.idempotency_key}:0") as process:
            eventually(f"it dies {step}", lambda: process.has_ended)
            assert process.stop() == -9, process.log.read_text()[-3000:]

    def _claims(self) -> int:
        """How often partitions were taken."""
        return int(self._rig.rows("SELECT coalesce(sum(epoch), 0) AS n FROM tradetape.sink_offsets")[0]["n"])

    def finish(self) -> None:
        """Run one until all trades are behind it, and end it in order."""
        ends, claims = self._rig.ends(self._rig.topic(Trade)), self._claims()
        with self.started(*NOWHERE) as process:
            process.until("it has its partitions", lambda: self._claims() > claims)
            process.until("all is dispatched", lambda: self._rig.has_come_to(ends))
            assert process.stop() == 0


def killed_at(steps: list[str], rig: DispatchRig, dispatchers: Dispatchers) -> dict[str, Trade]:
    """The trade at each step of which a dispatcher died; the last dispatcher of all lived on."""
    trades = {}
    for number, step in enumerate(steps):
        (trades[step],) = rig.emit(trade(number, symbol=f"COIN{number}USDT"))
        dispatchers.die_at(step, trades[step])
    dispatchers.finish()
    return trades


EXPECTED = {
    "before intent": ["INTENDED", "ACKED"],
    "after intent": ["IN_DOUBT"],
    "before intent on tape": ["IN_DOUBT"],
    "after intent on tape": ["INTENDED", "IN_DOUBT"],
    "before call": ["INTENDED", "IN_DOUBT"],
    "after call": ["INTENDED", "IN_DOUBT"],
    "before outcome": ["INTENDED", "IN_DOUBT"],
    "after outcome": ["INTENDED", "ACKED"],
    "before outcome on tape": ["INTENDED", "ACKED"],
    "after outcome on tape": ["INTENDED", "ACKED"],
    "before offset": ["INTENDED", "ACKED"],
    "after offset": ["INTENDED", "ACKED"],
}
"""What the tape says where repeats are not told apart, by the step at which the first dispatcher died."""


def judge_plain(steps: list[str], rig: DispatchRig, server: OrderServer, dispatchers: Dispatchers) -> None:
    trades = killed_at(steps, rig, dispatchers)
    assert {step: rig.outcomes(one.trade_id) for step, one in trades.items()} == {s: EXPECTED[s] for s in steps}
    posts = server.posts()
    assert len(posts) == len(set(posts)), "an order was sent twice"
    acked = {step for step in steps if EXPECTED[step][-1] == "ACKED"}
    assert {f"{trades[step].idempotency_key}:0" for step in acked} <= set(posts), "an order was never sent"


def judge_idempotent(steps: list[str], rig: DispatchRig, server: OrderServer, dispatchers: Dispatchers) -> None:
    server.plan({"is_idempotent": True})
    trades = killed_at(steps, rig, dispatchers)
    assert {rig.outcomes(one.trade_id)[-1] for one in trades.values()} == {"ACKED"}
    assert server.accepted() == {f"{one.idempotency_key}:0": 1 for one in trades.values()}
    attempts = {(one["trade_id"], one["attempt"], one["outcome"]) for one in rig.on_tape(TradeDispatch)}
    assert len(attempts) == len(rig.on_tape(TradeDispatch))


def test_an_order_that_the_far_side_took_before_its_dispatcher_was_killed_is_not_sent_again(
    rig: DispatchRig, server: OrderServer, tmp_path: Path
) -> None:
    judge_plain(["after call"], rig, server, Dispatchers(rig, server, tmp_path))


@pytest.mark.long
def test_an_executor_that_cannot_tell_repeats_is_called_once_at_most_whatever_step_kills_its_dispatcher(
    rig: DispatchRig, server: OrderServer, tmp_path: Path
) -> None:
    # The order that was not begun comes last: the next dispatcher may die while it is at it, and would leave it in doubt.
    judge_plain([*STEPS[1:], STEPS[0]], rig, server, Dispatchers(rig, server, tmp_path))


@pytest.mark.long
def test_an_executor_that_tells_repeats_takes_each_order_once_whatever_step_kills_its_dispatcher(
    rig: DispatchRig, server: OrderServer, tmp_path: Path
) -> None:
    judge_idempotent(STEPS, rig, server, Dispatchers(rig, server, tmp_path, "--webhook-idempotent"))


@pytest.mark.long
def test_a_paused_dispatcher_that_wakes_up_after_another_took_over_sends_nothing(
    rig: DispatchRig, server: OrderServer, tmp_path: Path
) -> None:
    """SIGSTOP, as a paused machine is, while it has nothing under way."""
    dispatchers = Dispatchers(rig, server, tmp_path)
    rig.emit(trade(0))
    with dispatchers.started(*NOWHERE) as stale:
        stale.until("the first order is sent", lambda: rig.has_come_to(rig.ends(rig.topic(Trade))))
        stale.signal("STOP")
        rig.emit(trade(1), source="second")
        dispatchers.finish()
        stale.signal("CONT")
        eventually("the stale one ends", lambda: stale.has_ended)
        assert "taken over" in stale.log.read_text()
    assert sorted(server.posts()) == ["key-BTCUSDT-0:0", "key-BTCUSDT-1:0"]


def stopped_before_its_call(rig: DispatchRig, dispatchers: Dispatchers) -> Trade:
    """The trade whose dispatcher was stopped between intent and call, and woken after another had taken over from it."""
    one: Trade = rig.emit(trade(0))[0]
    with dispatchers.started("stopped before call", f"{one.idempotency_key}:0") as stale:
        stale.until("it has stopped", lambda: psutil.Process(stale.pid).status() == psutil.STATUS_STOPPED)
        dispatchers.finish()
        stale.signal("CONT")
        eventually("the stale one ends", lambda: stale.has_ended)
        assert "taken over" in stale.log.read_text()
    return one


@pytest.mark.long
def test_an_order_whose_dispatcher_stopped_between_intent_and_call_is_in_doubt_and_sent_once_when_it_wakes_up(
    rig: DispatchRig, server: OrderServer, tmp_path: Path
) -> None:
    """Nobody can know whether it will: that is what the doubt is about."""
    one = stopped_before_its_call(rig, Dispatchers(rig, server, tmp_path))
    assert rig.outcomes(one.trade_id) == ["INTENDED", "IN_DOUBT"]
    assert server.posts() == [f"{one.idempotency_key}:0"]


@pytest.mark.long
def test_an_order_whose_dispatcher_stopped_between_intent_and_call_is_taken_once_where_repeats_are_told_apart(
    rig: DispatchRig, server: OrderServer, tmp_path: Path
) -> None:
    server.plan({"is_idempotent": True})
    one = stopped_before_its_call(rig, Dispatchers(rig, server, tmp_path, "--webhook-idempotent"))
    assert rig.outcomes(one.trade_id) == ["INTENDED", "TIMEOUT", "INTENDED", "ACKED"]
    assert len(server.posts()) == 2
    assert server.accepted() == {f"{one.idempotency_key}:0": 1}
