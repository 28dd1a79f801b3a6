"""Letters are counted once, with what became of them, and chosen by what they are known by."""

from __future__ import annotations

import pytest

from tradetape.console.errors import UsageError
from tradetape.console.letters import DISCARDED, OPEN, REDRIVEN, Filter, Group, Identity, Letters, groups, mark_headers
from tradetape.streams.dead_letters import headers_of
from tradetape.streams.record import Record

ID = "018f0a52-3c4d-7abc-8def-0123456789ab"
VALUE = b"\0\0\0\0\7\x48" + ID.encode()


def letter(
    worker: str = "state", offset: int = 5, *, reason: str = "invalid_value", at_ms: int = 1_000, lies_at: int = 0
) -> Record:
    """As a worker writes one."""
    record = Record("t.candles", 3, offset, b"v:S", VALUE, (("own", b"1"),), 77)
    ours = headers_of(record, reason, ValueError("spoilt"), stage="VALUE_CONVERTER", worker=worker)
    return Record("t.dead-letters", 1, lies_at, b"v:S", VALUE, (*record.headers, *ours), at_ms)


def mark(identity: str, state: str, why: str = "", *, at_ms: int = 5_000) -> Record:
    headers = tuple((name, bytes(value)) for name, value in mark_headers(state, why))  # type: ignore[arg-type]
    return Record("t.dead-letters", 1, 99, identity.encode(), None, headers, at_ms)


def test_a_letter_says_all_that_its_headers_do() -> None:
    (found,) = Letters([letter(lies_at=12)]).values()
    assert found.identity == Identity("state", "t.candles", 3, 5)
    assert (found.reason, found.stage, found.message, found.exception) == (
        "invalid_value", "VALUE_CONVERTER", "spoilt", "builtins.ValueError",
    )  # fmt: skip
    assert (found.event_id, found.schema_id, found.attempt, found.record_at_ms, found.key) == (ID, 7, 1, 77, "v:S")
    assert (found.letter_partition, found.letter_offset, found.state) == (1, 12, OPEN)


def test_a_letter_that_was_sent_again_counts_once_and_two_workers_are_two() -> None:
    found = Letters([letter(at_ms=1_000), letter("history"), letter(at_ms=3_000, lies_at=7), letter(at_ms=2_000)])
    assert [str(one) for one in found] == ["state:t.candles:3:5", "history:t.candles:3:5"]
    again = found[Identity("state", "t.candles", 3, 5)]
    assert (again.times_sent, again.first_at_ms, again.last_at_ms, again.letter_offset) == (3, 1_000, 3_000, 7)


def test_a_mark_says_what_became_of_its_letter_wherever_it_is_read() -> None:
    for records in ([letter(), mark("state:t.candles:3:5", DISCARDED, "old bot")],) * 2:
        for ordered in (records, records[::-1]):
            (found,) = Letters(ordered).values()
            assert (found.state, found.marked_why, found.marked_at_ms) == (DISCARDED, "old bot", 5_000)
    (repeated,) = Letters([letter(), mark("state:t.candles:3:5", REDRIVEN), letter(at_ms=9_000)]).values()
    assert repeated.state == REDRIVEN, "the same record at the same place, sent again, is not a new letter"


def test_marks_of_no_letter_and_records_that_are_none_are_no_letters() -> None:
    strangers = [
        Record("t.dead-letters", 0, 0, None, b"x", (), 0),
        Record("t.dead-letters", 0, 1, None, b"x", (("x-worker", b"w"), ("__connect.errors.topic", b"t")), 0),
        mark("nonsense", REDRIVEN),
    ]
    found = Letters([*strangers, mark("state:gone:0:1", REDRIVEN)])
    assert (len(found), found.strangers) == (0, 3)


def test_a_letter_of_kafka_connect_is_read_as_well() -> None:
    names = {"topic": "x", "partition": "0", "offset": "4", "connector.name": "sink", "stage": "TASK_PUT"}
    headers = tuple((f"__connect.errors.{name}", text.encode()) for name, text in names.items())
    (found,) = Letters([Record("t.dead-letters", 0, 0, None, b"x", headers, 0)]).values()
    assert (str(found.identity), found.reason) == ("sink:x:0:4", "task_put")


@pytest.mark.parametrize(
    ("wanted", "taken"),
    [
        (Filter(), True),
        (Filter(worker="state", topic="t.candles", reason="invalid_value", event_id=ID, state=OPEN), True),
        (Filter(worker="history"), False),
        (Filter(topic="t.fills"), False),
        (Filter(reason="crash"), False),
        (Filter(event_id="other"), False),
        (Filter(state=DISCARDED), False),
        (Filter(since_ms=1_000, until_ms=1_001), True),
        (Filter(since_ms=1_001), False),
        (Filter(until_ms=1_000), False),
    ],
)
def test_every_condition_of_a_filter_must_hold(wanted: Filter, taken: bool) -> None:
    assert bool(list(Letters([letter(at_ms=1_000)]).selected(wanted))) is taken


def test_letters_that_are_alike_are_grouped_with_their_first_and_newest_time() -> None:
    found = Letters(
        [
            letter(offset=1, at_ms=5), letter(offset=2, at_ms=3), letter(offset=3, at_ms=9),
            letter(offset=4, at_ms=4, reason="crash"), mark("state:t.candles:3:3", REDRIVEN),
        ]
    )  # fmt: skip
    assert groups(found.values()) == [
        Group("state", "t.candles", "crash", OPEN, 1, 4, 4),
        Group("state", "t.candles", "invalid_value", OPEN, 2, 3, 5),
        Group("state", "t.candles", "invalid_value", REDRIVEN, 1, 9, 9),
    ]


def test_a_place_is_read_as_it_is_written() -> None:
    for text in ("history:tradetape.fills:2:1517", "my:worker:t:0:0"):
        assert str(Identity.read(text)) == text


@pytest.mark.parametrize(
    "text", ["", "history", "history:fills:2", "history:fills:2:x", ":fills:2:1", "w::0:1", "w:t:-1:1"]
)
def test_what_is_no_place_is_refused_with_its_form(text: str) -> None:
    with pytest.raises(UsageError, match="worker:topic:partition:offset"):
        Identity.read(text)
