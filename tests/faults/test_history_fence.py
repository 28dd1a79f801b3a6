"""Only the holder of a partition's newest epoch writes, whatever is paused, cut, doubled or turned back (I6)."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator, Mapping
from datetime import timedelta
from typing import Any
from urllib.parse import urlsplit

import psycopg
import pytest

from history_rig import START, HistoryRig
from tcp_proxy import TcpProxy
from tradetape.console.local.stack import LocalStack
from tradetape.sinks.errors import DatabaseUnavailable, Fenced, WentBack
from tradetape.sinks.history import connection as guarded
from tradetape.sinks.history.sink import HistorySink
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record
from waiting import eventually


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def batch_of(rig: HistoryRig, numbers: range) -> list[Record]:
    """New events, as the engine would hand them to a sink."""
    known = {(one.partition, one.offset) for one in rig.tape()}
    rig.emit_conditions(numbers)
    return [one for one in rig.tape() if (one.partition, one.offset) not in known]


@pytest.fixture
def sinks(rig: HistoryRig) -> Iterator[Callable[..., HistorySink]]:
    """Makes sinks and closes them."""
    made: list[HistorySink] = []

    def make(**options: Any) -> HistorySink:
        made.append(rig.sink(**options))
        return made[-1]

    yield make
    for one in made:
        one.close()


MakeSink = Callable[..., HistorySink]
Ends = Mapping[Partition, int]


class Pause:
    """Stops a sink next to its fence, the last statement before COMMIT, until it is told to go on."""

    def __init__(self, sink: HistorySink, *, is_behind_fence: bool) -> None:
        self.reached, self.go_on = threading.Event(), threading.Event()
        self.failure: BaseException | None = None
        self._sink, self._is_behind_fence = sink, is_behind_fence
        self._fence = sink._offsets.advance
        sink._offsets.advance = self._advance  # type: ignore[method-assign]

    def _advance(self, connection: psycopg.Connection, ends: Ends) -> None:
        if not self._is_behind_fence:
            self._wait()
        self._fence(connection, ends)
        if self._is_behind_fence:
            self._wait()

    def _wait(self) -> None:
        if not self.reached.is_set():
            self.reached.set()
            assert self.go_on.wait(60)

    def process(self, batch: list[Record]) -> threading.Thread:
        """Let the sink process a batch in a thread, and come back when it stands still."""
        thread = threading.Thread(target=self._run, args=(batch,))
        thread.start()
        assert self.reached.wait(30)
        return thread

    def _run(self, batch: list[Record]) -> None:
        try:
            self._sink.process(batch)
        except BaseException as error:  # noqa: BLE001  # kept for the test, which looks at it
            self.failure = error

    def wake(self, thread: threading.Thread) -> None:
        """Go on to the end."""
        self.go_on.set()
        thread.join(60)
        assert not thread.is_alive()


@pytest.mark.parametrize("is_behind_fence", [False, True], ids=["before the fence", "between fence and COMMIT"])
def test_a_stale_sink_that_wakes_up_after_another_took_over_writes_nothing(
    rig: HistoryRig, sinks: MakeSink, is_behind_fence: bool
) -> None:
    batch = batch_of(rig, range(40))
    stale, owner = sinks(), sinks()
    stale.assigned(rig.conditions_partitions())
    pause = Pause(stale, is_behind_fence=is_behind_fence)
    sleeping = pause.process(batch)

    starts = owner.assigned(rig.conditions_partitions())
    owner.process(batch[:10])
    pause.wake(sleeping)

    assert set(starts.values()) == {None}, "nothing of the stale sink may count as stored"
    assert isinstance(pause.failure, (DatabaseUnavailable, Fenced))
    with pytest.raises(Fenced):
        stale.process(batch)
    assert len(rig.places_in_history()) == 10
    owner.process(batch)
    assert rig.assert_every_event_once() == 40


def test_the_fence_holds_where_the_stale_session_cannot_be_ended(
    rig: HistoryRig, sinks: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new owner may lack the right to end sessions: then epoch and next_offset alone keep the stale sink out."""
    batch = batch_of(rig, range(40))
    stale, owner = sinks(), sinks()
    stale.assigned(rig.conditions_partitions())
    monkeypatch.setattr(owner._offsets, "_end", lambda *_: None)
    owner.assigned(rig.conditions_partitions())

    with pytest.raises(Fenced):
        stale.process(batch)
    assert rig.places_in_history() == {}

    owner.process(batch)
    with pytest.raises(Fenced):
        stale.process(batch)
    assert rig.assert_every_event_once() == 40


