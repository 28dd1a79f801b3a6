"""The history is the same to the byte whatever time zone its worker's machine, its session and its database are in.

Two installed workers read one tape into two databases. Left out of the comparison is only what is a clock or a session
by nature: `updated_at`, `owner_pid` and `owner_backend_start` of sink_offsets.
"""

from __future__ import annotations

import signal
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from urllib.parse import urlsplit

import psycopg
import pytest
from psycopg.sql import SQL, Composed, Identifier, Literal

from console_rig import COMMAND, clean_environment, tradetape
from history_rig import HistoryRig
from tradetape.schemas import Candle, Fill, IndicatorUpdate, MarketCondition, Side
from waiting import eventually

UTC_ZONE, NEW_YORK = "UTC", "America/New_York"
BORDERS = (
    # The turns of a month and a year in UTC and in New York, and the hours that its clocks skip and repeat.
    datetime(2024, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC),
    datetime(2025, 1, 1, tzinfo=UTC),
    datetime(2025, 1, 1, 5, tzinfo=UTC),
    datetime(2025, 3, 9, 6, 59, 59, tzinfo=UTC),
    datetime(2025, 3, 9, 7, tzinfo=UTC),
    datetime(2025, 6, 1, 3, 59, tzinfo=UTC),
    datetime(2025, 11, 2, 5, 30, tzinfo=UTC),
    datetime(2025, 11, 2, 6, 30, tzinfo=UTC),
)
OFFSETS = SQL(
    "COPY (SELECT sink, topic, topic_uuid, partition, next_offset, epoch FROM tradetape.sink_offsets "
    "ORDER BY topic, partition) TO STDOUT (FORMAT BINARY)"
)
MONTHS = SQL(
    "COPY (SELECT relname, pg_get_expr(relpartbound, oid) FROM pg_class WHERE relispartition AND relkind = 'r' "
    "ORDER BY relname) TO STDOUT (FORMAT BINARY)"
)
ROWS = SQL("COPY (SELECT * FROM {} ORDER BY event_time, event_id) TO STDOUT (FORMAT BINARY)")


def database_of(dsn: str) -> str:
    """The database that an address names."""
    return urlsplit(dsn).path.removeprefix("/")


class Site:
    """A machine in a time zone, with a database that is in it as well; its worker runs as installed."""

    def __init__(self, zone: str, *, kafka: str, prefix: str, dsn: str, home: Path) -> None:
        self.zone = zone
        name = database_of(dsn)
        with psycopg.connect(dsn, autocommit=True) as connection:
            connection.execute(SQL("ALTER DATABASE {} SET timezone = {}").format(Identifier(name), Literal(zone)))
        self._environment = clean_environment(
            home, TZ=zone, PGTZ=zone, KAFKA_BOOTSTRAP_SERVERS=kafka, DATABASE_URL=dsn, TRADETAPE_TOPIC_PREFIX=prefix
        )
        migrated = tradetape("history", "migrate", environment=self._environment)
        assert migrated.returncode == 0, migrated.stderr
        self.rig = HistoryRig(kafka=kafka, prefix=prefix, dsn=dsn)
        self._log = home / "worker.log"

    @contextmanager
    def working(self) -> Iterator[None]:
        """Its worker, until it is told to stop."""
        command = [str(COMMAND), "work", "history", "--group", f"{self.rig.catalogue.prefix}{self.zone}"]
        with (
            self._log.open("wb") as output,
            subprocess.Popen(command, env=self._environment, stdout=output, stderr=output) as worker,
        ):
            try:
                yield
                worker.send_signal(signal.SIGTERM)
                assert worker.wait(30) == 0, self._log.read_text()
            finally:
                worker.kill()

    def content(self) -> dict[str, bytes]:
        """All that the database holds of the history, as COPY gives it in binary."""
        found = {}
        with psycopg.connect(self.rig.dsn, options=f"-c timezone={UTC_ZONE}") as connection:
            for one in self.rig.catalogue:
                found[one.table] = _copied(connection, ROWS.format(Identifier("tradetape", one.table)))
            found["sink_offsets"] = _copied(connection, OFFSETS)
            found["months"] = _copied(connection, MONTHS)
        return found


def _copied(connection: psycopg.Connection, query: SQL | Composed) -> bytes:
    with connection.cursor() as cursor, cursor.copy(query) as copy:
        return b"".join(bytes(data) for data in copy)


@pytest.fixture
def sites(kafka: str, topic_prefix: str, postgres: str, tmp_path: Path) -> Iterator[list[Site]]:
    """A site in UTC and one in New York."""
    other = urlsplit(postgres)._replace(path=f"/{database_of(postgres)}_newyork").geturl()
    name = Identifier(database_of(other))
    with psycopg.connect(postgres, autocommit=True) as connection:
        connection.execute(SQL("CREATE DATABASE {}").format(name))
        made = []
        for zone, dsn in ((UTC_ZONE, postgres), (NEW_YORK, other)):
            home = tmp_path / database_of(dsn)
            home.mkdir()
            made.append(Site(zone, kafka=kafka, prefix=topic_prefix, dsn=dsn, home=home))
        yield made
        connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def emit(rig: HistoryRig) -> int:
    """Events of several tables at each border; how many."""
    with rig.producer() as tape:
        for number, at in enumerate(BORDERS):
            tape.emit(MarketCondition(venue="v", symbol="BTCUSDT", scope="s", condition="c", event_time=at))
            tape.emit(
                IndicatorUpdate(venue="v", symbol="BTCUSDT", timeframe="1m", bar_close_time=at, values={"rsi_14": 0.1})
            )
            tape.emit(
                Candle(
                    venue="v", symbol="BTCUSDT", timeframe="1m", open_time=at - timedelta(minutes=1), close_time=at,
                    open="1.5", high=2, low=1, close="1.25", volume=number, is_final=True,
                    tags={"shop": "corner"},
                )
            )  # fmt: skip
            tape.emit(
                Fill(
                    venue="v", symbol="BTCUSDT", event_time=at, venue_order_id="o", venue_trade_id=str(number),
                    side=Side.BUY, price="1.5", quantity=2, amount_quote=3,
                )
            )  # fmt: skip
    return 4 * len(BORDERS)


def test_histories_written_in_two_time_zones_are_the_same_to_the_byte(sites: list[Site]) -> None:
    count = emit(sites[0].rig)
    ends = sites[0].rig.ends()

    with ExitStack() as at_work:
        for site in sites:
            at_work.enter_context(site.working())
        for site in sites:
            eventually(f"the worker in {site.zone} has stored the tape", partial(site.rig.has_come_to, ends))

    for site in sites:
        assert site.rig.assert_every_event_once() == count
        assert site.rig.rows("SHOW timezone") == [{"TimeZone": site.zone}], "else both databases are in one zone"
    in_utc, in_new_york = (site.content() for site in sites)
    assert in_utc == in_new_york
