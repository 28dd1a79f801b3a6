"""A worker's logs: one JSON object a line for machines, text for people, and nothing of it from Faust's chatter."""

from __future__ import annotations

import json
import logging
import sys
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest

from tradetape.streams import logs

Read = Callable[[], str]


@pytest.fixture
def stderr(capsys: pytest.CaptureFixture[str]) -> Iterator[Read]:
    """What came to stderr since the last look; the loggers are afterwards as they were."""
    root = logging.getLogger()
    levels = {name: logging.getLogger(name).level for name in ("root", "faust", "mode", "aiokafka")}
    yield lambda: capsys.readouterr().err
    for handler in root.handlers[:]:
        if type(handler) is logging.StreamHandler:
            root.removeHandler(handler)
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def test_json_has_one_object_a_line_with_the_fields_that_are_set(stderr: Read) -> None:
    logs.configure(level="info", style="json")
    logging.getLogger("tradetape.streams").warning(
        "two\nlines %d", 7, extra={"action": "wait", "partition": 0, "offset": 12}
    )
    logging.getLogger("tradetape.streams").debug("not at this level")
    (text,) = stderr().splitlines()
    line = json.loads(text)
    age = datetime.now(UTC) - datetime.fromisoformat(line.pop("time"))
    assert timedelta(0) <= age < timedelta(minutes=1)
    assert line == {
        "level": "warning", "logger": "tradetape.streams", "message": "two\nlines 7",
        "action": "wait", "partition": 0, "offset": 12,
    }  # fmt: skip


def test_json_carries_the_traceback(stderr: Read) -> None:
    logs.configure(level="INFO", style="json")
    try:
        raise ValueError("spoilt")
    except ValueError:
        logging.getLogger("x").exception("crashed")
    line = json.loads(stderr())
    assert line["traceback"].endswith("ValueError: spoilt")


def test_text_is_for_a_terminal_and_json_for_everything_else(stderr: Read, monkeypatch: pytest.MonkeyPatch) -> None:
    logs.configure(level="INFO", style=None)
    logging.getLogger("x").info("hello")
    assert json.loads(stderr())["message"] == "hello"
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    logs.configure(level="INFO", style=None)
    logging.getLogger("x").info("again")
    assert stderr().endswith("INFO    x: again\n")
    logs.configure(level="INFO", style="text")
    logging.getLogger("x").info("text")
    assert stderr().endswith("INFO    x: text\n")


def test_faust_says_only_what_is_wrong(stderr: Read) -> None:
    logs.configure(level="INFO", style="text")
    logging.getLogger("faust.worker").info("chatter")
    logging.getLogger("aiokafka.consumer").info("chatter")
    logging.getLogger("mode").warning("trouble")
    assert [line.rpartition(" ")[2] for line in stderr().splitlines()] == ["trouble"]
