"""The registry's client: every answer is a schema, an id or an error that says what is wrong, and nothing leaks."""

from __future__ import annotations

import base64
import json
import threading
from collections.abc import Mapping

import pytest

from scripted_http import Answer, serving
from tradetape.schemas import CATALOGUE, SchemasError, avro_schema
from tradetape.schemas.errors import IncompatibleSchema, RegistryError, RegistryRefused, RegistryUnreachable
from tradetape.schemas.registry import MAX_ANSWER_BYTES, Registry, guard, missing, push, trusted
from tradetape.schemas.released import Version

SUBJECT = "tradetape.fills-value"
FILL = CATALOGUE.by_record("Fill")
VERSIONS = f"GET /subjects/{SUBJECT}/versions"
REGISTER = f"POST /subjects/{SUBJECT}/versions"
CONFIG = f"/config/{SUBJECT}"
NO_SUBJECT = Answer(404, '{"error_code": 40401, "message": "Subject not found."}')


def held(schema_id: int, schema: object, **more: object) -> Answer:
    return Answer(200, json.dumps({"id": schema_id, "schema": json.dumps(schema), "subject": SUBJECT, **more}))


def versions(answers: Mapping[str, Answer], *, timeout_s: float = 10) -> dict[int, avro_schema.Schema]:
    with serving(answers) as server, Registry(server.url, timeout_s=timeout_s) as registry:
        return registry.versions(SUBJECT)


def test_the_versions_of_a_subject_come_by_id_oldest_first() -> None:
    answers = {
        VERSIONS: Answer(200, "[1, 3]"),
        f"{VERSIONS}/1": held(70, {"type": "record", "name": "A"}),
        f"{VERSIONS}/3": held(12, {"type": "record", "name": "B"}, schemaType="AVRO"),
    }
    assert list(versions(answers).items()) == [
        (70, {"type": "record", "name": "A"}), (12, {"type": "record", "name": "B"}),
    ]  # fmt: skip


def test_a_subject_or_version_that_is_not_there_is_no_error() -> None:
    assert versions({VERSIONS: NO_SUBJECT}) == {}
    gone = Answer(404, '{"error_code": 40402, "message": "Version not found."}')
    assert versions({VERSIONS: Answer(200, "[1]"), f"{VERSIONS}/1": gone}) == {}


def test_what_is_not_avro_is_passed_over() -> None:
    assert versions({VERSIONS: Answer(200, "[1]"), f"{VERSIONS}/1": held(1, {}, schemaType="PROTOBUF")}) == {}


@pytest.mark.parametrize("status", [500, 502, 503, 504, 429, 408])
def test_a_fault_of_its_own_is_one_that_waiting_may_mend(status: int) -> None:
    with pytest.raises(RegistryUnreachable, match=f"answers {status}: busy"):
        versions({VERSIONS: Answer(status, '{"error_code": 50001, "message": "busy"}')})


@pytest.mark.parametrize("status", [301, 400, 401, 403, 405, 422])
def test_a_refusal_is_told_with_its_reason(status: int) -> None:
    with pytest.raises(RegistryRefused, match=f"refuses GET .*: {status} not you"):
        versions({VERSIONS: Answer(status, '{"error_code": 1, "message": "not you"}')})


@pytest.mark.parametrize(
    "answer",
    [Answer(404, "<html>Not Found</html>"), Answer(404), Answer(200, "<html>hello</html>"), Answer(200, '{"a": 1}')],
    ids=["a page", "nothing", "another site", "another API"],
)
def test_what_is_no_registry_is_refused(answer: Answer) -> None:
    with pytest.raises(RegistryRefused, match=r"no schema registry at|does not answer as a schema registry does"):
        versions({VERSIONS: answer})


@pytest.mark.parametrize("schema", ['"string"', "[]", "{"])
def test_a_version_that_is_no_records_schema_is_refused(schema: str) -> None:
    answer = Answer(200, json.dumps({"id": 7, "schema": schema}))
    with pytest.raises(RegistryRefused, match="under id 7"):
        versions({VERSIONS: Answer(200, "[1]"), f"{VERSIONS}/1": answer})


def test_an_answer_without_end_is_not_read_to_it() -> None:
    with pytest.raises(RegistryRefused, match=f"more than {MAX_ANSWER_BYTES} bytes"):
        versions({VERSIONS: Answer(200, " " * (MAX_ANSWER_BYTES + 1))})


def test_nobody_listening_is_unreachable_and_the_password_stays_ours() -> None:
    with Registry("http://bot:hunter2@127.0.0.1:1/api/", timeout_s=5) as registry:
        assert registry.address == "http://127.0.0.1:1/api"
        with pytest.raises(RegistryUnreachable, match=r"http://127\.0\.0\.1:1/api cannot be reached") as error:
            registry.versions(SUBJECT)
    assert "hunter2" not in str(error.value)


