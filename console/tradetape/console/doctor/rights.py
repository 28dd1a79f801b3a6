"""Whether this process' user may do what its role has to, and nothing that others alone may. Nothing is done in trying.

Kafka says which operations a user may carry out. Redis judges a command when it is queued in a transaction, and the
transaction is then discarded. PostgreSQL says of which roles a login is a member.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any

from tradetape.console.access.roles import ROLES, Role, topics_read, topics_written
from tradetape.console.doctor.finding import Finding, State, away, some

if TYPE_CHECKING:
    import psycopg
    import redis
    from confluent_kafka.admin import AdminClient

    from tradetape.producers.settings import Settings
    from tradetape.schemas import Catalogue

TIMEOUT_S = 10.0
ASK_INTERVAL_S = 0.2
MEND = "an administrator: tradetape access apply"
NOBODYS = (("FLUSHALL", "no"), ("FLUSHDB", "no"), ("CONFIG", "GET", "dir"), ("ACL", "LIST"))
"""What no role may. None would do harm if it were carried out all the same: FLUSHALL with that word is no command."""
_WRITES = {"set": ("SET", "{key}", "x"), "hset": ("HSET", "{key}", "a", "x")}
_MEMBERSHIPS = """SELECT granted.rolname FROM pg_roles granted
    WHERE granted.rolname LIKE 'tradetape\\_%' AND pg_has_role(current_user, granted.oid, 'MEMBER')"""
_MIGHT = "SELECT rolsuper OR rolcreaterole OR rolcreatedb OR rolbypassrls FROM pg_roles WHERE rolname = current_user"


def judge(subject: str, of: Role, lacking: Sequence[str], beyond: Sequence[str], held: str) -> Finding:
    """One finding of what a role lacks and what it may do beyond its declaration."""
    if beyond:
        return Finding(subject, State.FAIL, f"this user may {some(beyond)}, which {of.name} must not", MEND)
    if lacking:
        return Finding(subject, State.FAIL, f"this user may not {some(lacking)}, which {of.name} has to", MEND)
    return Finding(subject, State.OK, held)


def kafka(settings: Settings, of: Role) -> Iterator[Finding]:
    """What Kafka lets this user do with our topics and groups. Raises SettingsError."""
    from tradetape.console.topics import admin_client
    from tradetape.producers.connection import KafkaSettings

    admin, catalogue = admin_client(KafkaSettings.of(settings)), settings.catalogue()
    held = _topic_rights(admin, [one.name for one in catalogue.topics()])
    wanted = _wanted(of, catalogue)
    lacking = [f"{verb} {name}" for name, verbs in wanted.items() for verb in sorted(verbs - held[name])]
    beyond = [f"{verb} {name}" for name, verbs in held.items() for verb in sorted(verbs - wanted[name] - {"describe"})]
    told = f"writes to {len(topics_written(of, catalogue))} topics, reads {len(topics_read(of, catalogue))}, no other"
    yield judge("topic rights", of, lacking, [] if of.rules_topics else beyond, told)
    groups = {one.group: _group_rights(admin, one.group) for one in ROLES if one.joins_group}
    foreign = [f"join {name}" for name, verbs in groups.items() if "read" in verbs and name != of.group]
    missing = [f"join {of.group}"] if of.joins_group and "read" not in groups[of.group] else []
    told = f"joins {of.group}, no other" if of.joins_group else "joins none"
    yield judge("group rights", of, missing, [] if of.rules_topics else foreign, told)


def _wanted(of: Role, catalogue: Catalogue) -> Mapping[str, set[str]]:
    write, read = topics_written(of, catalogue), topics_read(of, catalogue)
    wanted: dict[str, set[str]] = {}
    for topic in catalogue.topics():
        wanted[topic.name] = ({"write"} if topic.name in write else set()) | ({"read"} if topic.name in read else set())
        if of.reads_settings and topic.name in read:
            wanted[topic.name].add("describe_configs")
    return wanted


def _topic_rights(admin: AdminClient, names: Sequence[str]) -> dict[str, set[str]]:
    from confluent_kafka import KafkaException, TopicCollection

    asked = admin.describe_topics(
        TopicCollection(list(names)), include_authorized_operations=True, request_timeout=TIMEOUT_S
    )
    found: dict[str, set[str]] = {}
    for name, future in asked.items():
        try:
            found[name] = {one.name.lower() for one in future.result().authorized_operations or ()}
        except KafkaException:
            # Of what may not even be described nothing else may be done; a topic that is missing lacks all the same.
            found[name] = set()
    return found


def _group_rights(admin: AdminClient, group: str) -> set[str]:
    from confluent_kafka import KafkaException

    from tradetape.streams.groups import NOT_YET

    deadline = time.monotonic() + TIMEOUT_S
    while True:
        asked = admin.describe_consumer_groups([group], include_authorized_operations=True, request_timeout=TIMEOUT_S)
        try:
            return {one.name.lower() for one in asked[group].result().authorized_operations or ()}
        except KafkaException as error:
            # A broker that is new, or has just started, is still making or loading its groups.
            if error.args[0].code() not in NOT_YET or time.monotonic() > deadline:
                return set()
        time.sleep(ASK_INTERVAL_S)


def redis_rights(settings: Settings, of: Role) -> Iterator[Finding]:
    """What Redis lets this user do."""
    from tradetape.console.access.redis_users import tells_reading
    from tradetape.streams.errors import StateUnavailable
    from tradetape.streams.state.connection import connect, mapped_errors
    from tradetape.streams.state.keys import PATTERNS, Keys

    client = connect(settings.required("REDIS_URL"))
    try:
        with mapped_errors():
            kinds = list(dict.fromkeys(one.kind for one in PATTERNS))
            written = set(kinds if "*" in of.keys_written else of.keys_written)
            # An old server cannot tell reading from writing; `access apply` says so.
            foreign = set(kinds) - written - (set() if tells_reading(client) else _all_kinds(of.keys_read, kinds))
            root = Keys(settings.redis_prefix).root
            must = [_write(of, f"{root}{kind}:doctor") for kind in kinds if kind in written]
            must_not = [*NOBODYS, *(_write(of, f"{root}{kind}:doctor") for kind in kinds if kind in foreign)]
            must_not.append(_write(of, "nobodys-prefix:doctor"))
            allowed = _queued(client, [*must, *must_not])
    except StateUnavailable as error:
        yield away("redis", str(error), "REDIS_URL")
        return
    lacking = [_text(one) for one in must if one not in allowed]
    beyond = [_text(one) for one in must_not if one in allowed]
    yield judge("redis rights", of, lacking, beyond, f"writes {len(written)} kinds of keys, no other; no FLUSHALL")


def _all_kinds(kinds: Sequence[str], known: Sequence[str]) -> set[str]:
    return set(known if "*" in kinds else kinds)


def _write(of: Role, key: str) -> tuple[str, ...]:
    """A command that writes to a key, and that the role has if it has any that does."""
    name = next((one for one in _WRITES if one in of.commands), "set")
    return tuple(word.format(key=key) for word in _WRITES[name])


def _queued(client: redis.Redis, commands: Sequence[tuple[str, ...]]) -> set[tuple[str, ...]]:
    """Those that Redis lets into a transaction, which is discarded."""
    from redis.exceptions import NoPermissionError

    connection: Any = client.connection_pool.get_connection()
    allowed = set()
    try:
        connection.send_command("MULTI")
        connection.read_response()
        for one in commands:
            connection.send_command(*one)
            try:
                connection.read_response()
                allowed.add(one)
            except NoPermissionError:
                continue
        connection.send_command("DISCARD")
        connection.read_response()
    finally:
        connection.disconnect()
        client.connection_pool.release(connection)
    return allowed


def _text(command: Sequence[str]) -> str:
    return " ".join(command[:2])


def postgres(settings: Settings, of: Role) -> Iterator[Finding]:
    """What PostgreSQL lets this login do."""
    from tradetape.sinks.errors import DatabaseUnavailable
    from tradetape.sinks.history.connection import connect

    try:
        with connect(settings.required("DATABASE_URL"), application="tradetape-doctor") as connection:
            yield judge_memberships(of, *_memberships(connection))
    except DatabaseUnavailable as error:
        yield away("postgres", str(error), "DATABASE_URL")


def _memberships(connection: psycopg.Connection) -> tuple[set[str], bool]:
    held = {row[0] for row in connection.execute(_MEMBERSHIPS).fetchall()}
    might = connection.execute(_MIGHT).fetchone()
    return held, bool(might and might[0])


def judge_memberships(of: Role, held: set[str], might: bool) -> Finding:
    """Whether a login is a member of just the history's roles that it needs; `might` is a superuser's and the like."""
    wanted = set(of.database)
    beyond = [f"act as {one}" for one in sorted(held - wanted)] + (["make roles and databases"] if might else [])
    lacking = [f"act as {one}" for one in sorted(wanted - held)]
    return judge("postgres rights", of, lacking, beyond, f"acts as {', '.join(of.database)}, no other")
