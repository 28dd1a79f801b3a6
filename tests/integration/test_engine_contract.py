"""The contract that every engine keeps: nothing lost, order within a partition, offsets only behind effects (I7, I14)."""

from __future__ import annotations

import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Literal, NamedTuple, Protocol

import pytest
from confluent_kafka import Consumer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from raw_producer import raw_producer
from streams_rig import GroupOffsets, WorkerProcess
from tradetape.console import exit_codes
from tradetape.producers.connection import KafkaSettings
from tradetape.streams.dead_letters import DeadLetters, KafkaDeadLetters, MemoryDeadLetters
from tradetape.streams.engines.faust import FaustEngine, FaustLimits
from tradetape.streams.engines.kafka import KafkaEngine, Limits
from tradetape.streams.engines.memory import MemoryEngine
from tradetape.streams.errors import BadRecord, DeadLettersRefused, Transient
from tradetape.streams.processor import Partition
from tradetape.streams.progress import Progress
from tradetape.streams.record import Record
from tradetape.streams.worker import Engine
from waiting import eventually

PARTITIONS = 2
DEADLINE_S = 60.0
SESSION_S = {"kafka": 6.0, "faust": 10.0}
"""After so long without a heartbeat the broker takes a member for dead."""

Act = Callable[[Sequence[Record]], None]
Offsets = dict[int, int]


class Written(NamedTuple):
    """A record as a test writes it."""

    partition: int
    value: bytes | None
    key: bytes | None = None
    headers: tuple[tuple[str, bytes | None], ...] = ()
    timestamp_ms: int = 1_700_000_000_000


class Script:
    """A processor that does what a test says, and remembers what it was called with and what it finished."""

    name = "contract"

    def __init__(self, topic: str, act: Act | None = None) -> None:
        self.topics: tuple[str, ...] = (topic,)
        self.calls: list[list[Record]] = []
        self.done: list[Record] = []
        self._act = act

    def process(self, batch: Sequence[Record]) -> None:
        self.calls.append(list(batch))
        if self._act is not None:
            self._act(batch)
        self.done += batch

    def values(self) -> list[bytes | None]:
        return [record.value for record in self.done]

    def offsets(self, partition: int) -> list[int]:
        return [record.offset for record in self.done if record.partition == partition]


class Running:
    """An engine at work in a thread of its own."""

    def __init__(self, engine: Engine) -> None:
        self.stop = threading.Event()
        self.failure: BaseException | None = None
        self._engine = engine
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def _run(self) -> None:
        try:
            self._engine.run(self.stop)
        except BaseException as error:  # noqa: BLE001  the test looks at it
            self.failure = error

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for a condition, and say so when the engine ended before it came true."""
        eventually("what was waited for, or the engine's end", lambda: condition() or self.has_ended)
        assert condition(), f"the engine ended too soon: {self.failure!r}"

    def end(self) -> BaseException | None:
        """Ask the engine to stop, and wait until it has."""
        self.stop.set()
        return self.wait()

    def wait(self) -> BaseException | None:
        """Wait until the engine has ended; with what."""
        self._thread.join(DEADLINE_S)
        assert self.has_ended, "the engine does not end"
        return self.failure


class Rig(Protocol):
    """One engine with what it reads from and writes to. Each `start` is what a restarted process would be."""

    topic: str

    def write(self, records: Sequence[Written]) -> None: ...

    def start(self, processor: Script, dead_letters: DeadLetters | None = None) -> Running: ...

    def committed(self) -> Offsets: ...

    def letters(self) -> list[Record]: ...

    def members(self) -> set[str]: ...


class MemoryRig:
    """The in-memory engine; offsets and dead letters outlive it, as a broker's do."""

    topic = "contract"

    def __init__(self) -> None:
        self._records: list[Record] = []
        self._committed: dict[Partition, int] = {}
        self._letters = MemoryDeadLetters("contract")

    def write(self, records: Sequence[Written]) -> None:
        for one in records:
            offset = sum(record.partition == one.partition for record in self._records)
            self._records.append(
                Record(self.topic, one.partition, offset, one.key, one.value, one.headers, one.timestamp_ms)
            )

    def start(self, processor: Script, dead_letters: DeadLetters | None = None) -> Running:
        letters = dead_letters or self._letters
        engine = MemoryEngine(processor=processor, dead_letters=letters, records=self._records, max_batch_records=7)
        engine.committed = self._committed
        return Running(engine)

    def committed(self) -> Offsets:
        return {one.partition: offset for one, offset in self._committed.items()}

    def letters(self) -> list[Record]:
        return [
            Record(
                "letters", 0, place, letter.record.key, letter.record.value,
                (*letter.record.headers, *letter.headers), letter.record.timestamp_ms,
            )
            for place, letter in enumerate(self._letters.letters)
        ]  # fmt: skip

    def members(self) -> set[str]:
        raise NotImplementedError("there is no group in memory")


