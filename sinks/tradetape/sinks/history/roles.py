"""Roles of the history with least rights: owner, sink, reader, retention. The statements are in roles.sql.

They are applied on purpose, never by a worker; where they exist, migrations run as the owner and renew the grants.
"""

from __future__ import annotations

from pathlib import Path

import psycopg
from psycopg.sql import SQL

from tradetape.producers.sql_blocks import sql_blocks
from tradetape.sinks.errors import RolesRefused
from tradetape.sinks.history.connection import first_line, passing_errors

OWNER = "tradetape_owner"
_STATEMENTS = Path(__file__).with_name("roles.sql")
_BECOME_OWNER = SQL("SET ROLE tradetape_owner")
_IS_OWNED = "SELECT FROM pg_namespace WHERE nspname = 'tradetape' AND nspowner = to_regrole(%s)"


def text() -> str:
    """The statements, for whoever rather runs them with psql."""
    return _STATEMENTS.read_text(encoding="utf-8")


def apply(connection: psycopg.Connection) -> None:
    """Make the roles, hand everything to the owner, and give the rights. Harmless when done already. Raises RolesRefused."""
    try:
        with passing_errors(), connection.transaction():
            for name in ("roles", "ownership", "grants"):
                connection.execute(_block(name))
    except psycopg.errors.InsufficientPrivilege as error:
        raise RolesRefused(
            f"{first_line(error)}; connect as an owner who may create roles, or hand `tradetape history roles --print` to one"
        ) from error


def become_owner(connection: psycopg.Connection) -> bool:
    """Go on as the history's owner, where there are roles: what is made then is the owner's."""
    if connection.execute(_IS_OWNED, [OWNER]).fetchone() is None:
        return False
    connection.execute(_BECOME_OWNER)
    return True


def renew_grants(connection: psycopg.Connection) -> None:
    """Give the rights on tables that have been made since."""
    connection.execute(_block("grants"))


def _block(name: str) -> SQL:
    return SQL(sql_blocks(_STATEMENTS)[name])
