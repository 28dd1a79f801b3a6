"""A session with PostgreSQL: its guards, and which of its errors pass by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import psycopg
from psycopg import errors as sqlstate

from tradetape.sinks.errors import DatabaseUnavailable, SchemaBehind

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


def connect(dsn: str, *, application: str) -> psycopg.Connection:
    """A session in autocommit mode with guards and keepalives. Raises DatabaseUnavailable."""
    options = " ".join(f"-c {name}={value}" for name, value in GUARDS.items())
    with passing_errors():
        return psycopg.connect(
            dsn,
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
        raise SchemaBehind(f"{_first_line(error)}; run `tradetape history migrate`") from error
    except PASSING as error:
        raise DatabaseUnavailable(f"PostgreSQL: {_first_line(error)}") from error


def _first_line(error: psycopg.Error) -> str:
    """The server's sentence without the DETAIL line, which holds data."""
    return str(error).strip().partition("\n")[0]
