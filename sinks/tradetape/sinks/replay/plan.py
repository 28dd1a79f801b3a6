"""What a replay was asked for, and the offsets between which it reads: fixed at its start, so that it ends, and resumes."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

import msgspec

from tradetape.schemas import Catalogue
from tradetape.sinks.errors import ReplayRefused
from tradetape.streams.errors import TopicMissing
from tradetape.streams.processor import Partition
from tradetape.streams.tape import MARGIN_US, Stretch
from tradetape.streams.topic_reader import TopicReader

HISTORY, STATE, TOPIC, TOPICS, STDOUT = "history", "state", "topic", "topics", "stdout"
_SPEED = re.compile(r"([0-9]+(?:\.[0-9]+)?)x")


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """What was asked for. Times in microseconds since 1970, None is open; `speed` is a factor of real time, None for max.

    `kind` is one of HISTORY, STATE, TOPIC, TOPICS, STDOUT, `name` the topic or the prefix of topics. `schema` is the
    history's, `prefix` Redis' and `at_us` the instant of the state; None is the live one.
    """

    kind: str
    name: str = ""
    start_us: int | None = None
    end_us: int | None = None
    topics: tuple[str, ...] = ()
    speed: float | None = None
    schema: str | None = None
    prefix: str | None = None
    at_us: int | None = None
    verbatim: bool = False

    @property
    def into(self) -> str:
        """The target, as it is given."""
        return f"{self.kind}:{self.name}" if self.name else self.kind

    @property
    def is_by_time(self) -> bool:
        """Whether records come by time over all partitions; else as fast as they are read."""
        return self.speed is not None or self.kind == STDOUT

    @property
    def stretch(self) -> Stretch:
        """The event times that are replayed. A state at T holds what was true at T, T included."""
        if self.at_us is None:
            return Stretch(self.start_us, self.end_us)
        behind_us = self.at_us + 1
        return Stretch(self.start_us, behind_us if self.end_us is None else min(self.end_us, behind_us))


class Place(msgspec.Struct, frozen=True):
    """One partition: its oldest offset when the replay was planned, and the offsets from which and up to which it is read."""

    topic: str
    topic_uuid: str
    partition: int
    begin: int
    start: int
    end: int

    @property
    def key(self) -> Partition:
        """Its topic and number."""
        return Partition(self.topic, self.partition)


class Plan(msgspec.Struct, frozen=True):
    """A request with the places it reads."""

    request: Request
    places: tuple[Place, ...]

    @property
    def topics(self) -> tuple[str, ...]:
        """The topics that are read."""
        return tuple(dict.fromkeys(one.topic for one in self.places))

    @property
    def offsets(self) -> int:
        """How many offsets lie between its starts and its ends."""
        return sum(one.end - one.start for one in self.places)


class Progress(msgspec.Struct, frozen=True):
    """How far a replay has come: the next offset of each of the plan's places, or, by time, the last order that was written."""

    next_offsets: tuple[int, ...]
    last: tuple[int, str, int, int] | None = None

    @classmethod
    def none(cls, plan: Plan) -> Progress:
        """Nothing is done."""
        return cls(tuple(one.start for one in plan.places))


def parse_into(text: str) -> tuple[str, str]:
    """Kind and name of a target as people write it. Raises ReplayRefused."""
    kind, _, name = text.partition(":")
    if (kind in (TOPIC, TOPICS) and name) or (kind in (HISTORY, STATE, STDOUT) and text == kind):
        return kind, name
    raise ReplayRefused(
        f"{text!r} is nothing to replay into; there are history, state, topic:NAME, topics:PREFIX, stdout"
    )


def parse_speed(text: str) -> float | None:
    """A factor of real time, such as 1x or 0.5x; None for max. Raises ReplayRefused."""
    if text == "max":
        return None
    found = _SPEED.fullmatch(text)
    if found is None or float(found[1]) == 0:
        raise ReplayRefused(f"{text!r} is no speed: give a factor of real time such as 1x or 10x, or max")
    return float(found[1])


def make_plan(request: Request, *, catalogue: Catalogue, reader: TopicReader, topic_uuid: Callable[[str], str]) -> Plan:
    """Fix where a replay begins and ends. Raises TopicMissing, BrokersUnreachable."""
    wanted = request.topics or tuple(catalogue.topic_name(one) for one in catalogue)
    partitions = reader.partitions(wanted)
    _all_there(request.topics or wanted[:1], partitions)
    ends, begins = reader.ends(partitions), reader.begins(partitions)
    start_us = request.stretch.start_us
    starts = begins if start_us is None else reader.offsets_at(partitions, (start_us - MARGIN_US) // 1_000)
    uuids = {one.topic: topic_uuid(one.topic) for one in {Partition(p.topic, 0): p for p in partitions}.values()}
    return Plan(
        request,
        tuple(
            Place(
                one.topic, uuids[one.topic], one.partition, begins[one],
                start=min(max(starts[one], begins[one]), ends[one]), end=ends[one],
            )
            for one in partitions
        ),
    )  # fmt: skip


def _all_there(named: Sequence[str], partitions: Sequence[Partition]) -> None:
    there = {one.topic for one in partitions}
    for name in named:
        if name not in there:
            raise TopicMissing(f"there is no topic {name}; `tradetape topics apply` creates it")


def refuse_other_topics(plan: Plan, topic_uuid: Callable[[str], str]) -> None:
    """A topic that was made anew has other offsets. Raises ReplayRefused."""
    for topic, uuid in {one.topic: one.topic_uuid for one in plan.places}.items():
        if topic_uuid(topic) != uuid:
            raise ReplayRefused(f"{topic} was made anew since this replay began; start another replay")
