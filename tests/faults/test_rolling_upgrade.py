"""A schema gets a field more while everything runs: old and next release side by side, in both orders, the registry killed in between.

What the bots said they emitted is held against what PostgreSQL, Redis and the tape hold at the end.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import redis
from psycopg.sql import SQL, Identifier

import rolling_bot
from console_rig import clean_environment, tradetape
from history_rig import HistoryRig
from next_release import NextRelease
from streams_rig import WorkerProcess
from tradetape.console import exit_codes
from tradetape.console.local.registry import Registry as Service
from tradetape.streams.state.reader import StateReader
from waiting import eventually

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]

ROLES: Mapping[str, tuple[str, ...]] = {
    "state": ("--engine", "faust"),
    "approval": ("--engine", "kafka"),
    "history": (),
    "dispatch": ("--executor", "paper"),
    "positions": (),
    "staleness": (),
}
WAITING = ("state", "approval", "history", "staleness")
"""Who reads an event that has a new version before anybody else does."""
SOME = 60
"""Enough events to say that things go on."""
TIMEOUT_S = 150.0
OLD: Mapping[str, str] = {}
BASE_S = time.time() // 60 * 60


class Told(NamedTuple):
    """An event as its bot told of it; `value` is that of the new field, None in the old release."""

    record: str
    event_id: str
    value: str | None


class Bot:
    """A bot's process. It has its producer once it is made, and emits after `go`."""

    def __init__(self, source: str, first: int, *, environment: Mapping[str, str], folder: Path) -> None:
        self._log = folder / f"{source}.log"
        with self._log.open("wb") as output:
            self._process = subprocess.Popen(
                [sys.executable, str(Path(rolling_bot.__file__)), source, str(first), "2", str(BASE_S)],
                stdin=subprocess.PIPE, stdout=output, stderr=subprocess.STDOUT, env=dict(environment),
            )  # fmt: skip
        eventually(
            f"{source} has a producer",
            lambda: b"ready" in self._log.read_bytes() or self._has_ended,
            timeout_s=TIMEOUT_S,
        )
        assert not self._has_ended, self._log.read_text()[-3_000:]

    @property
    def _has_ended(self) -> bool:
        return self._process.poll() is not None

    def go(self) -> None:
        """Begin to emit."""
        assert self._process.stdin is not None
        self._process.stdin.write(b"go\n")
        self._process.stdin.flush()

    def end(self) -> None:
        """Deliver what was emitted, and leave."""
        assert self._process.stdin is not None
        self._process.stdin.close()
        assert self._process.wait(TIMEOUT_S) == 0, self._log.read_text()[-3_000:]

    def told(self) -> list[Told]:
        """What it has said by now."""
        lines = [line.split() for line in self._log.read_text().split("\n")[:-1]]
        return [
            Told(record, event_id, None if value == "None" else value)
            for record, event_id, value in (line for line in lines if line[0] in rolling_bot.NEW)
        ]

    def kill(self) -> None:
        """For the way out."""
        if not self._has_ended:
            self._process.kill()
            self._process.wait(10)


