"""What the history needs is away, full, locked or not what it was: the sink waits or says so, and nothing is lost (I6, I7)."""

from __future__ import annotations

import threading
import time
from collections.abc import Mapping
from contextlib import suppress

import psycopg
import pytest
from confluent_kafka import TopicPartition

from history_rig import HistoryRig
from history_workers import Load
from ledger import Ledger
from tradetape.console import topics
from tradetape.producers.connection import KafkaSettings
from tradetape.sinks.errors import DatabaseUnavailable, Fenced
from tradetape.sinks.history import connection as guarded
from tradetape.sinks.history import sink as history_sink
from tradetape.sinks.history.sink import HistorySink
from tradetape.streams import dead_letters
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.errors import HistoryLost, Terminal
from tradetape.streams.processor import Partition
from waiting import eventually


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def taken(rig: HistoryRig, sink: HistorySink) -> HistorySink:
    """The sink with all partitions of the conditions."""
    sink.assigned(rig.conditions_partitions())
    return sink


class Attempt:
    """One call of `process` in a thread; `failure` is how it ended."""

    def __init__(self, rig: HistoryRig, sink: HistorySink) -> None:
        self.failure: BaseException | None = None
        self._batch = rig.tape()
        self._sink = sink
        self._thread = threading.Thread(target=self._run)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._sink.process(self._batch)
        except BaseException as error:  # noqa: BLE001  kept for the test, which looks at it
            self.failure = error

    def end(self) -> BaseException | None:
        self._thread.join(60)
        assert not self._thread.is_alive()
        return self.failure

    def again(self) -> None:
        """As the engine does after what passes by itself."""
        self._sink.process(self._batch)


def is_waiting_for_a_lock(rig: HistoryRig) -> bool:
    query = "SELECT 1 FROM pg_stat_activity WHERE application_name = 'tradetape-history' AND wait_event_type = 'Lock'"
    return bool(rig.rows(query + " AND datname = current_database()"))


def test_a_deadlock_that_the_sink_is_the_victim_of_is_tried_again_and_nothing_is_a_dead_letter(rig: HistoryRig) -> None:
    letters = MemoryDeadLetters()
    rig.emit_conditions(range(40))
    sink = taken(rig, rig.sink(dead_letters=letters))
    with psycopg.connect(rig.dsn) as other:
        # Whoever looks first is the victim.
        other.execute("SET deadlock_timeout = '60s'")
        other.execute("SELECT 1 FROM tradetape.sink_offsets FOR UPDATE")
        attempt = Attempt(rig, sink)
        eventually("the sink waits at its fence", lambda: is_waiting_for_a_lock(rig))
        other.execute("LOCK TABLE tradetape.market_conditions IN ACCESS EXCLUSIVE MODE")
        failure = attempt.end()
    assert isinstance(failure, DatabaseUnavailable)
    assert "deadlock" in str(failure)
    attempt.again()
    sink.close()
    assert letters.letters == []
    assert rig.assert_every_event_once() == 40


