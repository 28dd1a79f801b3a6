"""The installed command shows dead letters, puts them back once, and gives them up; what it did stays known."""

from __future__ import annotations

import json
import os
import pty
import random
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from confluent_kafka.admin import AlterConfigOpType, ConfigEntry, ConfigResource, ResourceType

from history_rig import HistoryRig
from streams_rig import WorkerProcess
from tradetape.console.topics import admin_client
from tradetape.schemas import MarketCondition
from tradetape.streams.record import Record

Run = Callable[..., subprocess.CompletedProcess[str]]
TRADETAPE = Path(sys.executable).with_name("tradetape")
CONNECT = {
    "topic", "partition", "offset", "connector.name", "task.id", "stage", "class.name", "exception.class.name",
    "exception.message", "exception.stacktrace",
}  # fmt: skip
WHY = ValueError("spoilt")
NOW_MS = time.time_ns() // 1_000_000


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


@pytest.fixture
def environment(services: Mapping[str, str], rig: HistoryRig) -> dict[str, str]:
    return {
        **os.environ,
        **services,
        "TRADETAPE_TOPIC_PREFIX": rig.catalogue.prefix,
        "DATABASE_URL": rig.dsn,
    }


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TRADETAPE, "dlq", *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def documents(found: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def states(run: Run) -> dict[str, str]:
    return {one["place"]: one["state"] for one in documents(run("list"))}


def refused(rig: HistoryRig, record: Record, *workers: str, reason: str = "unstorable", times: int = 1) -> list[str]:
    """Letters of a record; their places."""
    for worker in workers:
        letters = rig.kafka_dead_letters(worker)
        for _ in range(times):
            letters.send(record, reason, WHY, stage="TASK_PUT")
        letters.flush()
    return [f"{worker}:{record.topic}:{record.partition}:{record.offset}" for worker in workers]


def conditions(rig: HistoryRig, count: int) -> list[Record]:
    at = datetime.now(UTC) - timedelta(hours=1)
    with rig.producer() as tape:
        for number in range(count):
            tape.emit(
                MarketCondition(
                    venue="v", symbol=f"C{number % 7}USDT", scope="s", condition="c",
                    event_time=at + timedelta(seconds=number),
                )
            )  # fmt: skip
    return rig.tape()


def headers_of(record: Record) -> dict[str, str]:
    return {name: (value or b"").decode() for name, value in record.headers}


def test_of_one_percent_rubbish_each_record_is_a_letter_once_with_every_header_and_the_rest_is_stored(
    rig: HistoryRig, run: Run, environment: dict[str, str], tmp_path: Path
) -> None:
    good = conditions(rig, 2_970)
    topic = rig.catalogue.topic_name(rig.catalogue.by_record("MarketCondition"))
    dice = random.Random(5)
    whole = next(one.value for one in good if one.value)
    rubbish = [b"\1" + dice.randbytes(20), b"\0\0\0\0\1" + dice.randbytes(9), whole[:-3], whole + b"\0", b""] * 6
    rig.put(topic, [(b"v:C%dUSDT" % dice.randrange(7), value) for value in rubbish])
    rest = conditions(rig, 10)
    assert len(rest) == 3_010
    bad = {(one.partition, one.offset) for one in rest if one.value in rubbish}
    assert len(bad) == len(rubbish) == 30

    ends = rig.ends()
    with WorkerProcess(
        ["-m", "tradetape.console", "work", "history"], environment=environment, log=tmp_path / "log"
    ) as worker:
        worker.until("the history has caught up", lambda: rig.has_come_to(ends))
        assert worker.stop() == 0
    assert len(rig.places_in_history()) == 2_980

    letters = rig.tape(rig.catalogue.dead_letters_topic)
    found = Counter(
        (int(h["__connect.errors.partition"]), int(h["__connect.errors.offset"])) for h in map(headers_of, letters)
    )
    assert found == dict.fromkeys(bad, 1)
    for letter in letters:
        headers = headers_of(letter)
        assert {f"__connect.errors.{name}" for name in CONNECT} | {"x-worker", "x-attempt", "x-reason"} <= set(headers)
        assert ("x-schema-id" in headers) == (letter.value or b"\1").startswith(b"\0")
        assert ("x-event-id" in headers) == (len(letter.value or b"") > 50)
    listed = Counter(one["reason"] for one in documents(run("list", "--worker", "history")))
    assert listed == {"bad_magic": 6, "unknown_schema_id": 6, "truncated": 6, "trailing_bytes": 6, "empty": 6}


def test_a_record_goes_back_as_it_was_and_only_once_for_all_the_workers_that_refused_it(
    rig: HistoryRig, run: Run
) -> None:
    (original,) = conditions(rig, 1)
    original = Record(
        original.topic, original.partition, original.offset, original.key, original.value,
        (("trace", b"\xff"), ("trace", b"2")), NOW_MS - 5_000,
    )  # fmt: skip
    first, second = refused(rig, original, "state", "history", times=2)
    (other,) = refused(rig, Record(original.topic, 0, 99, b"k", b"\1", (), 5), "state", reason="bad_magic")

    planned = run("redrive", "--worker", "state", "--reason", "unstorable", "--dry-run")
    assert planned.stdout == "1 record would be put back, of 2 letters; 0 letters refused.\n"
    assert set(states(run).values()) == {"open"}
    assert len(rig.tape(original.topic)) == 1

    done = run("redrive", "--worker", "state", "--reason", "unstorable")
    assert (done.returncode, done.stdout) == (
        0,
        "1 record put back, of 2 letters; 0 letters refused.\n",
    )
    assert states(run) == {first: "redriven", second: "redriven", other: "open"}
    assert run("redrive", "--reason", "unstorable").stdout.startswith("0 records")

    (back,) = [one for one in rig.tape(original.topic) if one.offset == original.offset + 1]
    assert (back.partition, back.key, back.value) == (original.partition, original.key, original.value)
    assert back.headers == (*original.headers, ("x-attempt", b"1"))
    assert back.timestamp_ms == original.timestamp_ms
    # It fails again: a letter of its own, and the second attempt.
    (again,) = refused(rig, back, "state")
    assert [(one["attempt"], one["state"]) for one in documents(run("list")) if one["place"] == again] == [(2, "open")]


def test_a_record_that_is_years_old_gets_a_time_that_retention_leaves_alone(rig: HistoryRig, run: Run) -> None:
    (original,) = conditions(rig, 1)
    old = Record(original.topic, original.partition, original.offset, b"k", original.value, (), 1_500_000_000_000)
    refused(rig, old, "history")
    assert run("redrive").returncode == 0
    back = max(rig.tape(original.topic), key=lambda one: one.offset)
    assert back.timestamp_ms >= NOW_MS


def test_what_is_not_whole_or_has_no_topic_is_refused_in_words_and_stays_open(rig: HistoryRig, run: Run) -> None:
    (original,) = conditions(rig, 1)
    huge = Record(original.topic, original.partition, 7, b"k", b"\1" * 5_000_000, (), NOW_MS)
    (cut,) = refused(rig, huge, "state", reason="oversized")
    (homeless,) = refused(rig, Record("nowhere", 0, 1, b"k", b"\1", (), NOW_MS), "state")
    found = run("redrive")
    assert (found.returncode, found.stdout) == (
        1,
        "0 records put back, of 0 letters; 2 letters refused.\n",
    )
    assert f"refused {cut}: only the beginning of its 5000000 bytes was kept" in found.stderr
    assert f"refused {homeless}: its topic or partition is not on the broker" in found.stderr
    assert set(states(run).values()) == {"open"}


def test_what_its_topic_does_not_take_is_not_marked(rig: HistoryRig, run: Run) -> None:
    """The acknowledgement comes before the mark: the other way round a crash in between would lose the record."""
    first, second = conditions(rig, 40)[:2]
    (small,) = refused(rig, Record(first.topic, 0, first.offset, b"k", b"\1", (), NOW_MS), "state")
    (large,) = refused(rig, Record(second.topic, 0, 1_000, b"k", b"\1" * 5_000, (), NOW_MS), "state")
    resource = ConfigResource(
        ResourceType.TOPIC, first.topic,
        incremental_configs=[ConfigEntry("max.message.bytes", "2000", incremental_operation=AlterConfigOpType.SET)],
    )  # fmt: skip
    admin = admin_client(rig.kafka)
    for future in admin.incremental_alter_configs([resource]).values():
        future.result()
    found = run("redrive")
    assert found.returncode == 1
    assert "what did not arrive is still open" in found.stderr
    assert states(run)[large] == "open"
    assert len([one for one in rig.tape(first.topic) if one.value == b"\1"]) == (states(run)[small] == "redriven")


def test_a_letter_that_is_given_up_says_why_and_is_not_put_back(rig: HistoryRig, run: Run) -> None:
    (original,) = conditions(rig, 1)
    (place,) = refused(rig, original, "state")
    assert run("discard", "--worker", "nobody", "--why", "x").stdout == "0 letters discarded.\n"
    assert run("discard", "--since", "1h", "--why", "an old bot").stdout == "1 letter discarded.\n"
    (found,) = documents(run("list", "--state", "discarded"))
    assert (found["place"], found["marked_why"]) == (place, "an old bot")
    assert run("redrive").stdout.startswith("0 records")
    assert len(rig.tape(original.topic)) == 1


def test_on_a_terminal_giving_up_is_asked_about_and_letters_are_grouped(
    rig: HistoryRig, run: Run, environment: dict[str, str]
) -> None:
    (original,) = conditions(rig, 1)
    (place,) = refused(rig, original, "state")
    shown = on_terminal(["list"], environment, "")
    assert "worker" in shown
    assert "unstorable" in shown
    assert not shown.startswith("{")
    assert "Give up 1 dead letter? [y/N]" in on_terminal(["discard", "--why", "x"], environment, "n\n")
    assert states(run) == {place: "open"}
    on_terminal(["discard", "--why", "x"], environment, "y\n")
    assert states(run) == {place: "discarded"}


def on_terminal(words: list[str], environment: dict[str, str], typed: str) -> str:
    """What a command prints on a terminal where somebody types."""
    ours, theirs = pty.openpty()
    os.write(ours, typed.encode())
    with subprocess.Popen(
        [TRADETAPE, "dlq", *words], env=environment, stdin=theirs, stdout=theirs, stderr=theirs
    ) as command:
        os.close(theirs)
        printed = b""
        try:
            while piece := os.read(ours, 65_536):
                printed += piece
        except OSError:
            # So Linux says that the other side is gone.
            command.wait(30)
    os.close(ours)
    return printed.decode()


def test_one_letter_is_shown_whole_decoded_where_it_can_be(rig: HistoryRig, run: Run) -> None:
    (original,) = conditions(rig, 1)
    (good,) = refused(rig, original, "history")
    (bad,) = refused(rig, Record(original.topic, 1, 8, b"k", b"\1\2rubbish", (), 0), "state", reason="bad_magic")
    (deadly,) = refused(rig, Record(original.topic, 1, 9, b"k", original.value, (), 0), "state", reason="crash")

    shown = json.loads(run("show", good, "--json").stdout)
    assert shown["event"]["condition"] == "c"
    assert shown["event"]["event_id"] == shown["event_id"]
    text = run("show", bad).stdout
    for part in (
        "bad_magic",
        "ValueError: spoilt",
        "__connect.errors.stage: TASK_PUT",
        "cannot be decoded",
        "01 02 72 75",
        "..rubbish",
    ):
        assert part in text
    assert json.loads(run("show", deadly, "--json").stdout)["event"] is None
    assert "it ends the process that decodes it" in run("show", deadly).stdout


def test_wrong_words_and_missing_letters_end_with_one_sentence_and_the_right_code(rig: HistoryRig, run: Run) -> None:
    conditions(rig, 1)
    for words, code in (
        (("show", "history:fills"), 2), (("list", "--topic", "nothing"), 2), (("list", "--since", "1500"), 2),
        (("list", "--since", "yesterday"), 2), (("show", "history:fills:0:1"), 1),
    ):  # fmt: skip
        found = run(*words)
        assert (found.returncode, found.stdout) == (code, ""), found.stderr
        assert len(found.stderr.splitlines()) == 1
    assert documents(run("list")) == []


def test_a_broker_that_is_away_is_said_to_be(environment: dict[str, str]) -> None:
    gone = {**environment, "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1"}
    found = subprocess.run(
        [TRADETAPE, "dlq", "list"], env=gone, capture_output=True, text=True, timeout=60, check=False
    )
    assert (found.returncode, len(found.stderr.splitlines())) == (3, 1)