class Upgrade:
    """One system whose bots and workers are exchanged while it runs."""

    def __init__(self, rig: HistoryRig, variables: Mapping[str, str], folder: Path) -> None:
        self.rig = rig
        self.next = NextRelease(folder / "next")
        self.bots: dict[str, Bot] = {}
        self.workers: dict[str, WorkerProcess] = {}
        self._folder = folder
        self._variables = dict(variables)
        self._started = 0

    def run(self, *words: str, release: Mapping[str, str] = OLD) -> subprocess.CompletedProcess[str]:
        """A command of a release."""
        environment = clean_environment(self._folder / "home", **self._variables, **release)
        return tradetape(*words, environment=environment)

    def await_ids(self, release: Mapping[str, str] = OLD) -> None:
        """Until a process of this release starts here whatever becomes of the registry: its ids are kept on this machine."""
        eventually(
            "the registry has given its ids", lambda: self.run("tail", "candles", release=release).returncode == 0
        )

    def bot(self, source: str, first: int, *, release: Mapping[str, str] = OLD) -> Bot:
        """A bot that has not begun to emit."""
        environment = clean_environment(self._folder / "home", **self._variables, **release)
        self.bots[source] = Bot(source, first, environment=environment, folder=self._folder)
        return self.bots[source]

    def start_all(self, release: Mapping[str, str] = OLD) -> None:
        """Every role, in place of whoever has it."""
        for role in ROLES:
            self.start(role, release)

    def start(self, role: str, release: Mapping[str, str]) -> None:
        """Kill whoever has the role, and give it to a worker of a release."""
        if role in self.workers:
            self.workers[role].kill()
        self._started += 1
        group = f"{self.rig.catalogue.prefix}{role}"
        self.workers[role] = WorkerProcess(
            ["-m", "tradetape.console", "work", role, "--group", group, *ROLES[role]],
            environment={**self._variables, **release}, log=self._folder / f"{self._started}-{role}.log",
        )  # fmt: skip

    def log(self, role: str) -> str:
        """What the worker of a role has said."""
        return self.workers[role].log.read_text()

    def until(self, what: str, condition: Any) -> None:
        """Wait while every worker lives."""

        def holds() -> bool:
            for role, worker in self.workers.items():
                assert not worker.has_ended, f"{role} ended: {self.log(role)[-3_000:]}"
            return bool(condition())

        eventually(what, holds, timeout_s=TIMEOUT_S)

    def told(self, record: str, *sources: str) -> dict[str, str | None]:
        """The value of the new field by event, of what was emitted."""
        bots = [bot for source, bot in self.bots.items() if not sources or source in sources]
        return {one.event_id: one.value for bot in bots for one in bot.told() if one.record == record}

    def rows(self, table: str, column: str, schema: str = "tradetape") -> dict[str, Any]:
        """A column of the history by event."""
        query = SQL("SELECT event_id, {} FROM {}").format(Identifier(column), Identifier(schema, table))
        return {str(row["event_id"]): row[column] for row in self.rig.rows(query.as_string(None))}

    def stored(self, *sources: str) -> int:
        """How many of the events of these bots are in the history."""
        known = self.rows("candles", "venue").keys() | self.rows("trade_signals", "venue").keys()
        return len(known & (self.told("Candle", *sources).keys() | self.told("TradeSignal", *sources).keys()))

    def is_at_rest(self) -> bool:
        """Nothing is on its way: all is stored, each signal has its decision and trade, and each trade its order."""
        signals, trades = self.told("TradeSignal").keys(), self.rows("trades", "signal_id")
        acked = self.rig.rows("SELECT DISTINCT trade_id FROM tradetape.trade_dispatches WHERE outcome = 'ACKED'")
        return (
            self.rows("candles", "venue").keys() == self.told("Candle").keys()
            and self.rows("trade_signals", "venue").keys() == signals
            and {str(one) for one in trades.values()} == signals
            and {str(row["trade_id"]) for row in acked} == trades.keys()
            and self.rig.has_come_to(self.rig.ends())
        )

    def kill(self) -> None:
        """For the way out."""
        for bot in self.bots.values():
            bot.kill()
        for worker in self.workers.values():
            worker.kill()


@pytest.fixture
def upgrade(
    kafka: str, topic_prefix: str, postgres: str, redis_url: str, registry_url: str, tmp_path: Path
) -> Iterator[Upgrade]:
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": kafka, "DATABASE_URL": postgres, "REDIS_URL": redis_url,
        "SCHEMA_REGISTRY_URL": registry_url, "TRADETAPE_TOPIC_PREFIX": topic_prefix,
        "TRADETAPE_REDIS_PREFIX": topic_prefix.rstrip("."), "TRADETAPE_RUN_MODE": "PAPER",
        "TRADETAPE_LOG_FORMAT": "text", "TRADETAPE_CACHE": str(tmp_path / "cache"),
        "TRADETAPE_OUTBOX_DIR": str(tmp_path / "outbox"),
    }  # fmt: skip
    made = Upgrade(HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres), variables, tmp_path)
    assert made.run("schemas", "push").returncode == 0
    made.await_ids()
    try:
        yield made
    finally:
        made.kill()


def kill_registry(registry: Service) -> None:
    found = registry.running()
    assert found is not None
    found[0].kill()
    eventually("the registry is gone", lambda: registry.running() is None)


def begin(upgrade: Upgrade) -> Bot:
    """The old release at work, then the schemas and the tables of the next one; its bot is ready, and has not begun."""
    old = upgrade.bot("old", 0)
    upgrade.start_all()
    old.go()
    upgrade.until("the old release works", lambda: upgrade.stored() > SOME)
    pushed = upgrade.run("schemas", "push", release=upgrade.next.environment)
    assert (pushed.returncode, pushed.stdout.count(" new")) == (0, 3), pushed.stdout
    assert upgrade.run("history", "migrate", release=upgrade.next.environment).returncode == 0
    upgrade.await_ids(upgrade.next.environment)
    return upgrade.bot("next", 1, release=upgrade.next.environment)


def end(upgrade: Upgrade) -> None:
    """Both bots have worked side by side; then the old one leaves, and all comes to rest."""
    before = upgrade.stored("next")
    upgrade.until("the next release works", lambda: upgrade.stored("next") > before + SOME)
    upgrade.bots["old"].end()
    before = upgrade.stored("next")
    upgrade.until("it works alone", lambda: upgrade.stored("next") > before + SOME)
    upgrade.bots["next"].end()
    upgrade.until("all comes to rest", upgrade.is_at_rest)


