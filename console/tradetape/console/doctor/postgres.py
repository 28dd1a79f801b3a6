"""Checks of PostgreSQL: does it answer, is it one that gets fixes, are its tables those of this version."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from tradetape.console.doctor import clocks
from tradetape.console.doctor.finding import Finding, State, away, some
from tradetape.producers.errors import SettingsError
from tradetape.producers.settings import EXAMPLES

if TYPE_CHECKING:
    import psycopg

    from tradetape.producers.settings import Settings

VARIABLE = "DATABASE_URL"
OLDEST = 14
"""PostgreSQL's own project fixes nothing older."""
_NOW_US = "SELECT (extract(epoch FROM clock_timestamp()) * 1000000)::bigint"


def check(settings: Settings) -> Iterator[Finding]:
    """The findings. Raises ModuleNotFoundError without the extra `sinks`."""
    import psycopg

    from tradetape.sinks.errors import DatabaseUnavailable
    from tradetape.sinks.history.connection import connect

    try:
        with connect(settings.required(VARIABLE), application="tradetape-doctor") as connection:
            yield judge_version(connection.info.server_version)
            yield _migrations(connection)
            yield clocks.compare("postgres clock", lambda: _now_us(connection))
    except DatabaseUnavailable as error:
        yield away("postgres", str(error), VARIABLE)
    except SettingsError as error:
        yield Finding("postgres", State.FAIL, str(error), f"export {VARIABLE}={EXAMPLES[VARIABLE]}")
    except psycopg.ProgrammingError:
        yield Finding("postgres", State.FAIL, "permission denied", f"export {VARIABLE}={EXAMPLES[VARIABLE]}")


def _now_us(connection: psycopg.Connection) -> int:
    row = connection.execute(_NOW_US).fetchone()
    assert row is not None
    return int(row[0])


def judge_version(number: int) -> Finding:
    """Whether a server of this version (as the server numbers it, such as 180004) is one that we run on."""
    told = f"version {number // 10_000}.{number % 10_000}"
    if number < OLDEST * 10_000:
        return Finding("postgres", State.WARN, f"{told} gets no more fixes", f"upgrade to PostgreSQL {OLDEST} or newer")
    return Finding("postgres", State.OK, told)


def _migrations(connection: psycopg.Connection) -> Finding:
    from tradetape.sinks.errors import MigrationError
    from tradetape.sinks.history.migrate import applied, pending, shipped

    ours = shipped()
    try:
        behind = pending(connection, ours)
    except MigrationError as error:
        return Finding("history", State.FAIL, str(error), "install the version of tradetape that made this database")
    if behind:
        detail = f"{len(behind)} of {len(ours)} migrations are not applied: {some([one.name for one in behind])}"
        return Finding("history", State.FAIL, detail, "tradetape history migrate")
    if newer := sorted(applied(connection).keys() - {one.version for one in ours}):
        detail = f"made by a newer tradetape: migrations {some([str(one) for one in newer])}"
        return Finding("history", State.WARN, detail, "pip install --upgrade tradetape")
    return Finding("history", State.OK, f"migrations applied: {len(ours)}")