class BrokerRig:
    """An engine on a real broker, with a topic and a group of its own."""

    def __init__(self, kind: str, servers: str, prefix: str, *, has_topic: bool = True) -> None:
        self.topic = f"{prefix}contract"
        self.kind = kind
        self._group = f"{prefix}group"
        self._letters_topic = f"{prefix}dead-letters"
        self._kafka = KafkaSettings(bootstrap_servers=servers)
        self._admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        self._producer = raw_producer(servers)
        self._offsets = GroupOffsets(servers, self._group)
        self._open: list[Running] = []
        self._make(self._letters_topic, partitions=1)
        if has_topic:
            self.make_topic()

    def make_topic(self, name: str | None = None) -> None:
        self._make(name or self.topic, partitions=PARTITIONS)

    def _make(self, topic: str, *, partitions: int) -> None:
        # The records' timestamps are years old: a broker with a limit deletes them as soon as it looks.
        kept = {"retention.ms": "-1"}
        for future in self._admin.create_topics([NewTopic(topic, partitions, 1, config=kept)]).values():
            future.result()

    def write(self, records: Sequence[Written]) -> None:
        for one in records:
            self._producer.produce(
                self.topic, one.value, one.key, one.partition, timestamp=one.timestamp_ms, headers=list(one.headers)
            )
        assert self._producer.flush(DEADLINE_S) == 0

    def start(self, processor: Script, dead_letters: DeadLetters | None = None) -> Running:
        letters = dead_letters or KafkaDeadLetters(worker="contract", topic=self._letters_topic, kafka=self._kafka)
        kind = {"kafka": KafkaEngine, "faust": FaustEngine}[self.kind]
        running = Running(kind(processor=processor, kafka=self._kafka, group=self._group, dead_letters=letters))
        self._open.append(running)
        return running

    def close(self) -> None:
        for running in self._open:
            running.stop.set()
        for running in self._open:
            running.wait()
        self._offsets.close()

    def committed(self) -> Offsets:
        """What the broker has of the group, without those partitions of which it has nothing."""
        found = self._offsets.committed(self.topic, partitions=PARTITIONS)
        return {partition: offset for (_, partition), offset in found.items()}

    def letters(self) -> list[Record]:
        return list(_whole(self._kafka.bootstrap_servers, self._letters_topic))

    def members(self) -> set[str]:
        (found,) = self._admin.describe_consumer_groups([self._group]).values()
        return {member.member_id for member in found.result().members}

    def held(self) -> list[Counter[str]]:
        """How many partitions of each topic each member has."""
        (found,) = self._admin.describe_consumer_groups([self._group]).values()
        return [Counter(one.topic for one in member.assignment.topic_partitions) for member in found.result().members]


