"""Addresses are completed from files, in the form that each service's client takes, and never hold what was not asked."""

from __future__ import annotations

from pathlib import Path

import psycopg.conninfo
import pytest
import redis

from tradetape.producers.errors import SettingsError
from tradetape.producers.settings import load

PASSWORD = "p/ä:@ss 'w\\rd?#"


@pytest.fixture
def files(tmp_path: Path) -> dict[str, str]:
    (tmp_path / "password").write_text(PASSWORD + "\n", encoding="utf-8")
    (tmp_path / "ca.crt").write_text("a certificate", encoding="utf-8")
    return {"password": str(tmp_path / "password"), "ca": str(tmp_path / "ca.crt")}


def test_redis_gets_password_and_trust(files: dict[str, str]) -> None:
    settings = load({
        "REDIS_URL": "rediss://bot@redis.internal:6380/2?health_check_interval=5", "TRADETAPE_CA_FILE": files["ca"],
        "TRADETAPE_REDIS_PASSWORD_FILE": files["password"],
    })  # fmt: skip
    given = redis.Redis.from_url(settings.required("REDIS_URL")).connection_pool.connection_kwargs
    assert (given["username"], given["password"], given["host"], given["port"]) == (
        "bot",
        PASSWORD,
        "redis.internal",
        6380,
    )
    assert given["ssl_ca_certs"] == files["ca"]
    assert given["health_check_interval"] == 5


@pytest.mark.parametrize(
    "address", ["postgresql://history@db.internal/tape", "host=db.internal user=history dbname=tape"]
)
def test_postgresql_gets_password_and_looks_at_name_and_signature(files: dict[str, str], address: str) -> None:
    settings = load({
        "DATABASE_URL": address, "TRADETAPE_CA_FILE": files["ca"],
        "TRADETAPE_DATABASE_PASSWORD_FILE": files["password"],
    })  # fmt: skip
    given = psycopg.conninfo.conninfo_to_dict(settings.required("DATABASE_URL"))
    assert given["password"] == PASSWORD
    assert (given["user"], given["host"], given["dbname"]) == ("history", "db.internal", "tape")
    assert (given["sslmode"], given["sslrootcert"]) == ("verify-full", files["ca"])


def test_what_the_address_says_of_tls_itself_stays(files: dict[str, str]) -> None:
    settings = load({"DATABASE_URL": "postgresql://db/tape?sslmode=verify-ca", "TRADETAPE_CA_FILE": files["ca"]})
    assert psycopg.conninfo.conninfo_to_dict(settings.required("DATABASE_URL"))["sslmode"] == "verify-ca"


def test_without_files_an_address_is_what_it_was() -> None:
    address = "postgresql://tradetape:secret@127.0.0.1:15432/tradetape"
    assert load({"DATABASE_URL": address}).required("DATABASE_URL") == address


def test_kafka_trusts_the_same_authority_under_tls_alone(files: dict[str, str]) -> None:
    under_tls = load({"TRADETAPE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL", "TRADETAPE_CA_FILE": files["ca"]})
    assert under_tls.kafka_options["ssl.ca.location"] == files["ca"]
    assert "ssl.ca.location" not in load({"TRADETAPE_CA_FILE": files["ca"]}).kafka_options


def test_a_password_in_two_places_is_refused_without_telling_it(files: dict[str, str]) -> None:
    settings = load({
        "REDIS_URL": "redis://bot:hunter2@redis/0", "TRADETAPE_REDIS_PASSWORD_FILE": files["password"]
    })  # fmt: skip
    with pytest.raises(
        SettingsError, match=r"REDIS_URL holds a password, and TRADETAPE_REDIS_PASSWORD_FILE"
    ) as refused:
        settings.required("REDIS_URL")
    assert "hunter2" not in str(refused.value)
    assert PASSWORD not in str(refused.value)


def test_a_file_of_certificates_that_is_missing_is_told_at_once() -> None:
    with pytest.raises(SettingsError, match=r"TRADETAPE_CA_FILE names /nowhere/ca\.crt, which cannot be read"):
        load({"REDIS_URL": "rediss://redis/0", "TRADETAPE_CA_FILE": "/nowhere/ca.crt"}).required("REDIS_URL")
