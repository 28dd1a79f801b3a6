"""Where the suite's services come from: `--stack local`, `containers`, or `external`, which the environment names.

What is not there is a reason to skip on a laptop, and a failure in CI.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import NoReturn

import pytest
import redis

LOCAL, CONTAINERS, EXTERNAL = KINDS = ("local", "containers", "external")
VARIABLES = ("KAFKA_BOOTSTRAP_SERVERS", "DATABASE_URL", "REDIS_URL", "SCHEMA_REGISTRY_URL")
MARK = "local"
REASON = "runs on a local stack of its own alone (--stack local)"
HELP = (
    "where Kafka, PostgreSQL and Redis come from: our local stack, containers, or external ones, named by "
    "KAFKA_BOOTSTRAP_SERVERS, DATABASE_URL, REDIS_URL and, where there is one, SCHEMA_REGISTRY_URL. That Redis has to be "
    "empty: it is emptied between tests. Topics stay behind"
)


def given() -> dict[str, str]:
    """The services that the environment names."""
    return {name: os.environ[name] for name in VARIABLES if name in os.environ}


@contextmanager
def external(named: Mapping[str, str]) -> Iterator[Mapping[str, str]]:
    """Services of somebody else's."""
    if missing := [name for name in VARIABLES[:3] if name not in named]:
        absent(f"--stack external needs {', '.join(missing)}")
    with redis.Redis.from_url(named["REDIS_URL"]) as client:
        if client.info("keyspace"):
            pytest.exit("the Redis of REDIS_URL is not empty, and the tests would empty it", returncode=2)
        try:
            yield {name: named[name] for name in VARIABLES[:3]}
        finally:
            client.flushall()


@contextmanager
def containers() -> Iterator[Mapping[str, str]]:
    """Services in containers."""
    # Here, since every run of tests would pay for it.
    import container_stack

    if (reason := container_stack.reason_without()) is not None:
        absent(reason)
    with container_stack.running() as environment:
        yield environment


@contextmanager
def registry() -> Iterator[str]:
    """A schema registry in a container."""
    import container_stack

    if (reason := container_stack.reason_without()) is not None:
        absent(reason)
    with container_stack.registry() as url:
        yield url


def external_registry(named: Mapping[str, str]) -> str:
    """A schema registry of somebody else's."""
    if "SCHEMA_REGISTRY_URL" not in named:
        absent("--stack external without SCHEMA_REGISTRY_URL")
    return named["SCHEMA_REGISTRY_URL"]


def absent(reason: str) -> NoReturn:
    """Skip what needs a service that is not there; in CI it fails."""
    if os.environ.get("CI"):
        pytest.fail(reason, pytrace=False)
    pytest.skip(reason)