def _whole(servers: str, topic: str) -> Iterator[Record]:
    """The one partition of a topic from its beginning to its end, read by a client that knows none of our code."""
    consumer = Consumer({"bootstrap.servers": servers, "group.id": "reads-the-letters", "enable.auto.commit": False})
    try:
        low, high = consumer.get_watermark_offsets(TopicPartition(topic, 0), timeout=DEADLINE_S)
        consumer.assign([TopicPartition(topic, 0, low)])
        for _ in range(low, high):
            message = consumer.poll(DEADLINE_S)
            assert message is not None
            assert message.error() is None
            yield Record(
                topic, 0, message.offset() or 0, message.key(), message.value(),
                tuple(message.headers() or ()), message.timestamp()[1],  # type: ignore[arg-type]
            )  # fmt: skip
    finally:
        consumer.close()


@pytest.fixture(params=["memory", "kafka", "faust"])
def rig(request: pytest.FixtureRequest, topic_prefix: str) -> Iterator[Rig]:
    if request.param == "memory":
        yield MemoryRig()
        return
    made = BrokerRig(request.param, request.getfixturevalue("kafka"), topic_prefix)
    yield made
    made.close()


@pytest.fixture(params=["kafka", "faust"])
def broker_rig(request: pytest.FixtureRequest, kafka: str, topic_prefix: str) -> Iterator[BrokerRig]:
    made = BrokerRig(request.param, kafka, topic_prefix)
    yield made
    made.close()


def numbered(count: int, *, partition: int = 0, first: int = 0) -> list[Written]:
    """Records whose value is their place."""
    return [Written(partition, b"%d" % number) for number in range(first, first + count)]


def test_a_fresh_group_gets_every_record_from_the_first_one_whole_and_in_order(rig: Rig) -> None:
    written = [
        Written(number % PARTITIONS, b"v%d" % number, b"k%d" % number, (("h", b"1"), ("h", b"2")), 1_700_000_000_000 + 37 * number)
        for number in range(300)
    ]  # fmt: skip
    written += [Written(0, None, b"no value"), Written(1, b"no key", None)]
    rig.write(written)

    processor = Script(rig.topic)
    running = rig.start(processor)
    running.until(lambda: len(processor.done) >= len(written))
    assert running.end() is None

    for partition in range(PARTITIONS):
        arrived = [record for record in processor.done if record.partition == partition]
        assert [record.offset for record in arrived] == list(range(len(arrived)))
        assert [Written(partition, one.value, one.key, one.headers, one.timestamp_ms) for one in arrived] == [
            one for one in written if one.partition == partition
        ]
    assert rig.committed() == {0: 151, 1: 151}


def test_a_batch_that_failed_for_now_comes_again_whole_before_anything_behind_it(rig: Rig) -> None:
    rig.write(numbered(50))
    committed_meanwhile: list[Offsets] = []

    def fail_twice(batch: Sequence[Record]) -> None:
        if len(committed_meanwhile) < 2 and any(record.offset == 9 for record in batch):
            committed_meanwhile.append(rig.committed())
            raise Transient("away")

    processor = Script(rig.topic, fail_twice)
    running = rig.start(processor)
    running.until(lambda: len(processor.done) >= 50)
    assert running.end() is None

    assert processor.offsets(0) == list(range(50))
    failed = next(place for place, call in enumerate(processor.calls) if any(one.offset == 9 for one in call))
    assert processor.calls[failed] == processor.calls[failed + 1] == processor.calls[failed + 2]
    assert all(offsets.get(0, 0) <= 9 for offsets in committed_meanwhile)