def test_a_table_that_somebody_keeps_locked_is_waited_for_and_nothing_is_a_dead_letter(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(guarded.GUARDS, "lock_timeout", "200ms")
    letters = MemoryDeadLetters()
    rig.emit_conditions(range(40))
    sink = taken(rig, rig.sink(dead_letters=letters))
    with psycopg.connect(rig.dsn) as other:
        other.execute("LOCK TABLE tradetape.market_conditions IN ACCESS EXCLUSIVE MODE")
        attempt = Attempt(rig, sink)
        assert isinstance(attempt.end(), DatabaseUnavailable)
    attempt.again()
    sink.close()
    assert letters.letters == []
    assert rig.assert_every_event_once() == 40


def test_a_server_without_connections_to_give_is_waited_for(rig: HistoryRig, caplog: pytest.LogCaptureFixture) -> None:
    limit = "ALTER ROLE test_tradetape_sink CONNECTION LIMIT {}"
    letters = MemoryDeadLetters()
    with psycopg.connect(rig.dsn, autocommit=True) as owner:
        owner.execute(limit.format(0).encode())
        try:
            with rig.working(rig.sink(dead_letters=letters)) as thread:
                rig.emit_conditions(range(40))
                eventually("the sink waits", lambda: "too many connections for role" in caplog.text)
                owner.execute(limit.format(-1).encode())
                rig.catch_up(thread)
        finally:
            owner.execute(limit.format(-1).encode())
    assert letters.letters == []
    assert rig.assert_every_event_once() == 40


def test_no_offset_moves_past_poison_while_the_topic_of_dead_letters_is_away(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(dead_letters, "ACKNOWLEDGE_TIMEOUT_S", 1.0)
    admin = topics.admin_client(rig.kafka)
    for future in admin.delete_topics([rig.catalogue.dead_letters_topic]).values():
        future.result()
    rig.emit_conditions(range(40))
    rig.put(rig.conditions_topic, [(b"v:COIN0USDT", b"poison")])
    rig.emit_conditions(range(40, 80))
    (poison,) = (one for one in rig.tape() if one.value == b"poison")
    with rig.working(rig.sink(dead_letters=rig.kafka_dead_letters())) as thread:
        eventually("the sink waits", lambda: "does not take dead letters" in caplog.text or thread.failure is not None)
        reached = rig.rows("SELECT next_offset FROM tradetape.sink_offsets WHERE partition = %s", poison.partition)
        assert all((row["next_offset"] or 0) <= poison.offset for row in reached)
        topics.apply(admin, rig.catalogue)
        monkeypatch.setattr(dead_letters, "ACKNOWLEDGE_TIMEOUT_S", 30.0)
        rig.catch_up(thread)
    verdict = rig.verdict()
    assert verdict.is_right, verdict
    assert (verdict.counts["stored"], verdict.counts["refused"]) == (80, 1)


def test_records_that_retention_took_before_they_were_read_end_the_worker_with_a_word(rig: HistoryRig) -> None:
    rig.emit_conditions(range(100))
    rig.store()
    rig.emit_conditions(range(100, 300))
    taken_away = [TopicPartition(*place, end) for place, end in rig.ends().items()]
    # Kept by name: a client that is let go of takes the answers with it.
    admin = topics.admin_client(rig.kafka)
    for future in admin.delete_records(taken_away).values():
        future.result()
    with pytest.raises(HistoryLost, match="deleted before history read them"), rig.working(rig.sink()) as thread:
        eventually("the worker ends", lambda: thread.failure is not None)
    assert len(rig.places_in_history()) == 100


def made_anew(rig: HistoryRig) -> None:
    """The topic of the conditions is deleted, and made again under its name."""
    admin = topics.admin_client(rig.kafka)
    for future in admin.delete_topics([rig.conditions_topic]).values():
        future.result()
    eventually("it is gone", lambda: rig.conditions_topic not in admin.list_topics(timeout=10).topics)
    topics.apply(admin, rig.catalogue)


def stored_ids(rig: HistoryRig) -> set[str]:
    return {str(row["event_id"]) for row in rig.rows("SELECT event_id FROM tradetape.market_conditions")}


def test_a_topic_made_anew_is_read_from_its_beginning(rig: HistoryRig) -> None:
    """Its records have the offsets of those that were stored from the old one."""
    old = rig.emit_conditions(range(200))
    rig.store()
    made_anew(rig)
    new = rig.emit_conditions(range(200, 600))
    with rig.working(rig.sink()) as thread:
        eventually("all is stored", lambda: stored_ids(rig) == old | new or thread.failure is not None)
    assert stored_ids(rig) == old | new


def test_a_topic_made_anew_under_a_sink_at_work_is_not_read_on_from_the_old_offset(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Kafka's client may not notice and read on; the sink ends, and then nothing is missing of what lies before."""
    monkeypatch.setattr(history_sink, "TOPICS_CHECKED_EVERY_US", 1_000_000)
    old = rig.emit_conditions(range(200))
    sink = rig.sink()
    new: set[str] = set()
    try:
        with rig.working(sink) as thread:
            rig.catch_up(thread)
            made_anew(rig)
            new = rig.emit_conditions(range(200, 2_000))
            eventually("it ends or has all", lambda: thread.failure is not None or stored_ids(rig) == old | new)
    except Terminal:
        # Its supervisor starts it again.
        with rig.working(rig.sink()) as thread:
            eventually("all is stored", lambda: stored_ids(rig) == old | new or thread.failure is not None)
    assert stored_ids(rig) == old | new


@pytest.mark.long
def test_a_sink_that_hangs_longer_than_it_may_between_two_polls_drops_its_batch(
    kafka: str, topic_prefix: str, postgres: str
) -> None:
    """Its heartbeats go on, so only Kafka's max.poll.interval.ms tells the group; another member has its partitions then."""
    rig, ledger, letters = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres), Ledger(), MemoryDeadLetters()
    rig.kafka = KafkaSettings(bootstrap_servers=kafka, options={"max.poll.interval.ms": "6000"})
    hanging, other = rig.sink(dead_letters=letters), rig.sink(dead_letters=letters)
    hangs, go_on = threading.Event(), threading.Event()
    advance = hanging._offsets.advance

    def hang(connection: psycopg.Connection, ends: Mapping[Partition, int]) -> None:
        hangs.set()
        assert go_on.wait(60)
        advance(connection, ends)

    hanging._offsets.advance = hang  # type: ignore[method-assign]
    load = Load(rig, ledger)
    try:
        with rig.working(other) as owner:
            with suppress(Fenced), rig.working(hanging):
                assert hangs.wait(60)
                # What the first one holds, nobody else can write.
                hung = set(hanging._offsets.held)
                eventually("the other one has all", lambda: other._offsets.held.keys() >= hung)
                stored = other.counts["stored"]
                eventually("the other one writes", lambda: other.counts["stored"] > stored)
                go_on.set()
            emitted = load.end()
            rig.catch_up(owner)
    finally:
        go_on.set()
        load.close()
    rig.assert_right(ledger, emitted=emitted)
    assert letters.letters == []


@pytest.mark.long
@pytest.mark.parametrize(
    "away_s", [15, 45], ids=["longer than a transaction may idle", "longer than letters are waited for"]
)
def test_dead_letters_that_are_acknowledged_late_cost_time_and_nothing_else(
    kafka: str, topic_prefix: str, postgres: str, away_s: int
) -> None:
    """The rows are in an open transaction meanwhile, which no guard of its session may end over the wait."""
    rig, ledger = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres), Ledger()
    admin = topics.admin_client(rig.kafka)
    for future in admin.delete_topics([rig.catalogue.dead_letters_topic]).values():
        future.result()
    load = Load(rig, ledger, rubbish_every=1_000)
    try:
        with rig.working(rig.sink(dead_letters=rig.kafka_dead_letters())) as thread:
            until = time.monotonic() + away_s
            eventually("it is away for so long", lambda: time.monotonic() > until or thread.failure is not None)
            assert thread.failure is None
            topics.apply(admin, rig.catalogue)
            emitted = load.end()
            rig.catch_up(thread)
    finally:
        load.close()
    verdict = rig.assert_right(ledger, emitted=emitted)
    assert verdict.counts["refused"] > 0
    if away_s < dead_letters.ACKNOWLEDGE_TIMEOUT_S:
        assert verdict.counts["refused again"] == 0, "the batch was tried again, though its letters were only late"