def test_two_sinks_that_take_a_partition_from_each_other_store_each_event_once(
    rig: HistoryRig, sinks: MakeSink
) -> None:
    batch = batch_of(rig, range(120))
    pair = [sinks(), sinks()]
    for turn in range(8):
        owner = pair[turn % 2]
        owner.forget_session()
        owner.released(rig.conditions_partitions())
        owner.assigned(rig.conditions_partitions())
        owner.process(batch[turn * 15 : (turn + 1) * 15])
        if turn:
            with pytest.raises((Fenced, DatabaseUnavailable)):
                pair[(turn + 1) % 2].process(batch)
    assert rig.assert_every_event_once() == 120


def end_sessions(rig: HistoryRig) -> None:
    """What a fail-over or an operator does to the sink's session."""
    rig.rows(
        "SELECT pg_terminate_backend(pid, 5000) FROM pg_stat_activity "
        "WHERE application_name = 'tradetape-history' AND datname = current_database()"
    )


def processed(sink: HistorySink, batch: list[Record]) -> int:
    """As the engine does it: the same batch again after what passes by itself; how often it had to be tried again."""
    for attempts in range(20):
        try:
            sink.process(batch)
        except DatabaseUnavailable:
            continue
        return attempts
    raise AssertionError("the database did not come back")


def epochs(rig: HistoryRig) -> set[int]:
    return {row["epoch"] for row in rig.rows("SELECT epoch FROM tradetape.sink_offsets")}


def test_a_sink_that_lost_its_session_takes_its_partitions_again_and_goes_on(rig: HistoryRig, sinks: MakeSink) -> None:
    sink = sinks()
    sink.assigned(rig.conditions_partitions())
    sink.process(batch_of(rig, range(20)))
    assert epochs(rig) == {1}
    end_sessions(rig)

    assert processed(sink, batch_of(rig, range(20, 40))) == 1

    assert epochs(rig) == {2}
    assert rig.assert_every_event_once() == 40


