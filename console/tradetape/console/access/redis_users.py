"""Redis' users: each role's keys and commands, as rules of ACL SETUSER and as the file that a server starts with.

From nothing (-@all, no keys): key patterns alone would not keep anybody from FLUSHALL, which names no key.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Mapping
from typing import Any

import redis

from tradetape.console.access.roles import ROLES, Role
from tradetape.console.errors import AccessError
from tradetape.streams.state.connection import mapped_errors
from tradetape.streams.state.keys import Keys

TELLS_READING = (7, 0)
"""Since then a rule can let keys be read and not written; before, a role with both may write what it is to read."""


def rules(of: Role, *, prefix: str, tells_reading: bool = True) -> list[str]:
    """What a role may do, as words of ACL SETUSER."""
    read = "%R~" if tells_reading else "~"
    keys = [f"{read}{pattern}" for pattern in _patterns(of.keys_read, prefix)]
    keys += [f"~{pattern}" for pattern in _patterns(of.keys_written, prefix)]
    return [*keys, "-@all", *(one if one[0] in "+-" else f"+{one}" for one in of.commands)]


def _patterns(kinds: Iterable[str], prefix: str) -> list[str]:
    root = Keys(prefix).root
    # "*" is the whole prefix with everything below it, replays into another prefix included.
    return [f"{prefix}*" if kind == "*" else f"{root}{kind}:*" for kind in kinds]


def hashed(password: str) -> str:
    """A password as the server keeps it: a long random one needs no salt."""
    return "#" + hashlib.sha256(password.encode()).hexdigest()


def acl_file(passwords: Mapping[str, str], *, admin: tuple[str, str], prefix: str) -> str:
    """The users that a server starts with, for its `aclfile`: nobody without a name, an administrator, the roles."""
    lines = ["user default off -@all", f"user {admin[0]} on {hashed(admin[1])} ~* &* +@all"]
    for one in ROLES:
        if one.name in passwords:
            words = " ".join(rules(one, prefix=prefix))
            lines.append(f"user {one.name} on {hashed(passwords[one.name])} resetchannels {words}")
    return "\n".join(lines) + "\n"


def apply(client: redis.Redis, passwords: Mapping[str, str], *, prefix: str) -> list[str]:
    """Tell a running server; the users, each made anew. Raises StateUnavailable, AccessError."""
    with mapped_errors():
        tells = tells_reading(client)
        for one in ROLES:
            if one.name in passwords:
                words = rules(one, prefix=prefix, tells_reading=tells)
                _set_user(client, one.name, ["reset", "on", hashed(passwords[one.name]), *words])
    return [one.name for one in ROLES if one.name in passwords]


def tells_reading(client: redis.Redis) -> bool:
    """Whether this server can let keys be read and not written."""
    version = str(client.info("server")["redis_version"])
    major, minor = (int(part) for part in version.split(".")[:2])
    return (major, minor) >= TELLS_READING


def _set_user(client: Any, name: str, words: list[str]) -> None:
    try:
        client.execute_command("ACL SETUSER", name, *words)
    except redis.ResponseError as error:
        raise AccessError(f"Redis does not take the rights of {name}: {error}") from error
