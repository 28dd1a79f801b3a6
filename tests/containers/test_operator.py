"""What docs/deploy.md answers an operator, carried out word by word on a running set."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psycopg
import pytest

from compose_set import SERVICES, UP_TIMEOUT_S, WORKERS, ComposeSet, docker, reconciled
from raw_producer import raw_producer
from tradetape.console.local.ports import any_free
from waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

DEMO = ("demo", "demo", "--services", "environment", "--symbols", "1", "--speed", "max", "--json")
CANDLES = "SELECT count(*) FROM tradetape.candles"
NEW_PASSWORD = "changed-by-hand"  # it guards a database that lives for one test


@contextmanager
def set_to(made: ComposeSet, name: str, value: str) -> Iterator[None]:
    """A variable of the set, as somebody writes it before the command; afterwards as it was."""
    before = made.environment.get(name)
    made.environment[name] = value
    try:
        yield
    finally:
        if before is None:
            del made.environment[name]
        else:
            made.environment[name] = before


def play(made: ComposeSet) -> None:
    """A demo, reconciled."""
    demo = made.run(*DEMO)
    try:
        reconciled(demo)
    finally:
        demo.kill()
        demo.wait()


def candles(made: ComposeSet) -> int:
    """How many rows the history of candles has."""
    return int(ask(made, CANDLES))


def ask(made: ComposeSet, query: str) -> str:
    """One value of the database, by the client in its container."""
    return made.compose("exec", "--no-TTY", "postgres", "psql", "-U", "tradetape", "-Atc", query).strip()


def letters(made: ComposeSet, *words: str) -> list[dict[str, Any]]:
    """Dead letters as the command lists them."""
    return [json.loads(line) for line in made.cli("dlq", "list", *words).splitlines()]


def test_a_taken_port_is_an_error_that_names_it_and_another_one_does(running: ComposeSet) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        with set_to(running, "KAFKA_PORT", str(port)), pytest.raises(AssertionError, match=f"127.0.0.1:{port}"):
            running.start()
    running.environment["KAFKA_PORT"] = str(any_free())
    running.start()
    # The broker tells its clients that port: a bot on this machine reaches it by what it is told.
    tape = raw_producer(running.kafka)
    tape.produce("tradetape.market-conditions", b"\1 rubbish", b"v:PORTUSDT")
    assert tape.flush(60) == 0


def test_stopped_it_keeps_all_and_started_it_goes_on(running: ComposeSet) -> None:
    play(running)
    before = candles(running)
    running.compose("stop", timeout_s=UP_TIMEOUT_S)
    assert not any(running.runs(one) for one in (*SERVICES, *WORKERS))
    running.compose("start", timeout_s=UP_TIMEOUT_S)
    running.await_health()
    assert candles(running) == before
    play(running)


def test_turned_off_its_data_stays_in_volumes_until_they_are_removed_too(running: ComposeSet) -> None:
    play(running)
    before = candles(running)
    running.compose("--profile", "*", "down", timeout_s=UP_TIMEOUT_S)
    running.start()
    assert candles(running) == before
    play(running)
    running.compose("down", "-v", timeout_s=UP_TIMEOUT_S)
    running.start()
    assert candles(running) == 0


def test_a_password_is_changed_and_everything_goes_on(running: ComposeSet) -> None:
    ask(running, f"ALTER ROLE tradetape PASSWORD '{NEW_PASSWORD}'")
    try:
        with set_to(running, "POSTGRES_PASSWORD", NEW_PASSWORD):
            running.start()
            play(running)
            with pytest.raises(psycopg.OperationalError, match="password authentication failed"):
                psycopg.connect(running.database_url)
    finally:
        ask(running, "ALTER ROLE tradetape PASSWORD 'development'")
        running.start()
    play(running)


def test_a_dead_letter_is_listed_shown_put_back_and_given_up(running: ComposeSet) -> None:
    tape = raw_producer(running.kafka)
    tape.produce("tradetape.candles", b"\1 rubbish", b"v:DEADUSDT")
    assert tape.flush(60) == 0
    mine = ("--topic", "candles", "--reason", "bad_magic", "--worker", "history")

    def listed(state: str) -> list[dict[str, Any]]:
        return letters(running, *mine, "--state", state)

    eventually("history has written a letter", lambda: len(listed("open")) == 1)
    (one,) = listed("open")
    shown = json.loads(running.cli("dlq", "show", one["place"], "--json"))
    assert shown["reason"] == "bad_magic"
    assert "1 record would be put back" in running.cli("dlq", "redrive", *mine, "--dry-run")
    assert "1 record put back" in running.cli("dlq", "redrive", *mine)
    # It is as bad as it was.
    eventually("history has refused it again", lambda: len(listed("open")) == 1)
    (again,) = listed("open")
    assert (again["attempt"], [two["place"] for two in listed("redriven")]) == (2, [one["place"]])
    assert "1 letter discarded" in running.cli("dlq", "discard", *mine, "--why", "a bot that is mended")
    assert listed("open") == []


def test_more_partitions_are_a_new_tape_whose_history_goes_on_in_the_same_tables(running: ComposeSet) -> None:
    play(running)
    before = candles(running)
    refused = running.run("cli", "topics", "apply", "--partitions", "12")
    _, why = refused.communicate(timeout=120)
    assert refused.returncode != 0
    assert "partitions" in why
    with set_to(running, "TRADETAPE_TOPIC_PREFIX", "tape2."), set_to(running, "PARTITIONS", "12"):
        running.start()
        play(running)
        assert candles(running) > before
    running.start()
    play(running)


def test_postgres_is_restored_from_a_dump_and_the_rest_comes_from_the_tape(running: ComposeSet, tmp_path: Path) -> None:
    play(running)
    dump = tmp_path / "tradetape.dump"
    with dump.open("wb") as out:
        piped(running, ["pg_dump", "-U", "tradetape", "-Fc", "tradetape"], stdout=out)
    play(running)
    before, orders = candles(running), ask(running, "SELECT count(*) FROM tradetape.dispatch_intents")
    running.compose("stop", "history", "dispatch", timeout_s=UP_TIMEOUT_S)
    with dump.open("rb") as back:
        piped(running, ["pg_restore", "-U", "tradetape", "--clean", "--create", "-d", "postgres"], stdin=back)
    assert candles(running) < before
    running.start()
    eventually("what came after the dump is there again", lambda: candles(running) == before, timeout_s=UP_TIMEOUT_S)
    running.cli("history", "verify")
    assert ask(running, "SELECT count(*) FROM tradetape.dispatch_intents") == orders
    play(running)


def piped(made: ComposeSet, words: list[str], **ends: Any) -> None:
    """A program in PostgreSQL's container, with a file at one end."""
    container = made.container("postgres").id
    subprocess.run(["docker", "exec", "--interactive", container, *words], check=True, timeout=UP_TIMEOUT_S, **ends)


def test_an_upgrade_replaces_the_workers_and_nothing_else(running: ComposeSet) -> None:
    before = {one: running.container(one).id for one in (*SERVICES, *WORKERS)}
    image = running.environment["TRADETAPE_IMAGE"]
    newer = f"FROM {image}\nLABEL tradetape.test=newer\n"
    subprocess.run(["docker", "build", "--quiet", "--tag", image, "-"], input=newer.encode(), check=True, timeout=120)
    running.start()
    assert [one for one in before if running.container(one).id != before[one]] == list(WORKERS)
    assert docker("inspect", "--format", '{{index .Config.Labels "tradetape.test"}}', running.container("state").id).strip() == "newer"  # fmt: skip
    play(running)
