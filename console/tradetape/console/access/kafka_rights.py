"""Kafka's users and rights: each role's topics and groups as ACLs, brought into line with the declaration.

What a role's user may do beyond that is taken away, so that a right given by hand does not stay. Rights of users that
are no roles of ours are left alone.
"""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future
from typing import Any, NamedTuple, TypeVar

from confluent_kafka import KafkaException
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    AdminClient,
    ResourcePatternType,
    ResourceType,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialAlteration,
    UserScramCredentialUpsertion,
)

from tradetape.console.access.roles import ROLES, Role, topics_read, topics_written
from tradetape.console.errors import AccessError
from tradetape.schemas import Catalogue

TIMEOUT_S = 20.0
SCRAM_ITERATIONS = 8_192
READERS_GROUP = "tradetape-reader"
"""What reads without joining a group names this one; Kafka wants to be asked where it would be led."""
GROUPS = "tradetape-"
_CLUSTER = "kafka-cluster"
"""The name that Kafka gives to itself as a resource."""
T = TypeVar("T")


class Right(NamedTuple):
    """One thing that a user may do, from anywhere; or may not, which nothing of ours says."""

    kind: ResourceType
    name: str
    operation: AclOperation
    pattern: ResourcePatternType = ResourcePatternType.LITERAL
    permission: AclPermissionType = AclPermissionType.ALLOW
    host: str = "*"

    def __str__(self) -> str:
        """As text: `write topic tradetape.trades`."""
        star = "*" if self.pattern == ResourcePatternType.PREFIXED else ""
        kind = "cluster" if self.kind == ResourceType.BROKER else self.kind.name.lower()
        verb = "" if self.permission == AclPermissionType.ALLOW else "not "
        return f"{verb}{self.operation.name.lower()} {kind} {self.name}{star}"


class Changed(NamedTuple):
    """What was done for one role: rights that were added, and taken away, as text."""

    role: str
    added: list[str]
    removed: list[str]


def rights(of: Role, catalogue: Catalogue) -> list[Right]:
    """Everything that a role may do in Kafka."""
    if of.rules_topics:
        return [
            _prefixed(ResourceType.TOPIC, catalogue.prefix, AclOperation.ALL),
            _prefixed(ResourceType.GROUP, GROUPS, AclOperation.ALL),
            Right(ResourceType.BROKER, _CLUSTER, AclOperation.DESCRIBE),
        ]
    written, read = sorted(topics_written(of, catalogue)), sorted(topics_read(of, catalogue))
    found = [Right(ResourceType.TOPIC, topic, AclOperation.WRITE) for topic in written]
    found += [Right(ResourceType.TOPIC, topic, AclOperation.READ) for topic in read]
    if of.reads_settings:
        found += [Right(ResourceType.TOPIC, topic, AclOperation.DESCRIBE_CONFIGS) for topic in read]
    if read:
        found.append(Right(ResourceType.GROUP, READERS_GROUP, AclOperation.DESCRIBE))
    if of.joins_group:
        found.append(_prefixed(ResourceType.GROUP, of.group, AclOperation.READ))
    if of.forgets_offsets:
        found.append(_prefixed(ResourceType.GROUP, of.group, AclOperation.DELETE))
    return found


def _prefixed(kind: ResourceType, name: str, operation: AclOperation) -> Right:
    return Right(kind, name, operation, ResourcePatternType.PREFIXED)


def apply(admin: AdminClient, catalogue: Catalogue, *, passwords: Mapping[str, str]) -> list[Changed]:
    """Make the users that `passwords` names, and give all roles the rights declared, no more. Raises AccessError."""
    make_users(admin, passwords)
    return [_bring_into_line(admin, one, catalogue) for one in ROLES]


def make_users(admin: AdminClient, passwords: Mapping[str, str]) -> None:
    """Let users log in with these passwords from now on. Raises AccessError."""
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
    wanted: list[UserScramCredentialAlteration] = [
        UserScramCredentialUpsertion(name, info, password.encode()) for name, password in passwords.items()
    ]
    if wanted:
        for name, future in admin.alter_user_scram_credentials(wanted, request_timeout=TIMEOUT_S).items():
            _result(future, f"make the user {name}")


def _bring_into_line(admin: AdminClient, of: Role, catalogue: Catalogue) -> Changed:
    wanted, held = set(rights(of, catalogue)), _held(admin, of)
    missing, extra = wanted - held, held - wanted
    if missing:
        bindings = [AclBinding(*_fields(of, one)) for one in missing]
        for binding, future in admin.create_acls(bindings, request_timeout=TIMEOUT_S).items():
            _result(future, f"let {of.name} {_right(binding)}")
    if extra:
        filters = [AclBindingFilter(*_fields(of, one)) for one in extra]
        for deleted in admin.delete_acls(filters, request_timeout=TIMEOUT_S).values():
            _result(deleted, f"take a right from {of.name}")
    return Changed(of.name, sorted(map(str, missing)), sorted(map(str, extra)))


def _held(admin: AdminClient, of: Role) -> set[Right]:
    # None stands for any; the client's own types leave that out.
    anything: Any = None
    everything = AclBindingFilter(
        ResourceType.ANY, anything, ResourcePatternType.ANY, _principal(of), anything, AclOperation.ANY,
        AclPermissionType.ANY,
    )  # fmt: skip
    found = _result(admin.describe_acls(everything, request_timeout=TIMEOUT_S), f"see the rights of {of.name}")
    return {_right(one) for one in found}


def _result(future: Future[T], what: str) -> T:
    try:
        return future.result()
    except KafkaException as error:
        raise AccessError(f"Kafka does not let us {what}: {error.args[0].str()}") from error


def _principal(of: Role) -> str:
    return f"User:{of.name}"


_Fields = tuple[ResourceType, str, ResourcePatternType, str, str, AclOperation, AclPermissionType]


def _fields(of: Role, right: Right) -> _Fields:
    """In the order of the client's own type, which is no tuple."""
    return right.kind, right.name, right.pattern, _principal(of), right.host, right.operation, right.permission


def _right(binding: AclBinding) -> Right:
    return Right(
        ResourceType(binding.restype), binding.name, AclOperation(binding.operation),
        ResourcePatternType(binding.resource_pattern_type), AclPermissionType(binding.permission_type), binding.host,
    )  # fmt: skip
