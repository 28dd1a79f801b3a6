"""`tradetape history`: what it applies and what it says, against a real PostgreSQL and Kafka."""

from __future__ import annotations

import argparse
import json

import psycopg
import pytest

from tradetape.console.commands import history


def run(*words: str) -> int:
    parser = argparse.ArgumentParser()
    history.register(parser.add_subparsers())
    args = parser.parse_args(["history", *words])
    return int(args.run(args))


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, postgres: str, kafka: str) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)


@pytest.mark.usefixtures("environment")
def test_migrate_makes_the_tables_once(postgres: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("migrate") == 0
    first = capsys.readouterr()
    assert "applied 0001_history.sql" in first.out.splitlines()

    assert run("migrate") == 0
    assert capsys.readouterr().out == ""
    with psycopg.connect(postgres) as connection:
        versions = connection.execute("SELECT version FROM tradetape.migrations ORDER BY version").fetchall()
    assert versions == sorted(set(versions))
    assert len(versions) == len(first.out.splitlines())


@pytest.mark.usefixtures("environment")
def test_a_dry_run_changes_nothing(postgres: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run("migrate", "--dry-run") == 0
    assert "would apply 0001_history.sql" in capsys.readouterr().out.splitlines()
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT to_regnamespace('tradetape')").fetchone() == (None,)


@pytest.mark.usefixtures("environment")
def test_status_of_an_empty_database_names_what_is_pending(capsys: pytest.CaptureFixture[str]) -> None:
    assert run("status", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["migrations"]["applied"] == []
    assert "0001_history.sql" in found["migrations"]["pending"]
    assert found["tables"] == found["offsets"] == []