def judge(upgrade: Upgrade, *, cache: redis.Redis) -> None:
    """Nothing lost, nothing doubled, nothing refused, and Redis shows the newest bars."""
    letters = upgrade.run("dlq", "list", "--json")
    assert (letters.returncode, letters.stdout) == (0, "")
    decisions = upgrade.rig.rows("SELECT signal_id, count(*) AS n FROM tradetape.signal_decisions GROUP BY signal_id")
    assert {str(row["signal_id"]): row["n"] for row in decisions} == dict.fromkeys(upgrade.told("TradeSignal"), 1)
    newest = upgrade.rig.rows(
        "SELECT DISTINCT ON (symbol) symbol, event_id FROM tradetape.candles ORDER BY symbol, event_time DESC"
    )
    assert len(newest) == len(rolling_bot.SYMBOLS)
    reader = StateReader(cache, prefix=upgrade.rig.catalogue.prefix.rstrip("."))
    for row in newest:
        upgrade.until(
            f"Redis shows the newest bar of {row['symbol']}",
            lambda row=row: shown_bar(reader, row["symbol"]) == str(row["event_id"]),
        )
    verified = upgrade.run("history", "verify")
    assert verified.returncode == 0, verified.stdout + verified.stderr
    shown = upgrade.run("tail", "candles", "--from", "beginning", release=upgrade.next.environment)
    events = [json.loads(line)["event"] for line in shown.stdout.splitlines()]
    shown_values = values({one["event_id"]: one["open_interest"] for one in events})
    assert shown_values == values(upgrade.told("Candle"))


def shown_bar(reader: StateReader, symbol: str) -> str | None:
    found = reader.candle(rolling_bot.VENUE, symbol, rolling_bot.TIMEFRAME)
    return None if found is None else found.event_id


def await_waiting(upgrade: Upgrade) -> None:
    for role in WAITING:
        upgrade.until(f"{role} waits", lambda role=role: "waiting: a record waits for schema" in upgrade.log(role))


def values(told: Mapping[str, str | None]) -> dict[str, Decimal | None]:
    return {event_id: None if value is None else Decimal(value) for event_id, value in told.items()}


def test_consumers_first_every_new_value_is_stored(upgrade: Upgrade, registry: Service, redis_url: str) -> None:
    bot = begin(upgrade)
    upgrade.start_all(upgrade.next.environment)
    kill_registry(registry)
    bot.go()
    upgrade.until("the next release works without the registry", lambda: upgrade.stored("next") > SOME)
    registry.up()
    end(upgrade)
    with redis.Redis.from_url(redis_url) as cache:
        judge(upgrade, cache=cache)
    assert upgrade.rows("candles", "open_interest") == values(upgrade.told("Candle"))
    desks = {event_id: value or "" for event_id, value in upgrade.told("TradeSignal").items()}
    assert upgrade.rows("trade_signals", "desk") == desks
    verified = upgrade.run("history", "verify", release=upgrade.next.environment)
    assert verified.returncode == 0, verified.stdout + verified.stderr


def test_producers_first_records_wait_for_the_registry_and_a_replay_fills_in_what_the_old_release_left_out(
    upgrade: Upgrade, registry: Service, redis_url: str
) -> None:
    bot = begin(upgrade)
    kill_registry(registry)
    bot.go()
    await_waiting(upgrade)
    # Killed over what they wait for, and started without the registry: others on this machine have kept its ids.
    upgrade.start_all()
    upgrade.until("the old release stores events of the next one", lambda: upgrade.stored("next") > SOME)
    registry.up()
    upgrade.start_all(upgrade.next.environment)
    end(upgrade)
    with redis.Redis.from_url(redis_url) as cache:
        judge(upgrade, cache=cache)
    told, stored = values(upgrade.told("Candle")), upgrade.rows("candles", "open_interest")
    left_out = {one for one in told if stored[one] != told[one]}
    assert left_out
    assert {stored[one] for one in left_out} == {None}, (
        "what the old release stored lacks the field, and is right besides"
    )
    replayed = upgrade.run("replay", "--into", "history", "--schema", "filled", release=upgrade.next.environment)
    # The copy differs from the history in what that lacks, and replay says of how many rows.
    assert replayed.returncode == exit_codes.BAD_DATA, replayed.stdout + replayed.stderr
    compared = {line.split()[0]: line.split()[1:] for line in replayed.stdout.splitlines() if line}
    assert compared["candles"] == [str(len(told) - len(left_out)), "0", "0", str(len(left_out))]
    assert upgrade.rows("candles", "open_interest", "filled") == told
