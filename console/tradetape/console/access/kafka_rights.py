"""Kafka's users and rights: each role's topics and groups as ACLs, brought into line with the declaration.

What a role's user may do beyond that is taken away, so that a right given by hand does not stay. Rights of users that
are no roles of ours are left alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from typing import NamedTuple

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


class Changed(NamedTuple):
    """What was done for one role: rights that were added, and taken away, as text."""

    role: str
    added: list[str]
    removed: list[str]


def bindings(of: Role, catalogue: Catalogue) -> list[AclBinding]:
    """Everything that a role may do in Kafka."""
    if of.rules_topics:
        return [
            _binding(of, ResourceType.TOPIC, catalogue.prefix, AclOperation.ALL, prefixed=True),
            _binding(of, ResourceType.GROUP, GROUPS, AclOperation.ALL, prefixed=True),
            _binding(of, ResourceType.BROKER, _CLUSTER, AclOperation.DESCRIBE),
        ]
    found = [_on_topic(of, topic, AclOperation.WRITE) for topic in sorted(topics_written(of, catalogue))]
    found += [_on_topic(of, topic, AclOperation.READ) for topic in sorted(topics_read(of, catalogue))]
    if of.reads_settings:
        found += [_on_topic(of, topic, AclOperation.DESCRIBE_CONFIGS) for topic in sorted(topics_read(of, catalogue))]
    if topics_read(of, catalogue):
        found.append(_binding(of, ResourceType.GROUP, READERS_GROUP, AclOperation.DESCRIBE))
    if of.joins_group:
        found.append(_binding(of, ResourceType.GROUP, of.group, AclOperation.READ, prefixed=True))
    if of.forgets_offsets:
        found.append(_binding(of, ResourceType.GROUP, of.group, AclOperation.DELETE, prefixed=True))
    return found


def apply(admin: AdminClient, catalogue: Catalogue, *, passwords: Mapping[str, str]) -> list[Changed]:
    """Make the users that `passwords` names, and give all roles the rights declared, no more. Raises AccessError."""
    _make_users(admin, passwords)
    return [_bring_into_line(admin, one, catalogue) for one in ROLES]


def _make_users(admin: AdminClient, passwords: Mapping[str, str]) -> None:
    info = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, SCRAM_ITERATIONS)
    wanted = [UserScramCredentialUpsertion(name, info, password.encode()) for name, password in passwords.items()]
    if wanted:
        found = admin.alter_user_scram_credentials(wanted, request_timeout=TIMEOUT_S)
        for name, future in found.items():
            _result(future, f"make the user {name}")


def _bring_into_line(admin: AdminClient, of: Role, catalogue: Catalogue) -> Changed:
    wanted = {_key(one): one for one in bindings(of, catalogue)}
    held = {_key(one): one for one in _held(admin, of)}
    missing = [one for key, one in wanted.items() if key not in held]
    extra = [one for key, one in held.items() if key not in wanted]
    if missing:
        for binding, future in admin.create_acls(missing, request_timeout=TIMEOUT_S).items():
            _result(future, f"let {of.name} {told(binding)}")
    if extra:
        filters = [_exactly(one) for one in extra]
        for deleted in admin.delete_acls(filters, request_timeout=TIMEOUT_S).values():
            _result(deleted, f"take a right from {of.name}")
    return Changed(of.name, sorted(map(told, missing)), sorted(map(told, extra)))


def _held(admin: AdminClient, of: Role) -> Iterable[AclBinding]:
    everything = AclBindingFilter(
        ResourceType.ANY, None, ResourcePatternType.ANY, principal(of), None, AclOperation.ANY, AclPermissionType.ANY
    )
    found = _result(admin.describe_acls(everything, request_timeout=TIMEOUT_S), f"see the rights of {of.name}")
    assert isinstance(found, list)
    return found


def _result(future: Future[object], what: str) -> object:
    try:
        return future.result()
    except KafkaException as error:
        raise AccessError(f"Kafka does not let us {what}: {error.args[0].str()}") from error


def principal(of: Role) -> str:
    """A role as Kafka's ACLs name it."""
    return f"User:{of.name}"


def told(binding: AclBinding) -> str:
    """A right as text: `write topic tradetape.trades`."""
    star = "*" if binding.resource_pattern_type == ResourcePatternType.PREFIXED else ""
    kind = "cluster" if binding.restype == ResourceType.BROKER else binding.restype.name.lower()
    verb = "" if binding.permission_type == AclPermissionType.ALLOW else "not "
    return f"{verb}{binding.operation.name.lower()} {kind} {binding.name}{star}"


def _on_topic(of: Role, topic: str, operation: AclOperation) -> AclBinding:
    return _binding(of, ResourceType.TOPIC, topic, operation)


def _binding(of: Role, kind: ResourceType, name: str, operation: AclOperation, *, prefixed: bool = False) -> AclBinding:
    pattern = ResourcePatternType.PREFIXED if prefixed else ResourcePatternType.LITERAL
    return AclBinding(kind, name, pattern, principal(of), "*", operation, AclPermissionType.ALLOW)


def _exactly(binding: AclBinding) -> AclBindingFilter:
    return AclBindingFilter(
        binding.restype, binding.name, binding.resource_pattern_type, binding.principal, binding.host,
        binding.operation, binding.permission_type,
    )  # fmt: skip


def _key(binding: AclBinding) -> tuple[str, ...]:
    return (
        binding.restype.name, binding.name, binding.resource_pattern_type.name, binding.principal, binding.host,
        binding.operation.name, binding.permission_type.name,
    )  # fmt: skip
