"""What trading code declares before it shares it: a name that makes a key, a time after which it is gone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta

import pytest
import redis

from tradetape.streams.errors import DeclarationRefused
from tradetape.streams.state import Counter, Flag, Lock, RateLimit, SharedState

SECOND, MS = timedelta(seconds=1), timedelta(milliseconds=1)


@pytest.mark.parametrize("declare", [Lock, Flag, Counter])
@pytest.mark.parametrize("name", ["", "Upper", "with space", "a:b", "{a}", "1st", "x" * 65])
def test_a_name_that_makes_no_key_is_refused(declare: Callable[..., object], name: str) -> None:
    with pytest.raises(DeclarationRefused, match="is no name"):
        declare(name, expires_after=SECOND)


@pytest.mark.parametrize("declare", [Lock, Flag, Counter])
@pytest.mark.parametrize("expiry", [timedelta(0), -SECOND, 0.5 * MS, timedelta(days=32)])
def test_an_expiry_is_needed_and_bounded(declare: Callable[..., object], expiry: timedelta) -> None:
    with pytest.raises(DeclarationRefused, match="expires_after must be from 1 ms to"):
        declare("a", expires_after=expiry)
    with pytest.raises(TypeError):
        declare("a")


@pytest.mark.parametrize(
    ("calls", "window", "start_within", "rule"),
    [
        (0, SECOND, MS, "calls must be from 1"),
        (10_001, SECOND, MS, "calls must be from 1"),
        (1, timedelta(0), MS, "window must be"),
        (1, timedelta(days=2), MS, "window must be"),
        (1, 50 * MS, 100 * MS, "start_within must be from 1 ms to 0:00:00.050"),
    ],
)
def test_a_limit_that_could_not_be_kept_is_refused(
    calls: int, window: timedelta, start_within: timedelta, rule: str
) -> None:
    with pytest.raises(DeclarationRefused, match=rule):
        RateLimit("a", calls=calls, window=window, start_within=start_within)


def test_one_name_is_not_declared_twice_differently() -> None:
    flags = [Flag("a", expires_after=SECOND), Flag("a", expires_after=2 * SECOND)]
    with pytest.raises(DeclarationRefused, match="declared twice"):
        SharedState(redis.Redis(), flags)
    SharedState(redis.Redis(), [flags[0], flags[0], Lock("a", expires_after=SECOND)])


@pytest.mark.parametrize("name", ["StateReader", "SharedState"])
def test_what_trading_code_imports_needs_neither_faust_nor_a_metrics_library(name: str) -> None:
    code = (
        f"from tradetape.streams.state import {name}; import sys; "
        "print(sorted({'faust', 'prometheus_client', 'psycopg', 'confluent_kafka.admin'} & sys.modules.keys()))"
    )
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "[]"
