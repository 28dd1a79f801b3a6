"""The ledger finds what is wrong: each kind of violation is planted by itself, in a history that is right otherwise."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from decimal import Decimal
from uuid import UUID

import pytest

import event_content
import ledger as violations
from ledger import Appearance, Finding, Ledger, Place, Stored, Unreadable, judge
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import MarketCondition

TOPIC = "conditions"
RUBBISH = b"\xffrubbish"
START = datetime(2025, 6, 1, tzinfo=UTC)


@dataclass
class World:
    """Ten events of two symbols, one of them twice on the tape, and one record of rubbish, which is a dead letter."""

    ledger: Ledger = field(default_factory=lambda: Ledger(seed=7))
    tape: list[Appearance | Unreadable] = field(default_factory=list)
    rows: list[Stored] = field(default_factory=list)
    letters: dict[Place, int] = field(default_factory=dict)
    unsettled: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        with RecordingProducer(source="test") as producer:
            for number in range(10):
                self.emit(producer, number)
        first = self.event(0)
        self.tape.append(first._replace(place=Place(TOPIC, first.place.partition, 98)))
        self.tape.append(Unreadable(Place(TOPIC, 0, 99), RUBBISH))
        self.ledger.rubbish["MarketCondition"][RUBBISH] += 1
        self.letters[Place(TOPIC, 0, 99)] = 1

    def emit(self, producer: RecordingProducer, number: int) -> None:
        at = START.replace(minute=number)
        event = producer.emit(
            MarketCondition(venue="v", symbol=f"S{number % 2}", scope="s", condition="c", event_time=at)
        )
        self.ledger.emitted(event)
        place = Place(TOPIC, number % 2, number // 2)
        assert event.event_id
        assert event.producer_run_id
        assert event.producer_seq
        digest = event_content.of_event(event)
        key = f"v:S{number % 2}".encode()
        self.tape.append(Appearance(place, key, event.producer_run_id, event.producer_seq, event.event_id, digest))
        self.rows.append(Stored(place, event.event_id, digest))

    def event(self, number: int) -> Appearance:
        found = self.tape[number]
        assert isinstance(found, Appearance)
        return found

    def found(self) -> dict[str, int]:
        """The violations that are found, by kind."""
        finding = Finding("MarketCondition", self.tape, self.rows, self.letters, self.unsettled)
        verdict = judge([finding], self.ledger)
        assert verdict.is_right == (not verdict.violations)
        assert verdict.seed == 7
        return dict(verdict.violations)


@pytest.fixture
def world() -> World:
    return World()


def test_what_is_right_is_right_and_counted(world: World) -> None:
    finding = Finding("MarketCondition", world.tape, world.rows, {Place(TOPIC, 0, 99): 3})
    verdict = judge([finding], world.ledger)
    assert verdict.is_right
    assert dict(verdict.counts) == {
        "emitted": 10, "on the tape": 11, "repeats": 1, "unreadable": 1, "stored": 10, "refused": 1, "refused again": 2,
    }  # fmt: skip
    assert str(verdict).startswith("RIGHT (seed 7)\nemitted 10, on the tape 11, repeats 1, ")


OTHER = "11111111-1111-4111-8111-111111111111"
Plant = Callable[[World], object]


def swap(world: World) -> None:
    """Two events of one symbol change places."""
    first, third = world.event(0), world.event(2)
    world.tape[0], world.tape[2] = third._replace(place=first.place), first._replace(place=third.place)
    world.rows[0], world.rows[2] = world.rows[2]._replace(place=first.place), world.rows[0]._replace(place=third.place)


def vanish(world: World, number: int) -> None:
    """An event that was emitted is neither on the tape nor in the history."""
    del world.tape[number], world.rows[number]


def invent(world: World) -> None:
    """An event that nobody emitted is on the tape and in the history."""
    world.tape.append(Appearance(Place(TOPIC, 0, 90), b"v:S0", "run", 1, OTHER, b"d"))
    world.rows.append(Stored(Place(TOPIC, 0, 90), OTHER, b"d"))


def alter(world: World, number: int) -> None:
    """An event says something else on the tape, and its row what the tape says."""
    world.tape[number] = world.event(number)._replace(digest=b"other")
    world.rows[number] = world.rows[number]._replace(digest=b"other")


PLANTED: dict[str, tuple[Plant, dict[str, int]]] = {
    "an event that never came to the tape": (lambda one: vanish(one, 3), {violations.LOST_BEFORE: 1}),
    "the last event of all": (lambda one: vanish(one, 9), {violations.LOST_BEFORE: 1}),
    "rubbish that never came to the tape": (
        lambda one: one.ledger.rubbish["MarketCondition"].update([b"more"]), {violations.LOST_BEFORE: 1},
    ),
    "rubbish that nobody put there": (
        lambda one: one.ledger.rubbish["MarketCondition"].clear(), {violations.PHANTOM_RECORD: 1},
    ),
    "a record that nobody emitted": (invent, {violations.PHANTOM_RECORD: 1}),
    "an event that says something else on the tape": (lambda one: alter(one, 5), {violations.ALTERED_RECORD: 1}),
    "a repeat that says something else": (
        lambda one: one.tape.__setitem__(10, one.event(10)._replace(digest=b"other")), {violations.ALTERED_RECORD: 1},
    ),
    "an event that overtook another of its key": (swap, {violations.DISORDER: 1}),
    "a key in two partitions": (
        lambda one: (
            one.tape.__setitem__(7, one.event(7)._replace(place=Place(TOPIC, 3, 0))),
            one.rows.__setitem__(7, one.rows[7]._replace(place=Place(TOPIC, 3, 0))),
        ),
        {violations.DISORDER: 1},
    ),
    "a row that is missing": (lambda one: one.rows.pop(4), {violations.LOST: 1}),
    "the last row": (lambda one: one.rows.pop(), {violations.LOST: 1}),
    "rubbish without a dead letter": (lambda one: one.letters.clear(), {violations.LOST: 1}),
    "a row twice": (lambda one: one.rows.append(one.rows[2]), {violations.DOUBLED: 1}),
    "a row for a repeat": (
        lambda one: one.rows.append(one.rows[0]._replace(place=Place(TOPIC, 0, 98))), {violations.DOUBLED: 1},
    ),
    "a row without a record": (
        lambda one: one.rows.append(Stored(Place(TOPIC, 0, 77), OTHER, b"d")), {violations.PHANTOM: 1},
    ),
    "a row in the name of another topic": (
        lambda one: one.rows.append(Stored(Place("others", 0, 0), OTHER, b"d")), {violations.PHANTOM: 1},
    ),
    "a row of another event": (
        lambda one: one.rows.__setitem__(1, one.rows[1]._replace(event_id=OTHER)),
        {violations.ALTERED: 1, violations.LOST: 1},
    ),
    "a row that says something else": (
        lambda one: one.rows.__setitem__(1, one.rows[1]._replace(digest=b"other")), {violations.ALTERED: 1},
    ),
    "a dead letter of what is stored": (
        lambda one: one.letters.__setitem__(one.rows[1].place, 1), {violations.STORED_AND_REFUSED: 1},
    ),
    "a dead letter of nothing": (
        lambda one: one.letters.__setitem__(Place(TOPIC, 3, 5), 1), {violations.REFUSED_FROM_NOWHERE: 1},
    ),
    "an end that was not reached": (lambda one: one.unsettled.append("conditions[0]"), {violations.UNSETTLED: 1}),
}  # fmt: skip


@pytest.mark.parametrize("what", PLANTED)
def test_a_violation_is_found_and_nothing_beside_it(world: World, what: str) -> None:
    plant, expected = PLANTED[what]
    plant(world)
    assert world.found() == expected


def test_a_refused_event_is_not_lost_unless_it_also_lies_where_it_was_not_refused(world: World) -> None:
    world.rows.pop(0)
    world.letters[world.event(0).place] = 1
    assert world.found() == {violations.LOST: 1}, "its repeat should have been stored"
    world.letters[world.event(10).place] = 1
    assert world.found() == {}


def test_a_run_may_have_taken_its_last_event_with_it_when_the_next_one_delivered_it(world: World) -> None:
    """A bot that was killed between `emit` and its delivery emits the same event again in its next run."""
    world.tape[0] = world.event(0)._replace(run_id="next run", seq=1, digest=b"stamped anew")
    world.rows[0] = world.rows[0]._replace(digest=b"stamped anew")
    world.tape.pop(10)
    assert world.found() == {}


def test_without_a_ledger_the_history_is_judged_by_the_tape(world: World) -> None:
    world.rows.pop(4)
    verdict = judge([Finding("MarketCondition", world.tape, world.rows, world.letters)])
    assert dict(verdict.violations) == {violations.LOST: 1}


def test_a_report_says_what_is_wrong_how_often_and_where(world: World) -> None:
    del world.rows[3:]
    report = str(judge([Finding("MarketCondition", world.tape, world.rows, world.letters)], world.ledger))
    assert report.startswith("WRONG (seed 7)\n")
    assert "lost in the history 7, doubled in the history 0" in report
    last = report.splitlines()[-1]
    assert last.startswith("lost in the history 7: ")
    assert last.count(";") == violations.EXAMPLES - 1


def test_a_ledgers_choices_come_from_its_seed(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SEED", "1234")
    first, second = Ledger(), Ledger()
    assert capsys.readouterr().out == "seed 1234\n" * 2
    assert [first.rng.random() for _ in range(3)] == [second.rng.random() for _ in range(3)]


CONTENT = {
    "event_id": "6f1d7a3e-1111-4222-8333-444455556666", "event_time": START, "producer_seq": 2**53 + 1,
    "price": Decimal("64123.10"), "zero": Decimal("0E-18"), "score": -0.5, "is_final": True, "note": None, "tags": {"a": "b"},
    "values": {"rsi_14": 50.0, "my_own": 1e300, "macd": -0.0}, "legs": [{"index": 1, "price": Decimal("1.50")}],
}  # fmt: skip
ROW = {
    "event_id": UUID("6f1d7a3e-1111-4222-8333-444455556666"), "event_time": START, "producer_seq": 2**53 + 1,
    "price": Decimal("64123.100000000000000000"), "zero": Decimal("0.000000000000000000"), "score": -0.5, "is_final": True,
    "note": None, "tags": {"a": "b"}, "rsi_14": 50.0, "macd": 0.0, "ema_50": None, "extra": {"my_own": 10**300},
    "legs": [{"index": 1, "price": "1.5"}], "topic": "t", "partition": 0, "offset": 1,
}  # fmt: skip
"""The same as a row of the history has it: scale 18, documents as JSON, indicators in columns."""


def test_an_event_and_its_row_have_one_digest() -> None:
    # 1e300 is not 10**300, but it is the double that JSON's reader makes of it.
    assert event_content.of_row(ROW, CONTENT.keys()) == event_content.of_fields(CONTENT)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("event_id", UUID("6f1d7a3e-1111-4222-8333-444455556667")), ("event_time", START.replace(microsecond=1)),
        ("producer_seq", 2**53), ("price", Decimal("64123.100000000000000001")), ("score", -0.5000000000000001),
        ("is_final", False), ("is_final", None), ("note", ""), ("tags", {}), ("rsi_14", 50.00000000000001),
        ("rsi_14", None), ("ema_50", 0.0), ("extra", None), ("legs", [{"index": 1, "price": "1.51"}]), ("legs", []),
    ],
)  # fmt: skip
def test_a_row_that_differs_anywhere_has_another_digest(name: str, value: object) -> None:
    assert event_content.of_row(ROW | {name: value}, CONTENT.keys()) != event_content.of_fields(CONTENT)