def test_a_poison_record_goes_to_the_dead_letters_and_its_neighbours_are_processed(rig: Rig) -> None:
    poison = Written(0, b"poison", b"its key", (("own", b"header"),))
    rig.write([*numbered(5), poison, *numbered(5, first=6)])

    def refuse(batch: Sequence[Record]) -> None:
        for record in batch:
            if record.value == b"poison":
                raise BadRecord(record, "spoilt", "it is spoilt")

    processor = Script(rig.topic, refuse)
    running = rig.start(processor)
    running.until(lambda: len(processor.done) >= 10)
    assert running.end() is None

    assert processor.offsets(0) == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10]
    (letter,) = rig.letters()
    headers = {name: (value or b"").decode() for name, value in letter.headers}
    assert (letter.key, letter.value, headers["own"]) == (b"its key", b"poison", "header")
    connect = {name.removeprefix("__connect.errors."): headers[name] for name in headers if "connect" in name}
    assert connect.pop("exception.stacktrace")
    assert connect == {
        "topic": rig.topic, "partition": "0", "offset": "5", "connector.name": "contract", "task.id": "0",
        "stage": "TRANSFORMATION", "class.name": "contract",
        "exception.class.name": "tradetape.streams.errors.BadRecord",
        "exception.message": f"{rig.topic}[0]@5: spoilt: it is spoilt",
    }  # fmt: skip
    assert (headers["x-worker"], headers["x-reason"]) == ("contract", "spoilt")
    assert rig.committed() == {0: 11}


class Unacknowledged(MemoryDeadLetters):
    """The topic of dead letters is away; the second time the process dies."""

    def __init__(self, *, seen: Callable[[], None]) -> None:
        super().__init__()
        self._seen = seen
        self.flushes = 0

    def flush(self) -> None:
        if not self.letters:
            return
        self._seen()
        self.flushes += 1
        raise RuntimeError("dies here") if self.flushes == 2 else DeadLettersRefused("away")


def test_the_offset_stays_before_a_record_whose_dead_letter_is_not_acknowledged(rig: Rig) -> None:
    rig.write(numbered(20))
    seen: list[Offsets] = []

    def refuse(batch: Sequence[Record]) -> None:
        for record in batch:
            if record.offset == 8:
                raise BadRecord(record, "spoilt", "it is spoilt")

    letters = Unacknowledged(seen=lambda: seen.append(rig.committed()))
    assert isinstance(rig.start(Script(rig.topic, refuse), letters).wait(), RuntimeError)
    assert letters.flushes == 2
    assert all(offsets.get(0, 0) <= 8 for offsets in [*seen, rig.committed()])


def test_an_unexpected_error_ends_the_engine_and_a_restart_reads_on_from_before_it(rig: Rig) -> None:
    rig.write(numbered(40))

    def break_down(batch: Sequence[Record]) -> None:
        if any(record.offset == 23 for record in batch):
            raise ZeroDivisionError("nobody expected this")

    first = Script(rig.topic, break_down)
    assert isinstance(rig.start(first).wait(), ZeroDivisionError)
    committed = rig.committed().get(0, 0)
    assert committed <= len(first.done) <= 23

    second = Script(rig.topic)
    running = rig.start(second)
    running.until(lambda: 39 in second.offsets(0))
    assert running.end() is None
    assert second.offsets(0) == list(range(committed, 40))


def test_told_to_stop_it_finishes_its_batch_and_a_restart_goes_on_behind_it(rig: Rig) -> None:
    rig.write([*numbered(30), *numbered(30, partition=1)])
    inside, go_on = threading.Event(), threading.Event()

    def hang(_: Sequence[Record]) -> None:
        inside.set()
        assert go_on.wait(DEADLINE_S)

    first = Script(rig.topic, hang)
    running = rig.start(first)
    running.until(inside.is_set)
    running.stop.set()
    go_on.set()
    assert running.wait() is None
    assert first.done
    done = {partition: len(offsets) for partition in range(PARTITIONS) if (offsets := first.offsets(partition))}
    assert rig.committed() == done

    rig.write(numbered(1, first=30))
    second = Script(rig.topic)
    running = rig.start(second)
    running.until(lambda: 30 in second.offsets(0) and len(first.done) + len(second.done) >= 61)
    assert running.end() is None
    assert first.offsets(0) + second.offsets(0) == list(range(31))
    assert first.offsets(1) + second.offsets(1) == list(range(30))


