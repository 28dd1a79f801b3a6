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
SAID = {
    "DATABASE_URL": ("a PostgreSQL, such as postgresql://", "TRADETAPE_DATABASE_PASSWORD_FILE"),
    "REDIS_URL": ("a Redis, such as redis://", "TRADETAPE_REDIS_PASSWORD_FILE"),
}


@pytest.mark.parametrize(
    ("words", "variable", "address"),
    [
        ("history migrate", "DATABASE_URL", WITH_SPACE),
        ("history query trade_journal", "DATABASE_URL", "secret"),
        ("work history", "DATABASE_URL", "postgresql://secret@127.0.0.1:1/x?nonsense=1"),
        ("state show binance BTCUSDT 1m", "REDIS_URL", "redis://:secret@127.0.0.1:port/0"),
        ("work state", "REDIS_URL", "http://secret@127.0.0.1:1"),
    ],
)
def test_what_is_no_address_of_a_service_is_said_to_be_none(
    tmp_path: Path, words: str, variable: str, address: str
) -> None:
    found = tradetape(*words.split(), environment=clean_environment(tmp_path, **{**GIVEN, variable: address}))
    assert (found.returncode, found.stdout) == (2, "")
    said = found.stderr.splitlines()[-1]
    service, password_file = SAID[variable]
    assert f"{variable} is no address of {service}" in said
    assert password_file in said
    assert "secret" not in found.stderr
    assert "Traceback" not in found.stderr


@pytest.mark.parametrize(("variable", "service"), [("DATABASE_URL", "postgres"), ("REDIS_URL", "redis")])
def test_doctor_says_so_too(tmp_path: Path, variable: str, service: str) -> None:
    found = tradetape("doctor", environment=clean_environment(tmp_path, **{**GIVEN, variable: "secret"}))
    (line,) = [one for one in found.stdout.splitlines() if one.split()[:2] == ["FAIL", service]]
    assert f"{variable} is no address of" in line
    assert "secret" not in found.stdout
