"""The variables by which a process logs in as a role: addresses without secrets, and the files that hold those."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from tradetape.console.access.roles import Role

MECHANISM = "SCRAM-SHA-512"


def environment_of(of: Role, folder: Path, addresses: Mapping[str, str], *, database: str) -> dict[str, str]:
    """A role's environment. `folder` is the role's own, `addresses` host:port of kafka, redis and postgres."""
    found = {
        "KAFKA_BOOTSTRAP_SERVERS": addresses["kafka"],
        "TRADETAPE_KAFKA_SECURITY_PROTOCOL": "SASL_SSL",
        "TRADETAPE_KAFKA_SASL_MECHANISM": MECHANISM,
        "TRADETAPE_KAFKA_SASL_USERNAME": of.name,
        "TRADETAPE_KAFKA_SASL_PASSWORD_FILE": str(folder / "kafka.password"),
        "TRADETAPE_CA_FILE": str(folder / "ca.crt"),
    }
    if of.uses_redis:
        found["REDIS_URL"] = f"rediss://{of.name}@{addresses['redis']}/0"
        found["TRADETAPE_REDIS_PASSWORD_FILE"] = str(folder / "redis.password")
    if of.database:
        found["DATABASE_URL"] = f"postgresql://{of.name}@{addresses['postgres']}/{database}"
        found["TRADETAPE_DATABASE_PASSWORD_FILE"] = str(folder / "postgres.password")
    return found
