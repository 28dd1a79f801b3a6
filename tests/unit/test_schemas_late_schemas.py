"""A schema that is new to a process: found at the first record that names it, waited for, and never guessed."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from scripted_http import Answer, ScriptedServer, serving
from tradetape.producers.codecs import codec_of
from tradetape.producers.settings import Settings
from tradetape.schemas import CATALOGUE, Codec, DecodeError, avro_schema
from tradetape.schemas.errors import RegistryUnreachable
from tradetape.schemas.late_schemas import ASK_AGAIN_S, MAX_ASKING_S, UNKNOWN_S, LateSchemas
from tradetape.schemas.registry import Registry

SUBJECT = "tradetape.fills-value"
TOPIC = "tradetape.fills"
FILL = CATALOGUE.by_record("Fill")
GOLDEN = (Path(avro_schema.__file__).parent / "released" / "golden" / "Fill.v1.bin").read_bytes()
LATE_ID = 70
PLACES = f"GET /schemas/ids/{LATE_ID}/versions"
VERSION = f"GET /subjects/{SUBJECT}/versions/2"
UNKNOWN = Answer(404, '{"error_code": 40403, "message": "Schema not found"}')
AWAY = Answer(503)


def wider(**field: Any) -> dict[str, Any]:
    """A later version of Fill, whose last field is new."""
    schema = json.loads(json.dumps(FILL.schema))
    added = {"name": "venue_fee_tier", "type": ["null", "string"], "doc": "The venue's name of it.", "default": None}
    schema["fields"].append({**added, **field})
    return dict(schema)


def places(subject: str = SUBJECT) -> Answer:
    return Answer(200, json.dumps([{"subject": "another-value", "version": 9}, {"subject": subject, "version": 2}]))


def held(schema: object, **more: object) -> Answer:
    return Answer(200, json.dumps({"id": LATE_ID, "schema": json.dumps(schema), **more}))


def framed(schema_id: int = LATE_ID, tail: bytes = b"\2\6vip") -> bytes:
    """The golden fill as a newer producer writes it."""
    return b"\0" + schema_id.to_bytes(4, "big") + GOLDEN[5:] + tail


class Clock:
    """A clock under control."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving({}) as server:
        yield server


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def late(server: ScriptedServer, clock: Clock) -> LateSchemas:
    return LateSchemas(lambda: Registry(server.url, timeout_s=10), clock=clock)


@pytest.fixture
def codec(late: LateSchemas) -> Codec:
    return Codec(CATALOGUE, look_up=late)


def test_a_later_version_is_found_at_its_first_record_and_asked_for_once(codec: Codec, server: ScriptedServer) -> None:
    server.answers |= {PLACES: places(), VERSION: held(wider())}
    expected = codec.decode(TOPIC, GOLDEN)
    assert [codec.decode(TOPIC, framed()) for _ in range(3)] == [expected] * 3
    assert [one.line for one in server.asked] == [PLACES, VERSION]


def test_the_registrys_id_of_our_own_version_is_read_as_what_it_is(codec: Codec, server: ScriptedServer) -> None:
    server.answers |= {PLACES: places(), VERSION: held(FILL.schema)}
    assert codec.decode(TOPIC, framed(tail=b"")) == codec.decode(TOPIC, GOLDEN)


def test_known_ids_and_those_of_the_content_are_not_asked_about(codec: Codec, server: ScriptedServer) -> None:
    codec.decode(TOPIC, GOLDEN)
    with pytest.raises(DecodeError, match="unknown_schema_id"):
        codec.decode(TOPIC, framed(avro_schema.FIRST_CONTENT_ID + 5))
    foreign = b"\0" + CATALOGUE.by_record("Trade").schema_id.to_bytes(4, "big") + GOLDEN[5:]
    with pytest.raises(DecodeError, match="foreign_schema_id"):
        codec.decode(TOPIC, foreign)
    assert server.asked == []


