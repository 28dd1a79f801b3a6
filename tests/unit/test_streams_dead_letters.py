"""A dead letter carries the record as it was, and Kafka Connect's headers with the reason."""

from __future__ import annotations

import struct
import traceback

import pytest
from confluent_kafka import KafkaError, KafkaException

from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import CATALOGUE
from tradetape.streams.dead_letters import KafkaDeadLetters, MemoryDeadLetters, headers_of, stacktrace, without_ours
from tradetape.streams.errors import BadRecord, DeadLettersRefused, ProcessorBroken, Transient
from tradetape.streams.processor import attempt
from tradetape.streams.record import Record

NAMES = (
    "topic", "partition", "offset", "connector.name", "task.id", "stage", "class.name", "exception.class.name",
    "exception.message", "exception.stacktrace",
)  # fmt: skip
"""As Kafka Connect's DeadLetterQueueReporter writes them behind __connect.errors."""


def record(offset: int = 5, value: bytes | None = b"value") -> Record:
    return Record("candles", 3, offset, b"key", value, (("own", b"1"),), 0)


def raised(message: str) -> Exception:
    try:
        raise ValueError(message)
    except ValueError as error:
        return error


def test_all_of_connects_headers_are_there_once_and_say_where_and_why() -> None:
    error = raised("spoilt ü")
    headers = headers_of(record(), "invalid_value", error, stage="VALUE_CONVERTER", worker="state")
    names = [name for name, _ in headers]
    assert len(names) == len(set(names))
    found = {name: value.decode() for name, value in headers}
    connect = {name: found["__connect.errors." + name] for name in NAMES}
    assert "raise ValueError(message)" in connect.pop("exception.stacktrace")
    assert connect == {
        "topic": "candles", "partition": "3", "offset": "5", "connector.name": "state", "task.id": "0",
        "stage": "VALUE_CONVERTER", "class.name": "state", "exception.class.name": "builtins.ValueError",
        "exception.message": "spoilt ü",
    }  # fmt: skip
    assert (found["x-worker"], found["x-reason"]) == ("state", "invalid_value")


def test_message_and_stacktrace_are_bounded() -> None:
    found = dict(headers_of(record(), "r", raised("x" * 100_000), stage="S", worker="w"))
    assert len(found["__connect.errors.exception.message"]) == 1_024
    assert len(found["__connect.errors.exception.stacktrace"]) == 4_096


def test_the_stacktrace_is_pythons_with_every_cause_and_without_the_marks() -> None:
    def fail() -> None:
        try:
            raise raised("spoilt")
        except ValueError as error:
            raise BadRecord(record(), "r", "refused") from error

    with pytest.raises(BadRecord) as caught:
        fail()
    printed = "".join(traceback.format_exception(caught.value)).splitlines()
    places = [line for line in printed if (line.startswith("    ") and line.strip("~^ ")) or line.startswith("  File")]
    lines = stacktrace(caught.value).splitlines()
    assert [line for line in lines if line.startswith("  ")] == places
    assert [line for line in lines if line.endswith(("spoilt", "refused"))] == [
        "builtins.ValueError: spoilt", f"tradetape.streams.errors.BadRecord: {caught.value}",
    ]  # fmt: skip


def test_errors_that_cause_each_other_have_a_stacktrace_that_ends() -> None:
    first, second = raised("a"), raised("b")
    first.__cause__, second.__cause__ = second, first
    assert "ValueError: b" in stacktrace(first)


def test_text_that_is_no_unicode_does_not_break_the_letter() -> None:
    found = dict(headers_of(record(), "r", raised("\ud800"), stage="S", worker="w"))
    assert found["__connect.errors.exception.message"]


@pytest.mark.parametrize(
    ("value", "schema_id"),
    [
        (b"\0" + struct.pack(">I", 0x7FFFFFFF) + b"x", b"2147483647"),
        (b"\1\0\0\0\1", None),
        (b"\0\0", None),
        (None, None),
    ],
)
def test_the_schema_id_is_told_where_the_frame_has_one(value: bytes | None, schema_id: bytes | None) -> None:
    assert (
        dict(headers_of(record(value=value), "r", raised("x"), stage="S", worker="w")).get("x-schema-id") == schema_id
    )


EVENT_ID = "018f0a52-3c4d-7abc-8def-0123456789ab"


@pytest.mark.parametrize(
    ("value", "event_id"),
    [
        # Avro writes a text as its length, doubled for its sign, and its bytes: 36 is 0x48.
        (b"\0\0\0\0\1\x48" + EVENT_ID.encode() + b"rest", EVENT_ID.encode()),
        (b"\0\n\n\n\n\x48" + EVENT_ID.encode(), EVENT_ID.encode()),
        (b"\0\0\0\0\1\x48" + EVENT_ID.encode()[:-1], None),
        (b"\0\0\0\0\1\x48" + b"z" * 36, None),
        (b"\1\0\0\0\1\x48" + EVENT_ID.encode(), None),
        (None, None),
    ],
)
def test_the_event_id_is_told_where_the_value_begins_with_one(value: bytes | None, event_id: bytes | None) -> None:
    found = dict(headers_of(record(value=value), "r", raised("x"), stage="S", worker="w"))
    assert found.get("x-event-id") == event_id


