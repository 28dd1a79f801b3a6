"""`tradetape history`: what it applies and what it says, against a real PostgreSQL and Kafka."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import psycopg
import pytest

from console_rig import run_command
from history_rig import HistoryRig
from tradetape.console.commands import history
from tradetape.producers.errors import SettingsError
from tradetape.schemas import MarketCondition


@pytest.fixture
def environment(monkeypatch: pytest.MonkeyPatch, postgres: str, kafka: str) -> None:
    monkeypatch.setenv("DATABASE_URL", postgres)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)


@pytest.mark.usefixtures("environment")
def test_migrate_makes_the_tables_once(postgres: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("history", "migrate") == 0
    first = capsys.readouterr()
    assert "applied 0001_history.sql" in first.out.splitlines()

    assert run_command("history", "migrate") == 0
    assert capsys.readouterr().out == ""
    with psycopg.connect(postgres) as connection:
        versions = connection.execute("SELECT version FROM tradetape.migrations ORDER BY version").fetchall()
    assert versions == sorted(set(versions))
    assert len(versions) == len(first.out.splitlines())


@pytest.mark.usefixtures("environment")
def test_a_dry_run_changes_nothing(postgres: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("history", "migrate", "--dry-run") == 0
    assert "would apply 0001_history.sql" in capsys.readouterr().out.splitlines()
    with psycopg.connect(postgres) as connection:
        assert connection.execute("SELECT to_regnamespace('tradetape')").fetchone() == (None,)


@pytest.mark.usefixtures("environment")
def test_status_of_an_empty_database_names_what_is_pending(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_command("history", "status", "--json") == 1
    found = json.loads(capsys.readouterr().out)
    assert found["migrations"]["applied"] == []
    assert "0001_history.sql" in found["migrations"]["pending"]
    assert found["tables"] == found["offsets"] == []


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def emit(rig: HistoryRig, months: int) -> None:
    """One event for each of so many months."""
    with rig.producer() as tape:
        for month in range(1, months + 1):
            at = datetime(2025, month, 1, tzinfo=UTC)
            tape.emit(
                MarketCondition(venue="v", symbol="BTCUSDT", scope="s", condition=rig.catalogue.prefix, event_time=at)
            )
            tape.emit(MarketCondition(venue="v", symbol="BTCUSDT", scope="s", condition=f"{months}", event_time=at))


@pytest.mark.usefixtures("environment")
def test_status_counts_rows_months_and_lag(rig: HistoryRig, capsys: pytest.CaptureFixture[str]) -> None:
    emit(rig, 3)
    rig.store()
    emit(rig, 5)

    assert run_command("history", "status", "--json") == 0
    found = json.loads(capsys.readouterr().out)

    assert found["migrations"]["pending"] == []
    tables = {one["name"]: one for one in found["tables"]}
    assert set(tables) == {one.table for one in rig.catalogue}
    assert tables["market_conditions"] == {
        "name": "market_conditions", "rows": 6, "is_estimate": False, "partitions": 3,
    }  # fmt: skip
    assert tables["candles"]["rows"] == 0
    assert sum(one["next_offset"] or 0 for one in found["offsets"]) == 6
    assert sum(one["lag"] for one in found["offsets"]) == 10
    assert {one["sink"] for one in found["offsets"]} == {"history"}


@pytest.mark.usefixtures("environment")
def test_status_says_the_same_to_people(rig: HistoryRig, capsys: pytest.CaptureFixture[str]) -> None:
    emit(rig, 2)
    rig.store()
    assert run_command("history", "status") == 0
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert ["applied", "0001_history.sql"] in lines
    assert ["market_conditions", "4", "2"] in lines
    topic = rig.catalogue.topic_name(rig.catalogue.by_class(MarketCondition))
    assert ["history", topic, "4", "0"] in [
        [line[0], line[1], *line[3:]] for line in lines if line[:2] == ["history", topic]
    ]


@pytest.mark.usefixtures("environment")
def test_status_without_kafka_tells_all_but_the_lag(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    emit(rig, 1)
    rig.store()
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setattr(history, "KAFKA_TIMEOUT_S", 0.5)

    assert run_command("history", "status", "--json") == 0

    captured = capsys.readouterr()
    found = json.loads(captured.out)
    assert {one["lag"] for one in found["offsets"]} == {None}
    assert sum(one["next_offset"] or 0 for one in found["offsets"]) == 2
    assert captured.err.startswith("No lag: ")


def test_without_a_database_the_command_says_which_variable_is_missing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
    with pytest.raises(SettingsError, match="DATABASE_URL is not set"):
        run_command("history", "status")