def test_told_to_stop_while_a_dependency_is_away_it_ends_and_leaves_the_batch_to_the_next(
    broker_rig: BrokerRig,
) -> None:
    broker_rig.write(numbered(10))

    def away(_: Sequence[Record]) -> None:
        raise Transient("away for long")

    first = Script(broker_rig.topic, away)
    running = broker_rig.start(first)
    running.until(lambda: len(first.calls) >= 2)
    assert running.end() is None
    assert broker_rig.committed().get(0, 0) == 0

    second = Script(broker_rig.topic)
    running = broker_rig.start(second)
    running.until(lambda: len(second.done) >= 10)
    assert running.end() is None
    assert second.offsets(0) == list(range(10))


def test_a_processor_slower_than_the_session_keeps_its_membership(broker_rig: BrokerRig) -> None:
    broker_rig.write(numbered(10))
    members: list[set[str]] = []

    def work_long(_: Sequence[Record]) -> None:
        if not members:
            members.append(broker_rig.members())
            until = time.monotonic() + SESSION_S[broker_rig.kind] + 1
            eventually("the time is over", lambda: time.monotonic() > until)
            members.append(broker_rig.members())

    processor = Script(broker_rig.topic, work_long)
    running = broker_rig.start(processor)
    running.until(lambda: len(processor.done) >= 10)
    assert running.end() is None
    assert len(members[0]) == 1
    assert all(one == members[0] for one in members)
    assert processor.offsets(0) == list(range(10))


@pytest.mark.parametrize("kind", ["kafka", "faust"])
def test_a_topic_that_is_made_after_the_start_is_read_without_a_restart(
    kind: str, kafka: str, topic_prefix: str, caplog: pytest.LogCaptureFixture
) -> None:
    late = BrokerRig(kind, kafka, topic_prefix, has_topic=False)
    processor = Script(late.topic)
    running = late.start(processor)
    # Both engines' clients say that they miss it.
    running.until(lambda: late.topic in caplog.text)
    late.make_topic()
    late.write(numbered(3))
    running.until(lambda: processor.offsets(0) == [0, 1, 2])
    assert running.end() is None
    late.close()


def test_a_second_member_that_joins_in_the_middle_of_a_batch_loses_nothing(broker_rig: BrokerRig) -> None:
    broker_rig.write([*numbered(30), *numbered(30, partition=1)])
    inside, go_on = threading.Event(), threading.Event()

    def hang(_: Sequence[Record]) -> None:
        inside.set()
        assert go_on.wait(DEADLINE_S)

    first, second = Script(broker_rig.topic, hang), Script(broker_rig.topic)
    running = [broker_rig.start(first)]
    running[0].until(inside.is_set)
    running.append(broker_rig.start(second))
    eventually("two members", lambda: len(broker_rig.members()) == 2)
    go_on.set()

    written = 30

    def both_have_read() -> bool:
        """New records arrive until each member has read some of them."""
        nonlocal written
        broker_rig.write([*numbered(1, first=written), *numbered(1, partition=1, first=written)])
        written += 1
        return any(one.offset >= 30 for one in first.done) and any(one.offset >= 30 for one in second.done)

    running[1].until(both_have_read)
    everything = {(partition, offset) for partition in range(PARTITIONS) for offset in range(written)}
    running[1].until(lambda: {(one.partition, one.offset) for one in [*first.done, *second.done]} == everything)
    assert [one.end() for one in running] == [None, None]
    assert broker_rig.committed() == {0: written, 1: written}


def test_of_every_topic_each_member_is_given_its_part(broker_rig: BrokerRig) -> None:
    """One of them may be the only busy one."""
    topics = tuple(f"{broker_rig.topic}-{number}" for number in range(3))
    for topic in topics:
        broker_rig.make_topic(topic)
    for _ in range(2):
        script = Script(broker_rig.topic)
        script.topics = topics
        broker_rig.start(script)
        eventually("a member has something", lambda: any(broker_rig.held()))
    eventually("each has one of each", lambda: broker_rig.held() == [Counter(dict.fromkeys(topics, 1))] * 2)