def test_every_event_begins_with_its_id() -> None:
    """What reading the id without decoding rests on, and the order in which fields stand on the wire."""
    for event_type in CATALOGUE:
        first = event_type.schema["fields"][0]
        assert (first["name"], first["type"]) == ("event_id", "string")


def test_a_letter_counts_how_often_its_record_was_one_and_keeps_the_time_of_the_record() -> None:
    def told(*own: tuple[str, bytes | None]) -> dict[str, bytes]:
        made = Record("candles", 0, 1, None, b"v", own, 1_700_000_000_123)
        return dict(headers_of(made, "r", raised("x"), stage="S", worker="w"))

    assert told()["x-attempt"] == b"1"
    assert told(("x-attempt", b"1"), ("x-attempt", b"4"))["x-attempt"] == b"5"
    assert [told(("x-attempt", odd))["x-attempt"] for odd in (None, b"", b"-3", b"many", b"9" * 5_000)] == [b"1"] * 5
    assert told()["x-timestamp"] == b"1700000000123"


def test_without_our_headers_a_letters_are_those_of_its_record() -> None:
    own = (("trace", b"1"), ("trace", b"2"), ("empty", None))
    made = Record("candles", 0, 1, b"k", b"\0\0\0\0\1\x48" + EVENT_ID.encode(), own, 5)
    ours = headers_of(made, "r", raised("x"), stage="S", worker="w")
    assert without_ours([*own, *ours, ("x-value-bytes", b"9")]) == list(own)


def test_a_topic_that_the_client_knows_to_be_away_is_waited_for_and_ends_no_worker(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    letters = KafkaDeadLetters(worker="w", topic="letters", kafka=KafkaSettings(bootstrap_servers="127.0.0.1:1"))

    def produce(*_: object) -> None:
        raise KafkaException(KafkaError(KafkaError._UNKNOWN_TOPIC))

    monkeypatch.setattr(letters, "_produce", produce)
    with pytest.raises(DeadLettersRefused, match="letters does not take dead letters"):
        letters.send(record(), "bad", raised("why"), stage="S")
    assert issubclass(DeadLettersRefused, Transient)


class Picky:
    """Refuses some offsets, one at a time."""

    name, topics = "picky", ("candles",)

    def __init__(self, *bad: int) -> None:
        self._bad = bad
        self.calls: list[list[int]] = []

    def process(self, batch: list[Record]) -> None:
        self.calls.append([one.offset for one in batch])
        for one in batch:
            if one.offset in self._bad:
                raise BadRecord(one, "spoilt", "it is")


def test_each_bad_record_leaves_its_batch_and_the_rest_is_processed_together() -> None:
    letters, picky = MemoryDeadLetters(), Picky(1, 3)
    attempt(picky, [record(offset) for offset in range(5)], letters)  # type: ignore[arg-type]
    assert picky.calls == [[0, 1, 2, 3, 4], [0, 2, 3, 4], [0, 2, 4]]
    assert [letter.record.offset for letter in letters.letters] == [1, 3]
    assert letters.refused == {"spoilt": 2}


def test_a_batch_of_nothing_but_bad_records_ends() -> None:
    letters, picky = MemoryDeadLetters(), Picky(*range(5))
    attempt(picky, [record(offset) for offset in range(5)], letters)  # type: ignore[arg-type]
    assert len(letters.letters) == 5
    assert len(picky.calls) == 5


def test_refusing_a_record_of_another_batch_is_the_processors_fault_and_ends_the_worker() -> None:
    class Confused(Picky):
        def process(self, batch: list[Record]) -> None:
            raise BadRecord(record(99), "spoilt", "it is")

    with pytest.raises(ProcessorBroken, match="99"):
        attempt(Confused(), [record()], MemoryDeadLetters())  # type: ignore[arg-type]


def test_letters_are_flushed_before_attempt_returns_and_not_when_a_dependency_is_away() -> None:
    flushed: list[int] = []

    class Watched(MemoryDeadLetters):
        def flush(self) -> None:
            flushed.append(len(self.letters))

    class Away(Picky):
        def process(self, batch: list[Record]) -> None:
            super().process(batch)
            raise Transient("away")

    letters = Watched()
    with pytest.raises(Transient):
        attempt(Away(1), [record(1), record(2)], letters)  # type: ignore[arg-type]
    assert flushed == []
    attempt(Picky(1), [record(1), record(2)], letters)  # type: ignore[arg-type]
    assert flushed == [2]