def test_all_answers_together_have_one_time_limit() -> None:
    never = threading.Event()
    answers = {VERSIONS: Answer(200, "[1, 2]"), f"{VERSIONS}/1": held(1, {}), f"{VERSIONS}/2": Answer(200, "", never)}
    with pytest.raises(RegistryUnreachable, match="timed out"):
        versions(answers, timeout_s=0.5)
    never.set()
    with serving({VERSIONS: NO_SUBJECT}) as server, Registry(server.url, timeout_s=0) as registry:
        with pytest.raises(RegistryUnreachable, match="not all of its answers came within 0 s"):
            registry.versions(SUBJECT)
        assert server.asked == []


def test_user_and_password_of_the_address_are_sent_decoded() -> None:
    with serving({f"GET /api{VERSIONS[4:]}": NO_SUBJECT}) as server:
        url = server.url.replace("http://", "http://bot:p%40ss@") + "/api"
        with Registry(url, timeout_s=10) as registry:
            assert registry.versions(SUBJECT) == {}
    (asked,) = server.asked
    assert asked.authorization is not None
    assert base64.b64decode(asked.authorization.removeprefix("Basic ")) == b"bot:p@ss"


def test_a_subject_cannot_lead_to_another_path() -> None:
    with serving({}) as server, Registry(server.url, timeout_s=10) as registry:
        with pytest.raises(RegistryError):
            registry.versions("../config?x")
        assert [one.line for one in server.asked] == ["GET /subjects/..%2Fconfig%3Fx/versions"]


@pytest.mark.parametrize(
    "url",
    [
        "127.0.0.1:8081",
        "ftp://host/",
        "http://",
        "http://host:port",
        "http://[::1",
        "http://bot:hunter2#@host",
        "http://a b",
    ],
)
def test_what_is_no_address_is_refused_without_telling_it(url: str) -> None:
    with pytest.raises(ValueError, match="must be an address such as http://host:8081") as error:
        Registry(url, timeout_s=1)
    assert "hunter2" not in str(error.value)


def test_an_address_is_shown_without_its_password() -> None:
    with Registry("https://a:b%40c@host:8081/x/", timeout_s=1) as registry:
        assert registry.address == "https://host:8081/x"


@pytest.mark.parametrize("host", ["x" * 70, "ho..st"])
def test_a_name_that_no_host_can_have_is_unreachable(host: str) -> None:
    with Registry(f"http://{host}/", timeout_s=1) as registry, pytest.raises(RegistryUnreachable):
        registry.versions(SUBJECT)


# -- push --------------------------------------------------------------------------------------------------------

RELEASED = [Version(1, FILL.schema, ""), Version(2, {**FILL.schema, "aliases": ["Filled"]}, "")]
LEVEL = Answer(200, '{"compatibilityLevel": "FULL_TRANSITIVE"}')


def test_push_registers_what_is_missing() -> None:
    answers = {
        VERSIONS: Answer(200, "[1]"), f"{VERSIONS}/1": held(5, FILL.schema), REGISTER: Answer(200, '{"id": 6}'),
    }  # fmt: skip
    with serving(answers) as server, Registry(server.url, timeout_s=10) as registry:
        assert [tuple(one) for one in push(registry, SUBJECT, RELEASED)] == [(1, 5, True), (2, 6, False)]
    (write,) = [one for one in server.asked if not one.line.startswith("GET")]
    assert write.line == REGISTER
    assert json.loads(json.loads(write.body)["schema"]) == RELEASED[1].schema


@pytest.mark.parametrize(
    ("answer", "was"),
    [
        (Answer(404, '{"error_code": 40408}'), "the registry's default"),
        (Answer(200, '{"compatibilityLevel": "BACKWARD"}'), "BACKWARD"),
        (LEVEL, None),
    ],
)
def test_guarding_sets_the_compatibility_where_it_is_another_and_says_which(answer: Answer, was: str | None) -> None:
    answers = {f"GET {CONFIG}": answer, f"PUT {CONFIG}": Answer(200, "{}")}
    with serving(answers) as server, Registry(server.url, timeout_s=10) as registry:
        assert guard(registry, SUBJECT, dry_run=True) == was
        assert [one.line for one in server.asked] == [f"GET {CONFIG}"]
        assert guard(registry, SUBJECT) == was
    writes = [one.body for one in server.asked if one.line == f"PUT {CONFIG}"]
    assert [json.loads(one) for one in writes] == ([] if was is None else [{"compatibility": "FULL_TRANSITIVE"}])


def test_push_writes_nothing_where_nothing_is_missing_nor_in_a_dry_run() -> None:
    answers = {VERSIONS: Answer(200, "[1]"), f"{VERSIONS}/1": held(5, FILL.schema), f"GET {CONFIG}": LEVEL}
    with serving(answers) as server:
        with Registry(server.url, timeout_s=10) as registry:
            push(registry, SUBJECT, RELEASED[:1])
            planned = push(registry, SUBJECT, RELEASED, dry_run=True)
        assert [tuple(one) for one in planned] == [(1, 5, True), (2, None, False)]
        assert [one.line for one in server.asked if not one.line.startswith("GET")] == []


