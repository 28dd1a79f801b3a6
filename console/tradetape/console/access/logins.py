"""PostgreSQL's logins: one for each role that uses the history, a member of the history's roles and nothing more.

The password leaves this machine only as what SCRAM keeps of it.
"""

from __future__ import annotations

from collections.abc import Mapping

import psycopg
from psycopg.sql import SQL, Identifier, Literal

from tradetape.console.access.roles import ROLES
from tradetape.sinks.errors import RolesRefused
from tradetape.sinks.history import roles as history_roles
from tradetape.sinks.history.connection import passing_errors

REGISTRY = "registry"
_KNOWN = "SELECT 1 FROM pg_roles WHERE rolname = %s"
_HELD = """SELECT granted.rolname FROM pg_auth_members m
    JOIN pg_roles granted ON granted.oid = m.roleid JOIN pg_roles member ON member.oid = m.member
    WHERE member.rolname = %s"""
_MAKE = SQL("CREATE ROLE {login} LOGIN")
_SET = SQL("ALTER ROLE {login} LOGIN NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS PASSWORD {password}")
_GRANT = SQL("GRANT {role} TO {login}")
_REVOKE = SQL("REVOKE {role} FROM {login}")


def apply(connection: psycopg.Connection, passwords: Mapping[str, str]) -> list[str]:
    """Make the history's roles and the logins that `passwords` names; the logins. Raises RolesRefused, DatabaseUnavailable."""
    history_roles.apply(connection)
    wanted = {one.name: one.database for one in ROLES if one.database and one.name in passwords}
    if REGISTRY in passwords and connection.execute(_KNOWN, [REGISTRY]).fetchone():
        # Of a registry that keeps its schemas here, and made its login with its database: only the password is ours.
        wanted[REGISTRY] = ()
    try:
        with passing_errors(), connection.transaction():
            _close_public(connection)
            for name, roles in wanted.items():
                _bring_into_line(connection, name, roles, passwords[name])
    except psycopg.errors.InsufficientPrivilege as error:
        raise RolesRefused(f"{str(error).partition(chr(10))[0]}; connect as the database's administrator") from error
    return list(wanted)


def _close_public(connection: psycopg.Connection) -> None:
    """Else whoever may log in may come in here, and make temporary tables."""
    database = Identifier(connection.info.dbname)
    connection.execute(SQL("REVOKE ALL ON DATABASE {} FROM PUBLIC").format(database))
    connection.execute(SQL("REVOKE CREATE ON SCHEMA public FROM PUBLIC"))
    members = {granted for one in ROLES for granted in one.database}
    for granted in sorted(members):
        connection.execute(SQL("GRANT CONNECT ON DATABASE {} TO {}").format(database, Identifier(granted)))


def _bring_into_line(connection: psycopg.Connection, name: str, wanted: tuple[str, ...], password: str) -> None:
    login = Identifier(name)
    if connection.execute(_KNOWN, [name]).fetchone() is None:
        connection.execute(_MAKE.format(login=login))
    kept = connection.pgconn.encrypt_password(password.encode(), name.encode(), b"scram-sha-256").decode()
    connection.execute(_SET.format(login=login, password=Literal(kept)))
    held = {row[0] for row in connection.execute(_HELD, [name]).fetchall()}
    for granted in wanted:
        if granted not in held:
            connection.execute(_GRANT.format(role=Identifier(granted), login=login))
    for granted in held - set(wanted):
        connection.execute(_REVOKE.format(role=Identifier(granted), login=login))
