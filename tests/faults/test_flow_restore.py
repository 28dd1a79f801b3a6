"""PostgreSQL is restored from a dump of an hour ago, under running workers: no trade is sent again, and the tape fills the gap.

The far side is one that cannot tell repeats, and its own book says what it was sent.
"""

from __future__ import annotations

import subprocess
import sysconfig
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

import psycopg
import pytest
from psycopg.conninfo import conninfo_to_dict, make_conninfo
from psycopg.sql import SQL, Identifier

from dispatch_rig import OrderServer
from flow_rig import FlowRig, real_bars
from lockstep_rig import LockstepBot, Watch
from tradetape.console.local.postgres import SERVER
from tradetape.schemas import Trade
from tradetape.streams.approval.memory import Memory
from waiting import eventually

pytestmark = pytest.mark.long

SYMBOLS = ("BTCUSDT", "ETHUSDT", "BNBUSDT")
BARS_A_PART = 250
SETTLE_S = 120.0


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str, redis_url: str, tmp_path: Path) -> FlowRig:
    return FlowRig(kafka=kafka, prefix=topic_prefix, dsn=postgres, redis_url=redis_url, folder=tmp_path, policy="")


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OrderServer]:
    made = OrderServer(tmp_path)
    yield made
    made.close()


def tool(name: str) -> str:
    """A program of the local stack's PostgreSQL."""
    return str(Path(sysconfig.get_path("platlib")) / SERVER / "bin" / name)


class Dump:
    """A database as it was."""

    def __init__(self, dsn: str, file: Path) -> None:
        self._dsn = dsn
        self._file = file
        subprocess.run([tool("pg_dump"), "--format=custom", f"--file={file}", dsn], check=True)

    def restore(self) -> None:
        """In the place of what is there now; whoever is connected loses it."""
        name = str(conninfo_to_dict(self._dsn)["dbname"])
        owner = make_conninfo(self._dsn, dbname="postgres")
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(SQL("DROP DATABASE {} WITH (FORCE)").format(Identifier(name)))
            connection.execute(SQL("CREATE DATABASE {}").format(Identifier(f"{name}_new")))
        fresh = make_conninfo(self._dsn, dbname=f"{name}_new")
        subprocess.run([tool("pg_restore"), "--exit-on-error", f"--dbname={fresh}", self._file], check=True)
        with psycopg.connect(owner, autocommit=True) as connection:
            connection.execute(
                SQL("ALTER DATABASE {} RENAME TO {}").format(Identifier(f"{name}_new"), Identifier(name))
            )


def test_a_database_that_is_an_hour_old_sends_no_trade_again(
    rig: FlowRig, server: OrderServer, tmp_path: Path, market_data: Path
) -> None:
    bars = real_bars(market_data, SYMBOLS, 3 * BARS_A_PART, "15m")
    crew = rig.crew(server, keeps=True)
    memory = Memory.from_url(rig.redis_url, prefix=rig.redis_prefix)
    sent: list[int] = []
    try:
        with rig.tape_of_bot() as tape, Watch(rig) as watch:
            bot = LockstepBot(rig, server, tape, watch, memory)

            def a_part() -> None:
                bot.run(islice(bars, BARS_A_PART), meanwhile=lambda _: crew.mend())
                sent.append(len(server.posts()))

            a_part()
            dump = Dump(rig.dsn, tmp_path / "dump")
            a_part()
            dump.restore()
            assert len(rig.intents()) < sent[1], "the intents went back with the rest"
            a_part()

        def is_whole() -> bool:
            crew.mend()
            return rig.is_stored() and len(rig.intents()) == sent[2]

        eventually("history and intents are whole", is_whole, timeout_s=SETTLE_S)
    finally:
        memory.close()
        crew.kill()
    print(f"sent {sent}")
    assert 0 < sent[0] < sent[1] < sent[2]
    posts = server.posts()
    assert sorted(posts) == sorted(f"{one['idempotency_key']}:0" for one in rig.on_tape(Trade))
    assert len(posts) == len(set(posts)), "an order was sent twice"
    assert {row["outcome"] for row in rig.intents()} == {"ACKED"}
    rig.assert_every_event_once()
