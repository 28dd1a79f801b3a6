"""A process's codec: the registry is asked once, what it said is kept, and a damaged or lost file is no disaster."""

from __future__ import annotations

import json
import logging
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest

from scripted_http import Answer, ScriptedServer, serving
from tradetape.producers import SettingsError
from tradetape.producers.codecs import codec_of
from tradetape.producers.settings import Settings
from tradetape.schemas import CATALOGUE, Codec
from tradetape.schemas.errors import NotRegistered, RegistryDenied, RegistryUnreachable

GOLDEN_TOPIC = "tradetape.fills"


def answers(first_id: int, *, prefix: str = "tradetape.") -> dict[str, Answer]:
    """A registry that holds every head, numbered from an id on."""
    given = {}
    for number, one in enumerate(CATALOGUE.with_prefix(prefix), start=first_id):
        path = f"GET /subjects/{prefix}{one.topic}-value/versions"
        given[path] = Answer(200, "[1]")
        given[f"{path}/1"] = Answer(200, json.dumps({"id": number, "schema": json.dumps(one.schema)}))
    return given


@pytest.fixture
def server() -> Iterator[ScriptedServer]:
    with serving(answers(1)) as server:
        yield server


@pytest.fixture
def settings(server: ScriptedServer, tmp_path: Path) -> Settings:
    return Settings(schema_registry_url=server.url, cache=str(tmp_path / "cache"))


def ids(codec: Codec) -> list[int]:
    """The ids that the codec writes under, in the catalogue's order."""
    return [int.from_bytes(codec._frames[one.record][1:], "big") for one in codec.catalogue]


def kept(settings: Settings) -> Path:
    assert settings.cache
    (path,) = Path(settings.cache, "registries").iterdir()
    return path


CONTENT_IDS = [one.schema_id for one in CATALOGUE]
COUNT = len(CONTENT_IDS)


def test_without_a_registry_ids_come_from_the_content_and_nothing_is_written(tmp_path: Path) -> None:
    codec = codec_of(Settings(cache=str(tmp_path), topic_prefix="desk7."))
    assert ids(codec) == CONTENT_IDS
    assert codec.catalogue.prefix == "desk7."
    assert list(tmp_path.iterdir()) == []


def test_with_a_registry_ids_are_its_own(settings: Settings) -> None:
    assert ids(codec_of(settings)) == list(range(1, COUNT + 1))


def test_what_it_said_is_used_while_it_is_away(
    server: ScriptedServer, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    before = ids(codec_of(settings))
    server.answers = dict.fromkeys(server.answers, Answer(503))
    with caplog.at_level(logging.WARNING, logger="tradetape"):
        assert ids(codec_of(settings)) == before
    assert len(caplog.records) == 1


def test_a_registry_that_numbers_anew_is_believed_over_what_was_kept(
    server: ScriptedServer, settings: Settings
) -> None:
    codec_of(settings)
    server.answers = answers(501)
    assert ids(codec_of(settings)) == list(range(501, 501 + COUNT))
    server.answers = {}
    server.answers = dict.fromkeys(answers(1), Answer(500))
    assert ids(codec_of(settings)) == list(range(501, 501 + COUNT))


def test_each_registry_and_prefix_has_a_file_of_its_own_without_a_password(
    server: ScriptedServer, settings: Settings
) -> None:
    with_password = Settings(
        schema_registry_url=server.url.replace("http://", "http://bot:hunter2@"), cache=settings.cache
    )
    codec_of(with_password)
    assert "hunter2" not in kept(settings).read_text(encoding="utf-8")
    codec_of(settings)
    path = kept(settings)
    server.answers |= answers(50, prefix="desk7.")
    codec_of(Settings(schema_registry_url=server.url, cache=settings.cache, topic_prefix="desk7."))
    assert len(list(path.parent.iterdir())) == 2


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"\xff\xfe", b"[]", b'{"registry": "x", "subjects": {"a": {"no": {}}}}'],
    ids=["emptied", "cut short", "garbage", "another shape", "no ids"],
)  # fmt: skip
def test_a_damaged_file_is_passed_over_with_a_warning_and_written_anew(
    server: ScriptedServer, settings: Settings, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    codec_of(settings)
    whole = kept(settings).read_bytes()
    kept(settings).write_bytes(damage)
    there, server.answers = server.answers, dict.fromkeys(server.answers, Answer(503))
    with pytest.raises(RegistryUnreachable), caplog.at_level(logging.WARNING, logger="tradetape"):
        codec_of(settings)
    assert "passed over" in caplog.text
    server.answers = there
    codec_of(settings)
    assert kept(settings).read_bytes() == whole


def test_what_was_kept_of_an_older_package_lacks_the_new_schema_and_says_so(
    server: ScriptedServer, settings: Settings
) -> None:
    codec_of(settings)
    older = json.loads(kept(settings).read_bytes())
    older["subjects"]["tradetape.fills-value"] = {}
    kept(settings).write_text(json.dumps(older), encoding="utf-8")
    server.answers = dict.fromkeys(server.answers, Answer(503))
    with pytest.raises(NotRegistered, match=r"tradetape\.fills-value; run `tradetape schemas push`"):
        codec_of(settings)


def test_a_registry_that_refuses_is_an_error_whatever_was_kept(server: ScriptedServer, settings: Settings) -> None:
    codec_of(settings)
    server.answers = dict.fromkeys(server.answers, Answer(401, '{"error_code": 401, "message": "who are you"}'))
    with pytest.raises(RegistryDenied, match="who are you"):
        codec_of(settings)


def test_a_folder_that_cannot_be_written_is_a_warning(
    server: ScriptedServer, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way", encoding="utf-8")
    settings = Settings(schema_registry_url=server.url, cache=str(tmp_path / "file"))
    with caplog.at_level(logging.WARNING, logger="tradetape"):
        assert ids(codec_of(settings)) == list(range(1, COUNT + 1))
    assert "cannot keep the ids" in caplog.text


def test_a_start_that_changes_nothing_leaves_the_file_alone(settings: Settings) -> None:
    codec_of(settings)
    before = kept(settings).stat()
    codec_of(settings)
    after = kept(settings).stat()
    assert (after.st_ino, after.st_mtime_ns) == (before.st_ino, before.st_mtime_ns)
    assert stat.S_ISREG(after.st_mode)


@pytest.mark.parametrize("url", ["registry:8081", "http://host:port/"])
def test_a_damaged_address_names_its_variable(url: str, tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"^SCHEMA_REGISTRY_URL "):
        codec_of(Settings(schema_registry_url=url, cache=str(tmp_path)))
