"""A session with PostgreSQL: its guards, and which of its errors pass by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as sqlstate
from psycopg.conninfo import conninfo_to_dict

from tradetape.producers.settings import unreadable
from tradetape.sinks.errors import DatabaseDenied, DatabaseUnavailable, SchemaBehind

CONNECT_TIMEOUT_S = 10
GUARDS = {
    # Rows wait in their transaction for the dead letters among them: dead_letters.ACKNOWLEDGE_TIMEOUT_S at most.
    "idle_in_transaction_session_timeout": "40s",
    "lock_timeout": "10s",
    "statement_timeout": "60s",
    "timezone": "UTC",
    "client_encoding": "UTF8",
}
"""A session of ours that hangs lets go of its locks by itself."""

PASSING = (
    psycopg.OperationalError,
    psycopg.InterfaceError,
    sqlstate.SerializationFailure,
    sqlstate.DeadlockDetected,
    sqlstate.LockNotAvailable,
    sqlstate.QueryCanceled,
    sqlstate.InsufficientResources,
    # A guard of ours ended the session while we were stopped; a server that became a standby.
    sqlstate.IdleInTransactionSessionTimeout,
    sqlstate.TransactionTimeout,
    sqlstate.ReadOnlySqlTransaction,
)

_WRONG_LOGIN = "does not let us in; check DATABASE_URL and TRADETAPE_DATABASE_PASSWORD_FILE"
_NOT_TRUSTED = "is not trusted; check TRADETAPE_CA_FILE and the host in DATABASE_URL"
_DENIALS = {
    "password authentication failed": _WRONG_LOGIN,
    "no password supplied": _WRONG_LOGIN,
    "no pg_hba.conf entry": _WRONG_LOGIN,
    "is not permitted to log in": _WRONG_LOGIN,
    "permission denied for database": _WRONG_LOGIN,
    "certificate verify failed": _NOT_TRUSTED,
    "server certificate for": _NOT_TRUSTED,
    "root certificate file": _NOT_TRUSTED,
    "does not support SSL": _NOT_TRUSTED,
}
"""What libpq and the server say, and what it means."""


def connect(dsn: str, *, application: str) -> psycopg.Connection:
    """A session in autocommit mode with guards and keepalives. Raises DatabaseUnavailable, SettingsError."""
    options = " ".join(f"-c {name}={value}" for name, value in GUARDS.items())
    with passing_errors():
        return psycopg.connect(
            readable(dsn),
            autocommit=True,
            application_name=application,
            connect_timeout=CONNECT_TIMEOUT_S,
            options=options,
            keepalives=1,
            keepalives_idle=10,
            keepalives_interval=5,
            keepalives_count=3,
            tcp_user_timeout=30_000,
        )


def readable(dsn: str) -> str:
    """The address as it is. Raises SettingsError, without its text, for what is none: it may hold a password."""
    try:
        conninfo_to_dict(dsn)
    except psycopg.ProgrammingError:
        raise unreadable("DATABASE_URL") from None
    return dsn


@contextmanager
def passing_errors() -> Iterator[None]:
    """Turn errors that pass by themselves into DatabaseUnavailable, and missing tables into SchemaBehind."""
    try:
        yield
    except (
        sqlstate.UndefinedTable,
        sqlstate.UndefinedColumn,
        sqlstate.UndefinedFunction,
        sqlstate.InvalidSchemaName,
    ) as error:
        raise SchemaBehind(f"{first_line(error)}; run `tradetape history migrate`") from error
    except PASSING as error:
        raise _unavailable(first_line(error)) from error


def _unavailable(sentence: str) -> DatabaseUnavailable:
    """What an error that passes means; one of these does not pass while the password or the certificate is what it is.

    libpq tells no SQLSTATE of a session that was refused, only the sentence.
    """
    for part, meaning in _DENIALS.items():
        if part in sentence:
            return DatabaseDenied(f"PostgreSQL {meaning}: {sentence.rpartition('failed: ')[2]}")
    return DatabaseUnavailable(f"PostgreSQL: {sentence}")


def first_line(error: psycopg.Error) -> str:
    """The server's sentence without the DETAIL line, which holds data."""
    return str(error).strip().partition("\n")[0]
