"""kill -9 of a worker in the middle of its batches, and TERM to one that hangs: nothing lost, and it ends (I7, I14)."""

from __future__ import annotations

import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from raw_producer import raw_producer
from streams_rig import DEADLINE_S, GroupOffsets, WorkerProcess
from tradetape.producers.connection import KafkaSettings
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.engines.faust import FaustEngine, FaustLimits
from tradetape.streams.engines.kafka import KafkaEngine, Limits
from tradetape.streams.record import Record
from tradetape.streams.worker import run_worker

PARTITIONS = 3
RECORDS = 3_000
BATCH_RECORDS = 50
PAUSE_S = 0.02


class Ledger:
    """A processor that takes its time, and then writes down what it has done, in one write that survives a kill."""

    name = "ledger"

    def __init__(self, topic: str, file: Path, *, hangs: bool) -> None:
        self.topics: tuple[str, ...] = (topic,)
        self._file = file.open("ab", buffering=0)
        self._hangs = hangs

    def process(self, batch: Sequence[Record]) -> None:
        if self._hangs:
            self._file.write(b"hangs\n")
            threading.Event().wait()
        time.sleep(PAUSE_S)
        self._file.write(b"".join(b"%d %d\n" % (one.partition, one.offset) for one in batch))


def main(kind: str, servers: str, topic: str, file: str, behaviour: str) -> int:
    """The worker process."""
    kafka = KafkaSettings(bootstrap_servers=servers)
    processor = Ledger(topic, Path(file), hangs=behaviour == "hangs")
    letters = MemoryDeadLetters()
    group = f"{topic}-group"
    engine: KafkaEngine | FaustEngine
    if kind == "kafka":
        limits = Limits(max_batch_records=BATCH_RECORDS, commit_interval_s=0.05)
        engine = KafkaEngine(processor=processor, kafka=kafka, group=group, dead_letters=letters, limits=limits)
    else:
        faust_limits = FaustLimits(max_batch_records=BATCH_RECORDS)
        engine = FaustEngine(processor=processor, kafka=kafka, group=group, dead_letters=letters, limits=faust_limits)
    return run_worker(engine, name="ledger", close=lambda: None)


class Tape:
    """A topic with numbered records, and where a group stands on it."""

    def __init__(self, servers: str, topic: str) -> None:
        self.servers, self.topic = servers, topic
        self._offsets = GroupOffsets(servers, f"{topic}-group")
        admin = AdminClient({"bootstrap.servers": servers, "log_level": 0})
        (future,) = admin.create_topics([NewTopic(topic, PARTITIONS, 1)]).values()
        future.result()
        producer = raw_producer(servers)
        for number in range(RECORDS):
            producer.produce(topic, b"%d" % number, partition=number % PARTITIONS)
        assert producer.flush(DEADLINE_S) == 0

    def close(self) -> None:
        self._offsets.close()

    def committed(self) -> dict[int, int]:
        found = self._offsets.committed(self.topic, partitions=PARTITIONS)
        return {partition: offset for (_, partition), offset in found.items()}

    def worker(self, kind: str, file: Path, behaviour: str = "works") -> WorkerProcess:
        command = [__file__, kind, self.servers, self.topic, str(file), behaviour]
        # As a script it finds its rig by itself: Python puts a script's own folder first, and not this one.
        rig = str(Path(__file__).parents[1] / "tooling")
        return WorkerProcess(command, environment={"PYTHONPATH": rig}, log=file.with_suffix(".log"))


def done(file: Path, *, since: int = 0) -> dict[int, list[int]]:
    """The offsets of each partition in the order in which they were finished, from a place in the file on."""
    found: dict[int, list[int]] = defaultdict(list)
    for line in file.read_bytes()[since:].splitlines() if file.exists() else ():
        partition, offset = line.split()
        found[int(partition)].append(int(offset))
    return found


def count(file: Path) -> int:
    return sum(len(set(offsets)) for offsets in done(file).values())


@pytest.fixture
def tape(kafka: str, topic_prefix: str) -> Iterator[Tape]:
    made = Tape(kafka, f"{topic_prefix}ledger")
    yield made
    made.close()


@pytest.mark.parametrize("kind", ["kafka", "faust"])
def test_killed_again_and_again_a_worker_loses_nothing_and_never_commits_ahead_of_its_work(
    kind: str, tape: Tape, tmp_path: Path
) -> None:
    file = tmp_path / "ledger"
    for kill in range(1, 4):
        with tape.worker(kind, file) as worker:
            worker.until(f"work for kill {kill}", lambda goal=kill * RECORDS // 5: count(file) > goal)  # type: ignore[misc]
            worker.kill()
        finished = done(file)
        for partition, offset in tape.committed().items():
            assert set(range(offset)) <= set(finished[partition]), "an offset stands ahead of the work"
    assert count(file) < RECORDS, "it was killed too late to prove anything"

    last, since = RECORDS // PARTITIONS - 1, file.stat().st_size
    begun = [number for number in range(PARTITIONS) if tape.committed().get(number, 0) <= last]
    with tape.worker(kind, file) as worker:
        # By this worker itself: it does some again that a killed one had done and not committed.
        worker.until("the end of each", lambda: all(last in done(file, since=since)[number] for number in begun))
        assert worker.stop() == 0
    for offsets in done(file).values():
        assert set(offsets) == set(range(RECORDS // PARTITIONS))
        firsts = list(dict.fromkeys(offsets))
        assert firsts == sorted(firsts), "a record overtook an earlier one of its partition"
    assert tape.committed() == dict.fromkeys(range(PARTITIONS), RECORDS // PARTITIONS)


@pytest.mark.parametrize("kind", ["kafka", "faust"])
def test_told_to_stop_a_worker_that_hangs_ends_all_the_same_and_its_batch_is_not_committed(
    kind: str, tape: Tape, tmp_path: Path
) -> None:
    file = tmp_path / "ledger"
    with tape.worker(kind, file, "hangs") as worker:
        worker.until("it hangs", lambda: file.exists() and b"hangs" in file.read_bytes())
        assert worker.stop() == 0
    assert not any(tape.committed().values())


@pytest.mark.parametrize("kind", ["kafka", "faust"])
def test_a_worker_leaves_its_terminal_alone(kind: str, tape: Tape, tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    with tape.worker(kind, file) as worker:
        worker.until("it works", lambda: count(file) > 0)
        assert worker.stop() == 0
    assert "\x1b" not in worker.log.read_text(), "an escape sequence, such as the one that shows the cursor"


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
