"""A replay's request, pace and refusals: what is asked for in words, when an event is due, what must not be written to."""

from __future__ import annotations

import pytest

from tradetape.schemas import CATALOGUE
from tradetape.sinks.errors import ReplayRefused, SchemaNameRefused
from tradetape.sinks.history.migrate import shipped
from tradetape.sinks.history.schema import checked, in_schema
from tradetape.sinks.replay.pace import Pace, when_due
from tradetape.sinks.replay.plan import TOPIC, TOPICS, Place, Plan, Request, parse_into, parse_speed
from tradetape.sinks.replay.targets.topics import target_topics
from tradetape.streams.record import Record
from tradetape.streams.time_order import Timed

SECOND_US = 1_000_000


class Clock:
    """A clock that only moves when somebody sleeps, or the test moves it."""

    def __init__(self) -> None:
        self.now = 100.0
        self.slept: list[float] = []

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.slept.append(seconds)
        self.now += seconds


def entry(second: float) -> Timed:
    return Timed(int(second * SECOND_US), Record("t", 0, int(second * 10), None, b"x", (), 0))


@pytest.mark.parametrize("speed", [1.0, 10.0, 0.5])
def test_events_come_as_far_apart_as_they_were_divided_by_the_speed(speed: float) -> None:
    clock = Clock()
    pace = Pace(speed, clock=clock, sleep=clock.sleep)
    came = [
        (clock.now, one.time_us / SECOND_US)
        for batch in when_due(map(entry, (50, 51, 51, 61, 121)), pace, most=100)
        for one in batch
    ]
    assert [second for _, second in came] == [50, 51, 51, 61, 121]
    assert [at for at, _ in came] == pytest.approx([100 + (second - 50) / speed for _, second in came])


def test_what_is_due_together_comes_together_but_never_more_than_asked_for() -> None:
    clock = Clock()
    pace = Pace(1, clock=clock, sleep=clock.sleep)
    batches = list(when_due(map(entry, (1, 1, 1, 2, 2)), pace, most=2))
    assert [[one.time_us // SECOND_US for one in batch] for batch in batches] == [[1, 1], [1], [2, 2]]


def test_a_replay_that_is_late_does_not_wait_until_it_has_caught_up() -> None:
    clock = Clock()
    pace = Pace(1, clock=clock, sleep=clock.sleep)
    stream = when_due(map(entry, (0, 1, 2, 30)), pace, most=1)
    next(stream)
    clock.now += 10  # a slow target
    next(stream)
    next(stream)
    assert clock.slept == []
    list(stream)
    assert clock.now == pytest.approx(130)


def test_targets_and_speeds_are_read_as_people_write_them() -> None:
    assert parse_into("history") == ("history", "")
    assert parse_into("topics:again.") == ("topics", "again.")
    assert [parse_speed(text) for text in ("1x", "10x", "0.5x", "max")] == [1.0, 10.0, 0.5, None]
    for text in ("postgres", "topic:", "topics", "history:x", "stdout:x", ""):
        with pytest.raises(ReplayRefused, match="history, state, topic:NAME"):
            parse_into(text)
    for text in ("fast", "0x", "-1x", "1", "1e3x"):
        with pytest.raises(ReplayRefused, match="1x or 10x"):
            parse_speed(text)


def plan(request: Request, *topics: str) -> Plan:
    return Plan(request, tuple(Place(one, "u", 0, begin=0, start=0, end=9) for one in topics))


def test_a_topic_of_the_live_prefix_is_no_target() -> None:
    every = [CATALOGUE.topic_name(one) for one in CATALOGUE]
    with pytest.raises(ReplayRefused, match="live prefix"):
        target_topics(plan(Request(kind=TOPICS, name=CATALOGUE.prefix), *every), CATALOGUE)
    for name in (*every, CATALOGUE.dead_letters_topic):
        with pytest.raises(ReplayRefused, match="live prefix"):
            target_topics(plan(Request(kind=TOPIC, name=name), every[0]), CATALOGUE)
    found = target_topics(plan(Request(kind=TOPICS, name="again."), *every), CATALOGUE)
    assert found == {one: "again." + one.removeprefix(CATALOGUE.prefix) for one in every}


def test_a_state_at_an_instant_holds_that_instant_and_nothing_after_it() -> None:
    stretch = Request(kind="state", at_us=1_000).stretch
    assert (stretch.holds(1_000), stretch.holds(1_001)) == (True, False)
    assert Request(kind="state", at_us=1_000, end_us=500).stretch.end_us == 500


def test_every_migration_speaks_of_the_other_schema_alone_once_its_name_is_put_in() -> None:
    for migration in shipped():
        text = in_schema(migration.text, "rebuilt")
        assert "tradetape." not in text
        assert "'tradetape'" not in text
        assert "rebuilt." in text


@pytest.mark.parametrize("name", ["", "Big", "a b", "x;drop", "pg_temp", "1a", "a" * 64, "a-b"])
def test_a_name_that_sql_would_not_take_is_no_schema(name: str) -> None:
    with pytest.raises(SchemaNameRefused):
        checked(name)
