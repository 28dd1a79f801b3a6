"""A record that kills a process is found by a child's death, and nothing else convicts a record."""

from __future__ import annotations

import faulthandler
import gc
import os
import signal
import threading
from collections.abc import Sequence

import pytest

from tradetape.streams import quarantine
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.errors import DeadLettersRefused, KillsEverything, Transient
from tradetape.streams.quarantine import Quarantine, first_death
from tradetape.streams.record import Record


def records(*values: bytes) -> list[Record]:
    return [Record("t", 0, offset, None, value, (), 0) for offset, value in enumerate(values)]


def examine(record: Record) -> None:
    match record.value:
        case b"kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case b"segfault":
            faulthandler.disable()
            os.kill(os.getpid(), signal.SIGSEGV)
        case b"exit":
            os._exit(3)
        case b"memory":
            bytearray(1 << 40)
        case b"refused":
            raise ValueError("not an event")
        case b"hang":
            threading.Event().wait()
        case b"term":
            os.kill(os.getpid(), signal.SIGTERM)


class Decoder:
    """Examines as above, and remembers what it processed and passed over."""

    name = "decoder"
    topics: tuple[str, ...] = ("t",)

    def __init__(self) -> None:
        self.processed: list[bytes | None] = []
        self.passed: list[bytes | None] = []

    def examine(self, record: Record) -> None:
        examine(record)

    def pass_over(self, records: Sequence[Record]) -> None:
        self.passed += [one.value for one in records]

    def process(self, batch: Sequence[Record]) -> None:
        self.processed += [one.value for one in batch]


@pytest.mark.parametrize(
    ("deadly", "how"),
    [(b"kill", "SIGKILL"), (b"segfault", "SIGSEGV"), (b"exit", "exit code 3"), (b"memory", "more than 128 MiB")],
)
def test_the_record_that_a_child_dies_of_is_found_and_how(deadly: bytes, how: str) -> None:
    death = first_death(records(b"1", b"refused", deadly, b"3", b"kill"), examine)
    assert death is not None
    assert death.number == 2
    assert how in death.how


def test_what_is_refused_or_ended_from_outside_or_takes_too_long_is_no_death(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "EXAMINE_TIMEOUT_S", 0.2)
    for harmless in (b"1", b"refused", b"hang", b"term"):
        assert first_death(records(b"0", harmless), examine) is None


def test_the_child_collects_no_garbage_of_its_parents() -> None:
    """It would destroy Kafka clients whose threads did not come along, and die of that before it has examined anything."""

    def examine_and_see(_: Record) -> None:
        if gc.isenabled():
            os._exit(3)

    assert gc.isenabled()
    assert first_death(records(b"1"), examine_and_see) is None
    assert gc.isenabled()


def test_it_works_from_a_thread_that_is_not_the_main_one() -> None:
    found: list[object] = []
    thread = threading.Thread(target=lambda: found.append(first_death(records(b"1", b"kill"), examine)))
    thread.start()
    thread.join()
    assert [one.number for one in found] == [1]  # type: ignore[attr-defined]


def test_every_killer_of_a_batch_is_a_dead_letter_undecoded_and_its_neighbours_are_processed() -> None:
    decoder, letters = Decoder(), MemoryDeadLetters()
    guard, batch = Quarantine(decoder), records(b"kill", b"1", b"segfault", b"exit", b"4")
    killers = guard.killers(batch)
    guard.attempt(batch, killers, [], letters)
    assert decoder.processed == [b"1", b"4"]
    assert decoder.passed == [b"kill", b"segfault", b"exit"]
    assert [(one.record.offset, one.reason) for one in letters.letters] == [(0, "crash"), (2, "crash"), (3, "crash")]
    assert b"SIGSEGV" in dict(letters.letters[1].headers)["__connect.errors.exception.message"]


def test_a_letter_that_was_acknowledged_is_not_sent_again_with_the_batch_and_comes_before_anything_moves() -> None:
    steps: list[str] = []

    class Away(Decoder):
        def process(self, batch: Sequence[Record]) -> None:
            steps.append("process")
            if steps.count("process") == 1:
                raise Transient("away")

    class Letters(MemoryDeadLetters):
        def flush(self) -> None:
            steps.append("flush")
            if steps.count("flush") == 1:
                raise DeadLettersRefused("away")

    guard, letters, batch = Quarantine(Away()), Letters(), records(b"0", b"kill")
    killers, buried = guard.killers(batch), list[Record]()
    for error in (DeadLettersRefused, Transient):
        with pytest.raises(error):
            guard.attempt(batch, killers, buried, letters)
    guard.attempt(batch, killers, buried, letters)
    assert steps == ["flush", "flush", "process", "process", "flush"]
    assert len(letters.letters) == 2


def test_when_everything_kills_the_worker_halts_before_it_empties_the_tape(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quarantine, "MAX_KILLERS", 3)
    guard = Quarantine(Decoder())
    assert len(guard.killers(records(*[b"kill"] * 3))) == 3
    with pytest.raises(KillsEverything):
        guard.killers(records(b"kill"))