def test_an_incompatible_version_names_the_subject_and_the_registrys_reason() -> None:
    refusal = Answer(409, '{"error_code": 409, "message": "price at /fields/3"}')
    answers = {VERSIONS: NO_SUBJECT, f"GET {CONFIG}": LEVEL, REGISTER: refusal}
    with (
        serving(answers) as server,
        Registry(server.url, timeout_s=10) as registry,
        pytest.raises(IncompatibleSchema) as error,
    ):
        push(registry, SUBJECT, RELEASED)
    assert (error.value.subject, error.value.reason) == (SUBJECT, "price at /fields/3")
    assert SUBJECT in str(error.value)
    assert "price at /fields/3" in str(error.value)


@pytest.mark.parametrize(
    ("record", "why"),
    [
        ({"fields": [*FILL.schema["fields"], {"name": "tier", "type": "string", "doc": "x"}]}, "Fill.tier: was added later"),
        ({"fields": [one for one in FILL.schema["fields"] if one["name"] != "price"]}, "price has no default, so it must stay"),
        ({"name": "Filled"}, "the record's name and namespace must stay"),
    ],
    ids=["added", "dropped", "renamed"],
)  # fmt: skip
def test_an_incompatible_version_is_told_with_what_it_changes(record: dict[str, object], why: str) -> None:
    changed = Version(2, {**FILL.schema, **record}, "")
    answers = {VERSIONS: Answer(200, "[1]"), f"{VERSIONS}/1": held(5, FILL.schema), REGISTER: Answer(409, "{}")}
    with (
        serving(answers) as server,
        Registry(server.url, timeout_s=10) as registry,
        pytest.raises(IncompatibleSchema) as error,
    ):
        push(registry, SUBJECT, [RELEASED[0], changed])
    assert f"v2 beside id 5: {why}" in error.value.reason


def test_every_error_of_a_registry_is_one_of_the_rooms() -> None:
    for error in (RegistryUnreachable, RegistryRefused, IncompatibleSchema):
        assert issubclass(error, RegistryError)
    assert issubclass(RegistryError, SchemasError)


# -- what is read with -------------------------------------------------------------------------------------------


def test_words_in_doc_make_no_other_schema() -> None:
    reworded = json.loads(json.dumps(FILL.schema))
    reworded["doc"] = "Another sentence."
    found = {CATALOGUE.subject(one): {number: one.schema} for number, one in enumerate(CATALOGUE, start=1)}
    assert missing(found, CATALOGUE) == []
    assert missing({**found, SUBJECT: {9: reworded}}, CATALOGUE) == []
    assert missing({**found, SUBJECT: {}}, CATALOGUE) == [SUBJECT]


def _changed(change: str) -> avro_schema.Schema:
    text = json.dumps(FILL.schema)
    changed: avro_schema.Schema = json.loads(text)
    if change == "another record":
        changed["name"] = "Trade"
    elif change == "itself inside":
        changed["fields"].append({"name": "more", "type": ["null", "Fill"], "default": None, "doc": "x"})
    elif change == "another scale":
        changed = json.loads(text.replace('"scale": 18', '"scale": 8'))
    elif change == "another unit":
        changed = json.loads(text.replace("timestamp-micros", "timestamp-millis"))
    elif change == "no logical type":
        changed = json.loads(text.replace(', "logicalType": "timestamp-micros"', ""))
    else:
        changed["fields"].append({"name": "note", "type": ["null", "string"], "default": None, "doc": "A note."})
    assert changed != FILL.schema
    return changed


@pytest.mark.parametrize(
    "change", ["another record", "itself inside", "another scale", "another unit", "no logical type"]
)
def test_a_version_that_breaks_a_rule_of_ours_is_not_read_with(change: str) -> None:
    assert trusted({SUBJECT: {4: FILL.schema, 5: _changed(change)}}, CATALOGUE)[SUBJECT] == {4: FILL.schema}


def test_a_version_of_a_newer_package_is_read_with() -> None:
    newer = _changed("a new field")
    assert trusted({SUBJECT: {4: FILL.schema, 5: newer}}, CATALOGUE)[SUBJECT] == {4: FILL.schema, 5: newer}


def test_an_id_of_the_contents_range_belongs_to_its_content_alone() -> None:
    imported = {FILL.schema_id: FILL.schema}
    assert trusted({SUBJECT: imported}, CATALOGUE)[SUBJECT] == imported
    assert trusted({SUBJECT: {FILL.schema_id ^ 1: FILL.schema}}, CATALOGUE)[SUBJECT] == {}