@pytest.mark.parametrize(
    "answers",
    [
        {PLACES: UNKNOWN},
        {PLACES: places("another-value")},
        {PLACES: places(), VERSION: Answer(404, '{"error_code": 40402}')},
        {PLACES: places(), VERSION: held("string")},
        {PLACES: places(), VERSION: Answer(200, json.dumps({"id": LATE_ID, "schema": "{"}))},
        {PLACES: places(), VERSION: held({}, schemaType="PROTOBUF")},
    ],
    ids=["never given", "of another subject", "deleted meanwhile", "no record", "no JSON", "no Avro"],
)
def test_what_is_no_schema_of_the_topic_is_a_dead_letter_and_asked_about_once_a_minute(
    codec: Codec, server: ScriptedServer, clock: Clock, answers: dict[str, Answer]
) -> None:
    server.answers |= answers
    for _ in range(100):
        with pytest.raises(DecodeError, match="unknown_schema_id: schema 70 is not known here"):
            codec.decode(TOPIC, framed())
    assert [one.line for one in server.asked] == list(answers)
    clock.now_s += UNKNOWN_S
    server.answers |= {PLACES: places(), VERSION: held(wider())}
    codec.decode(TOPIC, framed())


@pytest.mark.parametrize(
    "schema", [wider(type=["null", "Fill"]), wider(default=...), {**FILL.schema, "name": "Filled"}],
    ids=["within itself", "no default", "another record"],
)  # fmt: skip
def test_a_schema_that_breaks_our_rules_is_not_read_with(
    codec: Codec, server: ScriptedServer, schema: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    schema["fields"][-1] = {name: value for name, value in schema["fields"][-1].items() if value is not ...}
    server.answers |= {PLACES: places(), VERSION: held(schema)}
    with caplog.at_level(logging.WARNING, logger="tradetape"), pytest.raises(DecodeError, match="unknown_schema_id"):
        codec.decode(TOPIC, framed())
    assert f"under id {LATE_ID} of {SUBJECT} will not be read" in caplog.text


@pytest.mark.parametrize(
    "answer", [AWAY, Answer(500), Answer(429), Answer(401), Answer(404, "<html>a proxy's page</html>"), Answer(200, "?")],
    ids=["away", "broken", "busy", "no entry", "a page", "nonsense"],
)  # fmt: skip
@pytest.mark.parametrize("path", [PLACES, VERSION])
def test_a_record_waits_while_the_registry_cannot_say_and_is_read_once_it_can(
    codec: Codec, server: ScriptedServer, clock: Clock, answer: Answer, path: str
) -> None:
    server.answers |= {PLACES: places(), VERSION: held(wider())} | {path: answer}
    with pytest.raises(RegistryUnreachable, match=f"a record waits for schema {LATE_ID} of {SUBJECT}: "):
        codec.decode(TOPIC, framed())
    asked = len(server.asked)
    for _ in range(100):
        with pytest.raises(RegistryUnreachable, match=f"schema {LATE_ID} of"):
            codec.decode(TOPIC, framed())
    assert len(server.asked) == asked, "a registry that is away is left alone for a moment"
    clock.now_s += ASK_AGAIN_S
    server.answers |= {PLACES: places(), VERSION: held(wider())}
    codec.decode(TOPIC, framed())


def test_asking_about_many_ids_gives_way_now_and_then_and_comes_to_an_end(clock: Clock) -> None:
    asked = []

    class Slow(Registry):
        def find(self, subject: str, schema_id: int) -> None:
            asked.append(schema_id)
            clock.now_s += 1.5

    late = LateSchemas(lambda: Slow("http://127.0.0.1:1", timeout_s=1), clock=clock)

    def ask_all() -> None:
        for schema_id in range(1, 31):
            assert late.find(FILL, SUBJECT, schema_id) is None

    with pytest.raises(RegistryUnreachable, match="was asked about unknown ids for 30 s"):
        ask_all()
    assert len(asked) * 1.5 <= MAX_ASKING_S + 1.5
    ask_all()
    assert asked == list(range(1, 31))


def test_what_was_found_is_kept_for_a_start_without_the_registry(tmp_path: Path, server: ScriptedServer) -> None:
    for number, one in enumerate(CATALOGUE, start=1):
        path = f"GET /subjects/tradetape.{one.topic}-value/versions"
        server.answers[path] = Answer(200, "[1]")
        server.answers[f"{path}/1"] = Answer(200, json.dumps({"id": number, "schema": json.dumps(one.schema)}))
    settings = Settings(schema_registry_url=server.url, cache=str(tmp_path))
    codec = codec_of(settings)
    server.answers |= {PLACES: places(), VERSION: held(wider())}
    expected = codec.decode(TOPIC, framed())
    server.answers = dict.fromkeys(server.answers, AWAY)
    assert codec_of(settings).decode(TOPIC, framed()) == expected
