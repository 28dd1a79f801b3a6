"""An address that a client cannot read ends every command in one sentence that says how one looks, and does not repeat it."""

from __future__ import annotations

from pathlib import Path

import pytest

from console_rig import clean_environment, tradetape

WITH_SPACE = "postgresql://tradetape:a secret@127.0.0.1:1/tradetape"
GIVEN = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1",
    "REDIS_URL": "redis://127.0.0.1:1/0",
    "DATABASE_URL": "postgresql://x@127.0.0.1:1/x",
}


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ("history migrate", WITH_SPACE),
        ("history query trade_journal", "secret"),
        ("work history", "postgresql://secret@127.0.0.1:1/x?nonsense=1"),
    ],
)
def test_what_is_no_address_of_a_postgresql_is_said_to_be_none(tmp_path: Path, words: str, address: str) -> None:
    found = tradetape(*words.split(), environment=clean_environment(tmp_path, **{**GIVEN, "DATABASE_URL": address}))
    assert (found.returncode, found.stdout) == (2, "")
    said = found.stderr.splitlines()[-1]
    assert "DATABASE_URL is no address of a PostgreSQL, such as postgresql://" in said
    assert "TRADETAPE_DATABASE_PASSWORD_FILE" in said
    assert "secret" not in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(
    ("words", "address"),
    [
        ("state show binance BTCUSDT 1m", "redis://:secret@127.0.0.1:port/0"),
        ("work state", "http://secret@127.0.0.1:1"),
    ],
)
def test_what_is_no_address_of_a_redis_is_said_to_be_none(tmp_path: Path, words: str, address: str) -> None:
    found = tradetape(*words.split(), environment=clean_environment(tmp_path, **{**GIVEN, "REDIS_URL": address}))
    assert (found.returncode, found.stdout) == (2, "")
    said = found.stderr.splitlines()[-1]
    assert "REDIS_URL is no address of a Redis, such as redis://" in said
    assert "TRADETAPE_REDIS_PASSWORD_FILE" in said
    assert "secret" not in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(("variable", "service"), [("DATABASE_URL", "postgres"), ("REDIS_URL", "redis")])
def test_doctor_says_so_too(tmp_path: Path, variable: str, service: str) -> None:
    found = tradetape("doctor", environment=clean_environment(tmp_path, **{**GIVEN, variable: "secret"}))
    (line,) = [one for one in found.stdout.splitlines() if one.split()[:2] == ["FAIL", service]]
    assert f"{variable} is no address of" in line
    assert "secret" not in found.stdout
