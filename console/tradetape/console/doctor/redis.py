"""Checks of Redis: does it answer, is it new enough, does it refuse writes rather than drop keys, has it room."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from tradetape.console.doctor import clocks
from tradetape.console.doctor.finding import Finding, State, away
from tradetape.producers.errors import SettingsError
from tradetape.producers.settings import EXAMPLES

if TYPE_CHECKING:
    import redis

    from tradetape.producers.settings import Settings

VARIABLE = "REDIS_URL"
OLDEST = (6, 2)
POLICY = "noeviction"
NEARLY_FULL = 0.8
"""The share of its memory from which on writes will soon be refused."""
_MIB = 1024 * 1024


def check(settings: Settings) -> Iterator[Finding]:
    """The findings. Raises ModuleNotFoundError without the extra `state`."""
    import redis

    from tradetape.streams.state.connection import connect

    try:
        client = connect(settings.required(VARIABLE))
    except SettingsError as error:
        yield Finding("redis", State.FAIL, str(error), f"export {VARIABLE}={EXAMPLES[VARIABLE]}")
        return
    try:
        yield from judge(client.info())
        yield clocks.compare("redis clock", lambda: _now_us(client))
    except (redis.AuthenticationError, redis.ResponseError) as error:
        yield Finding("redis", State.FAIL, f"refuses us: {error}", f"check user and password in {VARIABLE}")
    except redis.RedisError as error:
        yield away("redis", str(error), VARIABLE)
    finally:
        client.close()


def _now_us(client: redis.Redis) -> int:
    seconds, microseconds = client.time()
    return int(seconds) * 1_000_000 + int(microseconds)


def judge(info: Mapping[str, Any]) -> Iterator[Finding]:
    """What the server says of itself (INFO): version, mode, policy, memory."""
    version = str(info["redis_version"])
    found = tuple(int(part) for part in re.findall(r"\d+", version)[:2])
    if found < OLDEST:
        yield Finding("redis", State.FAIL, f"version {version}", "install Redis 6.2 or newer, or Valkey")
    else:
        yield Finding("redis", State.OK, f"version {version}")
    if str(info.get("redis_mode")) == "cluster":
        detail = "a node of a Redis Cluster, of which clients of tradetape would reach this node's keys alone"
        yield Finding("redis mode", State.FAIL, detail, f"name a Redis of its own in {VARIABLE}: docs/scaling.md")
    policy = str(info["maxmemory_policy"])
    if policy != POLICY:
        detail = f"{policy}: keys that nobody chose are dropped when it is full"
        yield Finding("redis policy", State.FAIL, detail, f"redis-cli CONFIG SET maxmemory-policy {POLICY}")
    else:
        yield Finding("redis policy", State.OK, policy)
    yield _judge_memory(int(info["used_memory"]), int(info["maxmemory"]))


def _judge_memory(used: int, limit: int) -> Finding:
    if not limit:
        detail = f"{used / _MIB:.0f} MiB used, no limit: it may take all of the machine's"
        return Finding("redis memory", State.WARN, detail, "redis-cli CONFIG SET maxmemory 512mb")
    told = f"{used / _MIB:.0f} of {limit / _MIB:.0f} MiB used"
    if used < limit * NEARLY_FULL:
        return Finding("redis memory", State.OK, told)
    state = State.FAIL if used >= limit else State.WARN
    return Finding("redis memory", state, told, f"redis-cli CONFIG SET maxmemory {2 * limit // _MIB}mb")
