"""Each role can do its work and nothing else; what is left is refused by PostgreSQL itself.

That a sink's work needs no more is shown by all other tests of it: their sinks log in with its role.
"""

from __future__ import annotations

from datetime import UTC, datetime

import psycopg
import pytest
from psycopg.errors import InsufficientPrivilege

from console_rig import run_command
from history_rig import HistoryRig, login_of
from tradetape.schemas import MarketCondition
from tradetape.sinks.errors import MigrationError, RolesRefused
from tradetape.sinks.history import roles
from tradetape.sinks.history.migrate import Migration, migrate, shipped
from tradetape.streams.processor import Partition

AT = datetime(2025, 6, 1, tzinfo=UTC)
PROBES = {
    "insert": "INSERT INTO tradetape.retention VALUES ('trades', 1)",
    "read": "SELECT count(*) FROM tradetape.candles",
    "read a month": "SELECT count(*) FROM tradetape.market_conditions_y2025m06",
    "read offsets": "SELECT count(*) FROM tradetape.sink_offsets",
    "move offsets": "UPDATE tradetape.sink_offsets SET next_offset = 0",
    "change": "UPDATE tradetape.market_conditions SET condition = 'x'",
    "delete": "DELETE FROM tradetape.market_conditions",
    "truncate": "TRUNCATE tradetape.market_conditions",
    "create a table": "CREATE TABLE tradetape.mine (a integer)",
    "alter a table": "ALTER TABLE tradetape.candles ADD COLUMN mine integer",
    "drop a table": "DROP TABLE tradetape.market_conditions_y2025m06",
    "make a month": "SELECT tradetape.ensure_month('candles', '2025-01-01')",
    "drop a month": "SELECT tradetape.drop_month('market_conditions', '2025-06-01')",
    "become the owner": "SET ROLE tradetape_owner",
}
MAY = {
    "tradetape_sink": {"read offsets", "move offsets", "make a month"},
    "tradetape_reader": {"read", "read offsets"},
    "tradetape_retention": {"drop a month"},
}
"""What each may do of the above. Reading a month by its own name is not needed by anybody: the table gives it."""


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    rig = HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)
    with rig.producer() as tape:
        tape.emit(MarketCondition(venue="v", symbol="BTCUSDT", scope="s", condition="c", event_time=AT))
    rig.store()
    return rig


@pytest.mark.parametrize("role", MAY)
def test_a_role_may_do_its_work_and_nothing_else(rig: HistoryRig, role: str) -> None:
    allowed = set()
    with psycopg.connect(login_of(rig.dsn, role)) as connection:
        for what, statement in PROBES.items():
            try:
                connection.execute(statement.encode())
                allowed.add(what)
            except InsufficientPrivilege:
                continue
            finally:
                connection.rollback()
    assert allowed == MAY[role]


def test_everything_belongs_to_an_owner_who_is_no_superuser(rig: HistoryRig) -> None:
    owners = rig.rows(
        "SELECT DISTINCT pg_get_userbyid(relowner) AS owner FROM pg_class WHERE relnamespace = 'tradetape'::regnamespace "
        "UNION SELECT pg_get_userbyid(proowner) FROM pg_proc WHERE pronamespace = 'tradetape'::regnamespace "
        "UNION SELECT pg_get_userbyid(nspowner) FROM pg_namespace WHERE nspname = 'tradetape'"
    )
    assert owners == [{"owner": "tradetape_owner"}]
    assert rig.rows("SELECT rolsuper, rolcanlogin FROM pg_roles WHERE rolname = 'tradetape_owner'") == [
        {"rolsuper": False, "rolcanlogin": False}
    ]


def test_a_table_of_a_later_migration_belongs_to_the_owner_and_has_its_grants(rig: HistoryRig) -> None:
    text = "CREATE TABLE tradetape.later (LIKE tradetape.candles) PARTITION BY RANGE (event_time)"
    migrate(rig.dsn, [*shipped(), Migration(9001, "9001_later.sql", text)])
    (row,) = rig.rows(
        "SELECT tableowner, has_table_privilege('tradetape_sink', 'tradetape.later', 'INSERT') AS may_write, "
        "has_table_privilege('tradetape_reader', 'tradetape.later', 'SELECT') AS may_read "
        "FROM pg_tables WHERE tablename = 'later'"
    )
    assert row == {"tableowner": "tradetape_owner", "may_write": True, "may_read": True}


def test_a_database_without_its_rights_is_told_and_mended_by_giving_them(rig: HistoryRig) -> None:
    with psycopg.connect(rig.dsn, autocommit=True) as connection:
        name = connection.info.dbname
        connection.execute(f'REVOKE CREATE ON DATABASE "{name}" FROM tradetape_owner'.encode())
        with pytest.raises(MigrationError, match=r"permission denied for database .*history roles.*--create"):
            migrate(rig.dsn)
        roles.apply(connection)
    assert migrate(rig.dsn) == []


def test_a_sink_without_other_rights_ends_the_session_of_the_owner_before_it(rig: HistoryRig) -> None:
    """Both log in as one user, which is all that pg_terminate_backend asks for."""
    topic = rig.catalogue.topic_name(rig.catalogue.by_class(MarketCondition))
    first, second = rig.sink(), rig.sink()
    first.assigned([Partition(topic, 0)])
    (before,) = rig.rows("SELECT owner_pid FROM tradetape.sink_offsets WHERE topic = %s AND partition = 0", topic)
    alive = "SELECT count(*) AS alive FROM pg_stat_activity WHERE pid = %s AND usename = 'test_tradetape_sink'"
    assert rig.rows(alive, before["owner_pid"]) == [{"alive": 1}]

    second.assigned([Partition(topic, 0)])

    assert rig.rows(alive, before["owner_pid"]) == [{"alive": 0}]
    first.close()
    second.close()


def test_what_is_printed_is_what_is_applied(
    rig: HistoryRig, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A database administrator may run it with psql, and `--apply` after that changes nothing."""
    capsys.readouterr()
    assert run_command("history", "roles", "--print") == 0
    with psycopg.connect(rig.dsn) as connection:
        connection.execute(capsys.readouterr().out.encode())
    monkeypatch.setenv("DATABASE_URL", rig.dsn)
    assert run_command("history", "roles", "--apply") == 0


def test_whoever_may_not_make_roles_is_told_what_to_do(rig: HistoryRig, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DATABASE_URL", login_of(rig.dsn, "tradetape_reader"))
    with pytest.raises(RolesRefused, match="--print"):
        run_command("history", "roles", "--apply")