def test_a_guard_that_ends_a_paused_session_costs_one_more_try(
    rig: HistoryRig, sinks: MakeSink, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A machine that stood still in the middle of a transaction: the server lets go, and nobody took over."""
    monkeypatch.setitem(guarded.GUARDS, "idle_in_transaction_session_timeout", "100ms")
    batch = batch_of(rig, range(20))
    sink = sinks()
    sink.assigned(rig.conditions_partitions())
    pause = Pause(sink, is_behind_fence=False)
    sleeping = pause.process(batch)
    eventually("the server ends the session", lambda: not sessions(rig))
    pause.wake(sleeping)

    assert isinstance(pause.failure, DatabaseUnavailable)
    sink.process(batch)
    assert rig.assert_every_event_once() == 20


def sessions(rig: HistoryRig) -> list[dict[str, Any]]:
    return rig.rows(
        "SELECT pid FROM pg_stat_activity WHERE application_name = 'tradetape-history' AND datname = current_database()"
    )


def test_a_sink_that_gives_up_some_of_its_partitions_keeps_its_session_for_the_others(
    rig: HistoryRig, sinks: MakeSink
) -> None:
    """A rebalance moves a few partitions; the others must not stand still for it."""
    batch = batch_of(rig, range(80))
    former, following = sinks(), sinks()
    given, kept = rig.conditions_partitions()[:2], rig.conditions_partitions()[2:]
    former.assigned([*given, *kept])
    (before,) = sessions(rig)

    former.released(given)
    following.assigned(given)
    former.process(batch)
    following.process(batch)

    assert before in sessions(rig), "the session of the former owner was ended"
    assert (former.counts["stored"], former.counts["skipped"]) == (
        following.counts["skipped"],
        following.counts["stored"],
    )
    assert rig.assert_every_event_once() == 80


def test_a_sink_that_gave_up_a_partition_too_late_takes_nothing_from_its_new_owner(
    rig: HistoryRig, sinks: MakeSink
) -> None:
    """It had lost it, and another sink has it: that one's name must stay on it, for whoever comes next to end its session."""
    batch = batch_of(rig, range(80))
    former, owner, following = sinks(), sinks(), sinks()
    given, kept = rig.conditions_partitions()[:2], rig.conditions_partitions()[2:]
    former.assigned([*given, *kept])
    owner.assigned(given)
    former.released(given)
    pause = Pause(owner, is_behind_fence=True)
    sleeping = pause.process(batch)

    following.assigned(given)
    pause.wake(sleeping)
    following.process(batch)
    processed(former, batch)

    assert isinstance(pause.failure, DatabaseUnavailable)
    assert rig.assert_every_event_once() == 80


def test_a_sink_that_holds_nothing_any_more_has_no_session(rig: HistoryRig, sinks: MakeSink) -> None:
    """Nobody would know whose it is, to have it look at the tables anew after a migration."""
    sink = sinks()
    sink.assigned(rig.conditions_partitions())
    sink.released(rig.conditions_partitions())
    eventually("its session is gone", lambda: not sessions(rig))
    sink.assigned(rig.conditions_partitions())
    sink.process(batch_of(rig, range(20)))
    assert rig.assert_every_event_once() == 20


@pytest.fixture
def proxy(rig: HistoryRig) -> Iterator[TcpProxy]:
    """Stands between a sink and PostgreSQL."""
    address = urlsplit(rig.dsn)
    assert address.hostname
    assert address.port
    one = TcpProxy(address.hostname, address.port)
    yield one
    one.close()


@pytest.fixture
def through_proxy(rig: HistoryRig, proxy: TcpProxy) -> str:
    """The DSN that leads through the proxy."""
    return rig.dsn.replace(f":{urlsplit(rig.dsn).port}/", f":{proxy.port}/")


@pytest.mark.parametrize("is_delivered", [True, False], ids=["committed", "not committed"])
def test_a_commit_without_an_answer_neither_loses_nor_doubles(
    rig: HistoryRig, sinks: MakeSink, proxy: TcpProxy, through_proxy: str, is_delivered: bool
) -> None:
    letters = MemoryDeadLetters()
    sink = sinks(dsn=through_proxy, dead_letters=letters)
    sink.assigned(rig.conditions_partitions())
    sink.process(batch_of(rig, range(20)))
    batch = batch_of(rig, range(20, 60))
    proxy.cut_at(b"COMMIT", is_delivered=is_delivered)

    with pytest.raises(DatabaseUnavailable):
        sink.process(batch)
    assert proxy.cuts == 1
    eventually("the server has ended the cut session", lambda: not sessions(rig))
    assert len(rig.places_in_history()) == (60 if is_delivered else 20)
    sink.process(batch)
    sink.process(batch_of(rig, range(60, 70)))

    assert rig.assert_every_event_once() == 70
    assert letters.letters == []
    assert (sink.counts["repeated"], sink.counts["skipped"]) == (0, 40 if is_delivered else 0)


@pytest.mark.parametrize("place", range(4))
@pytest.mark.parametrize("what", ["claim", "retake"])
def test_a_cut_while_partitions_are_taken_does_not_fence_the_sink_off_from_itself(
    rig: HistoryRig, sinks: MakeSink, proxy: TcpProxy, through_proxy: str, what: str, place: int
) -> None:
    """The transaction that takes them is undone as a whole, so nothing of it may be remembered."""
    sink = sinks(dsn=through_proxy)
    if what == "retake":
        sink.assigned(rig.conditions_partitions())
        end_sessions(rig)
    batch = batch_of(rig, range(20))
    statement = b"INSERT INTO tradetape.sink_offsets" if what == "claim" else b"SET epoch = epoch + 1"
    proxy.cut_at(statement, is_delivered=place % 2 == 0, spared=place)

    if what == "claim":
        with pytest.raises(DatabaseUnavailable):
            sink.assigned(rig.conditions_partitions())
        sink.assigned(rig.conditions_partitions())
    processed(sink, batch)

    assert proxy.cuts == 1
    assert rig.assert_every_event_once() == 20


def test_a_retake_without_an_answer_does_not_fence_the_sink_off_from_itself(
    rig: HistoryRig, sinks: MakeSink, proxy: TcpProxy, through_proxy: str
) -> None:
    """The epoch was raised and we were not told; that the session was ours says that nobody else did it."""
    sink, other = sinks(dsn=through_proxy), sinks()
    sink.assigned(rig.conditions_partitions())
    end_sessions(rig)
    batch = batch_of(rig, range(20))
    proxy.cut_at(b"COMMIT", is_delivered=True)

    processed(sink, batch[:10])

    assert proxy.cuts == 1
    other.assigned(rig.conditions_partitions())
    with pytest.raises((Fenced, DatabaseUnavailable)):
        sink.process(batch)
    with pytest.raises(Fenced):
        sink.process(batch)
    other.process(batch)
    assert rig.assert_every_event_once() == 20


def turn_back(rig: HistoryRig, seconds: int) -> None:
    """Make the database as it was before the last events: what a restored backup or a lagging standby is."""
    with psycopg.connect(rig.dsn) as connection:
        after = START + timedelta(seconds=seconds)
        gone = 'DELETE FROM tradetape.market_conditions WHERE event_time >= %s RETURNING "partition", "offset"'
        firsts: dict[int, int] = {}
        for partition, offset in connection.execute(gone, [after]).fetchall():
            firsts[partition] = min(offset, firsts.get(partition, offset))
        for partition, offset in firsts.items():
            statement = "UPDATE tradetape.sink_offsets SET next_offset = %s WHERE partition = %s"
            connection.execute(statement, [offset, partition])


@pytest.mark.parametrize("is_reconnected", [True, False], ids=["after a reconnect", "in the same session"])
def test_a_database_that_went_back_in_time_is_noticed_and_filled_again(
    rig: HistoryRig, sinks: MakeSink, is_reconnected: bool
) -> None:
    sink = sinks()
    sink.assigned(rig.conditions_partitions())
    sink.process(batch_of(rig, range(60)))
    turn_back(rig, 40)
    if is_reconnected:
        end_sessions(rig)
    batch = batch_of(rig, range(60, 80))

    with pytest.raises(WentBack if is_reconnected else Fenced):
        processed(sink, batch)
    assert len(rig.places_in_history()) == 40, "nothing may be written on top of a gap"

    sink.close()
    rig.store()
    assert rig.assert_every_event_once() == 80


def test_a_database_that_forgot_a_claim_is_told_from_one_whose_partitions_were_taken(
    rig: HistoryRig, sinks: MakeSink
) -> None:
    """A crash with `synchronous_commit = off` a moment after the claim: its epoch is gone, and nobody took over."""
    sink = sinks()
    sink.assigned(rig.conditions_partitions())
    sink.process(batch_of(rig, range(20)))
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("UPDATE tradetape.sink_offsets SET epoch = epoch - 1, owner_pid = 0")
    end_sessions(rig)
    batch = batch_of(rig, range(20, 40))

    with pytest.raises(WentBack, match="claim 1 was made, the database knows 0"):
        processed(sink, batch)
    sink.close()
    rig.store()
    assert rig.assert_every_event_once() == 40


def test_a_stopped_postgresql_costs_time_and_nothing_else(
    stack: LocalStack, kafka: str, topic_prefix: str, database: str, caplog: pytest.LogCaptureFixture
) -> None:
    """Stopped and started under load: partitions pause, nothing is lost, nothing is a dead letter."""
    rig = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=database)
    server = next(one for one in stack.services if one.name == "postgres")
    letters = MemoryDeadLetters()
    sink = rig.sink(dead_letters=letters)
    with rig.working(sink, max_batch_records=200) as thread:
        rig.emit_conditions(range(2_000))
        eventually("the sink writes", lambda: sink.counts["stored"] > 0)
        for stop in range(1, 3):
            caplog.clear()
            server.down()
            try:
                rig.emit_conditions(range(2_000 * stop, 2_000 * stop + 2_000))
                eventually("the sink waits", lambda: "waiting: PostgreSQL" in caplog.text)
            finally:
                server.up()
        ends = rig.ends()
        eventually("the sink catches up", lambda: rig.has_come_to(ends) or thread.failure is not None)

    assert letters.letters == []
    assert rig.assert_every_event_once() == 6_000