class ScriptOfNumbers(Script):
    """One that is given the partitions of one number on all topics."""

    copartitioned: Literal[True] = True


@pytest.mark.parametrize("script", [Script, ScriptOfNumbers])
def test_a_partition_given_away_while_a_dependency_is_away_is_read_when_it_comes_back(
    script: type[Script], kafka: str, topic_prefix: str
) -> None:
    """On Kafka's engine: Faust gives none away before it has done with what it was given."""
    rig, away = BrokerRig("kafka", kafka, topic_prefix), True

    def wait(_: Sequence[Record]) -> None:
        if away:
            raise Transient("the dependency is away")

    try:
        rig.write([*numbered(1), *numbered(1, partition=1)])
        stays, guest = script(rig.topic, wait), script(rig.topic, wait)
        running = rig.start(stays)
        running.until(lambda: bool(stays.calls))
        going = rig.start(guest)
        going.until(lambda: bool(guest.calls))
        away = False
        going.until(lambda: bool(guest.done))
        assert going.end() is None
        rig.write([*numbered(1, first=1), *numbered(1, partition=1, first=1)])
        running.until(lambda: {(0, 1), (1, 1)} <= {(one.partition, one.offset) for one in stays.done})
    finally:
        rig.close()


def test_a_worker_that_comes_back_and_finds_nothing_new_is_not_behind(kafka: str, topic_prefix: str) -> None:
    rig = BrokerRig("kafka", kafka, topic_prefix)
    rig.write(numbered(5))
    first = Script(rig.topic)
    running = rig.start(first)
    running.until(lambda: len(first.done) == 5)
    assert running.end() is None

    progress, place = Progress(), TopicPartition(rig.topic, 0)
    lags: list[dict[Partition, int]] = []

    class Watching(Script):
        """Looks at the consumer from the engine's own thread: no other may while that one polls."""

        def tick(self, _: int) -> None:
            # What the engine has just told of its lag rests on the end that the broker had told before.
            if progress.is_assigned and engine._consumer.get_watermark_offsets(place, cached=True)[1] == 5:
                lags.append(progress.lag)

    second = Watching(rig.topic)
    engine = KafkaEngine(
        processor=second, kafka=KafkaSettings(bootstrap_servers=kafka), group=f"{topic_prefix}group",
        dead_letters=MemoryDeadLetters("contract"), progress=progress, limits=Limits(tick_interval_s=0.0),
    )  # fmt: skip
    running = Running(engine)
    running.until(lambda: len(lags) > 1)
    assert running.end() is None
    assert second.done == []
    assert set(lags[-1].values()) == {0}
    rig.close()


def test_faust_works_on_for_longer_than_it_waits_for_a_broker_at_its_start(kafka: str, topic_prefix: str) -> None:
    rig = BrokerRig("faust", kafka, topic_prefix)
    script = Script(rig.topic)
    engine = FaustEngine(
        processor=script, kafka=KafkaSettings(bootstrap_servers=kafka), group=f"{topic_prefix}group",
        dead_letters=MemoryDeadLetters("contract"),
    )  # fmt: skip
    running = Running(engine)
    rig.write([Written(0, b"first")])
    running.until(lambda: script.values() == [b"first"])
    engine._limits = FaustLimits(unreachable_after_s=0.0, watch_interval_s=0.01)
    rig.write([Written(0, b"second")])
    running.until(lambda: script.values() == [b"first", b"second"])
    assert running.end() is None


def test_a_worker_on_faust_that_finds_no_broker_says_so_and_ends_as_unreachable(tmp_path: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        servers = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {"KAFKA_BOOTSTRAP_SERVERS": servers}
    words = ["-m", "tradetape.console", "work", "positions", "--engine", "faust"]
    with WorkerProcess(words, environment=environment, log=tmp_path / "log") as worker:
        eventually("it ends", lambda: worker.has_ended)
        assert worker.stop() == exit_codes.UNREACHABLE
        assert "Unable to bootstrap" in worker.log.read_text()
