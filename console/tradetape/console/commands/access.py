"""`tradetape access show|apply`: which role may do what, and telling the services so."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Mapping
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING

from tradetape.console import exit_codes

if TYPE_CHECKING:
    from tradetape.console.access.roles import Role
    from tradetape.producers.settings import Settings
    from tradetape.schemas import Catalogue

_RAW = argparse.RawDescriptionHelpFormatter
SERVICES = ("kafka", "redis", "postgres")


def register(commands: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    """Add the commands of access."""
    access = commands.add_parser(
        "access", help="the roles, and what each may do in Kafka, Redis and PostgreSQL", formatter_class=_RAW,
        epilog="examples:\n  tradetape access show bot\n  tradetape access apply credentials",
    )  # fmt: skip
    actions = access.add_subparsers(title="actions", metavar="ACTION", required=True)
    show = actions.add_parser(
        "show", help="what each role may do", formatter_class=_RAW, epilog="example:\n  tradetape access show approval"
    )
    show.add_argument("role", nargs="?", metavar="ROLE", help="only this one")
    show.add_argument("--json", action="store_true", help="one JSON document")
    show.set_defaults(run=_show)
    apply = actions.add_parser(
        "apply", help="make users and rights as declared, and take away all others of these users", formatter_class=_RAW,
        description="Run by an administrator of the services, whose credentials are in the environment. Harmless to repeat.",
        epilog="examples:\n  tradetape access apply credentials\n  tradetape access apply credentials --to redis",
    )  # fmt: skip
    apply.add_argument("folder", type=Path, metavar="FOLDER", help="what `tradetape credentials make` made")
    apply.add_argument(
        "--to", action="append", choices=SERVICES, metavar="SERVICE", help="only this one: kafka, redis or postgres"
    )
    apply.set_defaults(run=_apply)


def _show(args: argparse.Namespace) -> int:
    from tradetape.console.access.roles import ROLES, role
    from tradetape.console.environment import settings

    chosen = [role(args.role)] if args.role else ROLES
    effective = settings()
    documents = [_document(one, effective.catalogue(), effective.redis_prefix) for one in chosen]
    if args.json:
        print(json.dumps({"roles": documents}, indent=2))
        return exit_codes.OK
    for document in documents:
        print(f"{document['role']}: {document['does']}")
        for name in ("kafka", "redis", "postgres"):
            if document[name]:
                print(f"  {name}: {', '.join(document[name])}")
    return exit_codes.OK


def _document(one: Role, catalogue: Catalogue, prefix: str) -> dict[str, list[str] | str]:
    from tradetape.console.access import kafka_rights, redis_users

    return {
        "role": one.name,
        "does": one.does,
        "kafka": list(map(str, kafka_rights.rights(one, catalogue))),
        "redis": redis_users.rules(one, prefix=prefix) if one.uses_redis else [],
        "postgres": [f"member of {granted}" for granted in one.database],
    }


def _apply(args: argparse.Namespace) -> int:
    from tradetape.console.access.folder import ADMIN, REGISTRY, Folder, services_of
    from tradetape.console.access.roles import ROLES
    from tradetape.console.environment import settings

    effective = settings()
    folder = Folder(args.folder, redis_prefix=effective.redis_prefix)
    tell: dict[str, Callable[[Settings, Mapping[str, str]], None]] = {
        "kafka": _tell_kafka, "redis": _tell_redis, "postgres": _tell_postgres
    }  # fmt: skip
    for service in args.to or SERVICES:
        passwords = {one.name: folder.password(one.name, service) for one in ROLES if service in services_of(one)}
        if service == "postgres":
            passwords[REGISTRY] = folder.password(ADMIN, REGISTRY)
        tell[service](effective, passwords)
    return exit_codes.OK


def _tell_kafka(settings: Settings, passwords: Mapping[str, str]) -> None:
    from tradetape.console.access import kafka_rights
    from tradetape.console.topics import admin_client, partition_counts
    from tradetape.producers.connection import KafkaSettings

    admin = admin_client(KafkaSettings.of(settings))
    partition_counts(admin)
    for one in kafka_rights.apply(admin, settings.catalogue(), passwords=passwords):
        for right in one.added:
            print(f"+ {one.role}: {right}")
        for right in one.removed:
            print(f"- {one.role}: {right}")
    print(f"Kafka: users {', '.join(passwords)}.", file=sys.stderr)


def _tell_redis(settings: Settings, passwords: Mapping[str, str]) -> None:
    from tradetape.console.access import redis_users
    from tradetape.streams.state.connection import connect

    with closing(connect(settings.required("REDIS_URL"))) as client:
        users = redis_users.apply(client, passwords, prefix=settings.redis_prefix)
        if not redis_users.tells_reading(client):
            print("Before Redis 7, who may read a key and write another may write both.", file=sys.stderr)
    print(f"Redis: users {', '.join(users)}.", file=sys.stderr)


def _tell_postgres(settings: Settings, passwords: Mapping[str, str]) -> None:
    from tradetape.console.access import logins
    from tradetape.sinks.history.connection import connect

    with connect(settings.required("DATABASE_URL"), application="tradetape-access") as connection:
        names = logins.apply(connection, passwords)
    print(f"PostgreSQL: logins {', '.join(names)}.", file=sys.stderr)
