"""Migrations: numbered .sql files, applied in order, each once, under a lock; never by a worker.

A file that was applied and then edited is an error: what runs elsewhere would no longer be what this file says.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import NamedTuple

import psycopg
from psycopg.sql import SQL, Identifier

from tradetape.sinks.errors import MigrationError
from tradetape.sinks.history import roles
from tradetape.sinks.history.connection import PASSING, first_line, passing_errors, readable
from tradetape.sinks.history.schema import SCHEMA, checked, in_schema

LOCK = 7_241_850_613
"""An advisory lock of our own: two `migrate` at once take turns."""

_BOOK = SQL("""
    CREATE SCHEMA IF NOT EXISTS {schema};
    CREATE TABLE IF NOT EXISTS {table} (
        version integer PRIMARY KEY, name text NOT NULL, sha256 text NOT NULL, applied_at timestamptz NOT NULL DEFAULT now());
    COMMENT ON TABLE {table} IS 'The migrations that were applied.'
""")
_KNOWN = SQL("SELECT to_regclass(format('%%I.migrations', %s::text)) IS NOT NULL")
_APPLIED = SQL("SELECT version, sha256 FROM {table} ORDER BY version")
_NOTE = SQL("INSERT INTO {table} (version, name, sha256) VALUES (%s, %s, %s)")


class Migration(NamedTuple):
    """One numbered file."""

    version: int
    name: str
    text: str

    @property
    def sha256(self) -> str:
        """Of its text."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def shipped() -> tuple[Migration, ...]:
    """The migrations of this version, in order."""
    folder = resources.files("tradetape.sinks.history").joinpath("migrations")
    files = sorted((one for one in folder.iterdir() if one.name.endswith(".sql")), key=lambda one: one.name)
    return tuple(Migration(int(one.name[:4]), one.name, one.read_text(encoding="utf-8")) for one in files)


def applied(connection: psycopg.Connection, schema: str = SCHEMA) -> dict[int, str]:
    """The SHA-256 of each migration that was applied, by version; empty for a database that has none."""
    known = connection.execute(_KNOWN, [schema]).fetchone()
    if not (known and known[0]):
        return {}
    return dict(connection.execute(_APPLIED.format(table=_book(schema))).fetchall())


def pending(connection: psycopg.Connection, migrations: Iterable[Migration], schema: str = SCHEMA) -> list[Migration]:
    """Those that are not applied yet. Raises MigrationError for one that was changed since."""
    done = applied(connection, schema)
    for one in migrations:
        if one.version in done and done[one.version] != one.sha256:
            raise MigrationError(f"{one.name} was applied and has been changed since; put a new file after it instead")
    return [one for one in migrations if one.version not in done]


def migrate(dsn: str, migrations: Sequence[Migration] | None = None, *, schema: str = SCHEMA) -> list[str]:
    """Apply what is pending, in the live schema or in a copy of it; the names.

    Raises MigrationError, DatabaseUnavailable, SchemaNameRefused, SettingsError.
    """
    migrations = shipped() if migrations is None else migrations
    application = "tradetape-migrate"
    with passing_errors(), psycopg.connect(readable(dsn), autocommit=True, application_name=application) as connection:
        connection.execute("SELECT pg_advisory_lock(%s)", [LOCK])
        has_roles = _open_book(connection, schema)
        names = []
        for one in pending(connection, migrations, schema):
            _apply(connection, one, schema)
            names.append(one.name)
        if has_roles and names:
            roles.renew_grants(connection)
        return names


def _open_book(connection: psycopg.Connection, schema: str) -> bool:
    """Make the table of what was applied, where it is missing; whether the history has roles, whose owner goes on."""
    try:
        has_roles = schema == SCHEMA and roles.become_owner(connection)
        connection.execute(_BOOK.format(schema=Identifier(checked(schema)), table=_book(schema)))
    except psycopg.errors.InsufficientPrivilege as error:
        raise MigrationError(
            f"{first_line(error)}; `tradetape history roles --apply` gives the rights, with a login that may: a dump that was restored "
            "without --create lacks those on the database"
        ) from error
    return has_roles


def _book(schema: str) -> Identifier:
    return Identifier(schema, "migrations")


def _apply(connection: psycopg.Connection, migration: Migration, schema: str) -> None:
    try:
        with connection.transaction():
            connection.execute(SQL(in_schema(migration.text, schema)))
            connection.execute(
                _NOTE.format(table=_book(schema)),
                [migration.version, migration.name, migration.sha256],
            )
    except PASSING:
        raise
    except psycopg.Error as error:
        raise MigrationError(f"{migration.name}: {str(error).strip()}") from error
