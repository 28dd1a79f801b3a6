"""A record that kills the process which decodes it is a dead letter after two deaths; its neighbours are processed (I7).

The workers are the command's own, with one change: the codec ends its process where a value is the poison.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import psycopg
import pytest
import redis

from history_rig import HistoryRig
from streams_rig import WorkerProcess
from tradetape.console import cli
from tradetape.schemas import Codec, MarketCondition

POISON = b"\0poison"
NOW = datetime.now(UTC).replace(microsecond=0)
NEIGHBOURS = 40
STARTS = 3


def main(*words: str) -> int:
    """A worker whose decoder does not survive the poison."""
    decode_fields = Codec.decode_fields

    def deadly(self: Codec, topic: str, payload: bytes | None) -> dict[str, object]:
        if payload == POISON:
            os.kill(os.getpid(), signal.SIGKILL)
        return decode_fields(self, topic, payload)

    Codec.decode_fields = deadly  # type: ignore[method-assign]
    return cli.main(words)


class Supervised:
    """A worker that is started again when it dies, as its supervisor would; `starts` counts."""

    def __init__(self, environment: dict[str, str], log: Path) -> None:
        self._environment = {**environment, "PYTHONPATH": str(Path(__file__).parents[1] / "tooling")}
        self._log = log
        self._worker: WorkerProcess | None = None
        self.starts = 0

    def until(self, words: tuple[str, ...], what: str, condition: Callable[[], bool]) -> None:
        """Run it, again and again, until the condition holds."""
        while True:
            self.starts += 1
            assert self.starts <= STARTS, f"not after {STARTS} starts: {what}: {self._log.read_text()[-3000:]}"
            with WorkerProcess([__file__, *words], environment=self._environment, log=self._log) as worker:
                try:
                    worker.until(what, condition)
                except AssertionError:
                    if not worker.has_ended:
                        raise
                else:
                    assert worker.stop() == 0
                    return


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


@pytest.fixture
def worker(rig: HistoryRig, redis_url: str, tmp_path: Path) -> Supervised:
    environment = {
        "KAFKA_BOOTSTRAP_SERVERS": rig.kafka.bootstrap_servers, "DATABASE_URL": rig.dsn, "REDIS_URL": redis_url,
        "TRADETAPE_TOPIC_PREFIX": rig.catalogue.prefix,
    }  # fmt: skip
    return Supervised(environment, tmp_path / "worker.log")


def emit(rig: HistoryRig, first: int, count: int) -> None:
    """One condition for each of `count` symbols."""
    with rig.producer() as tape:
        for number in range(first, first + count):
            tape.emit(
                MarketCondition(
                    venue="v", symbol=f"C{number}USDT", scope="s", condition="c", event_time=NOW - timedelta(seconds=number)
                )
            )  # fmt: skip


def poisoned(rig: HistoryRig, *keys: bytes) -> None:
    rig.put(rig.catalogue.topic_name(rig.catalogue.by_record("MarketCondition")), [(key, POISON) for key in keys])


def letters(rig: HistoryRig) -> list[dict[str, str]]:
    """The headers of the dead letters, one for each place."""
    found = {}
    for record in rig.tape(rig.catalogue.dead_letters_topic):
        assert record.value == POISON
        headers = {name: (value or b"").decode() for name, value in record.headers}
        names = ("x-worker", "__connect.errors.topic", "__connect.errors.partition", "__connect.errors.offset")
        found[tuple(headers[name] for name in names)] = headers
    return list(found.values())


def stored(rig: HistoryRig) -> int:
    with psycopg.connect(rig.dsn) as connection:
        row = connection.execute("SELECT count(DISTINCT event_id) FROM tradetape.market_conditions").fetchone()
    assert row is not None
    return int(row[0])


def test_the_history_quarantines_what_kills_it_and_stores_all_around(rig: HistoryRig, worker: Supervised) -> None:
    emit(rig, 0, NEIGHBOURS)
    poisoned(rig, b"v:BTCUSDT")
    emit(rig, NEIGHBOURS, NEIGHBOURS)
    ends = rig.ends()
    worker.until(("work", "history"), "the history has caught up", lambda: rig.has_come_to(ends))
    assert stored(rig) == 2 * NEIGHBOURS
    (letter,) = letters(rig)
    assert (letter["x-reason"], letter["x-worker"], letter["x-attempt"]) == ("crash", "history", "1")
    assert "SIGKILL" in letter["__connect.errors.exception.message"]
    assert worker.starts == 2

    # It is behind the offsets now: an orderly restart does not meet it again.
    emit(rig, 2 * NEIGHBOURS, 10)
    ends = rig.ends()
    worker.until(("work", "history"), "what came later", lambda: rig.has_come_to(ends))
    assert (worker.starts, len(letters(rig)), stored(rig)) == (3, 1, 2 * NEIGHBOURS + 10)


def test_poison_at_the_end_of_its_partition_is_passed_for_good(rig: HistoryRig, worker: Supervised) -> None:
    """With no record behind it there is nothing to store that would move the offset past it."""
    emit(rig, 0, NEIGHBOURS)
    ends = rig.ends()
    worker.until(("work", "history"), "the neighbours", lambda: rig.has_come_to(ends))
    worker.starts = 0
    poisoned(rig, b"v:BTCUSDT", b"v:BTCUSDT")
    ends = rig.ends()
    worker.until(("work", "history"), "the end", lambda: rig.has_come_to(ends))
    assert worker.starts == 2
    emit(rig, NEIGHBOURS, 10)
    ends = rig.ends()
    worker.until(("work", "history"), "what came later", lambda: rig.has_come_to(ends))
    assert (worker.starts, len(letters(rig)), stored(rig)) == (3, 2, NEIGHBOURS + 10)


@pytest.mark.parametrize("engine", ["kafka", "faust"])
def test_current_state_quarantines_what_kills_it_and_shows_all_around(
    rig: HistoryRig, worker: Supervised, redis_url: str, engine: str
) -> None:
    emit(rig, 0, NEIGHBOURS)
    poisoned(rig, b"v:BTCUSDT")
    emit(rig, NEIGHBOURS, NEIGHBOURS)
    with redis.Redis.from_url(redis_url) as client:

        def is_complete() -> bool:
            shown = sum(1 for _ in client.scan_iter("tradetape:1:market:*", count=1_000))
            return shown == 2 * NEIGHBOURS and len(letters(rig)) == 1

        worker.until(("work", "state", "--engine", engine), "the state is complete", is_complete)
    (letter,) = letters(rig)
    assert (letter["x-reason"], letter["x-worker"]) == ("crash", "state")
    # Faust looks before it dies: it has no mark that would tell it when it need not.
    assert worker.starts == {"kafka": 2, "faust": 1}[engine]


@pytest.mark.long
def test_poison_that_comes_while_faust_works_kills_it_once(rig: HistoryRig, worker: Supervised, redis_url: str) -> None:
    """What comes later is not looked at beforehand, which would cost every record its time."""
    emit(rig, 0, NEIGHBOURS)
    came: list[bytes] = []
    with redis.Redis.from_url(redis_url) as client:

        def is_quarantined() -> bool:
            shown = sum(1 for _ in client.scan_iter("tradetape:1:market:*", count=1_000))
            if not came and shown == NEIGHBOURS:
                came.append(b"v:C0USDT")
                poisoned(rig, *came)
            return bool(came) and len(letters(rig)) == 1

        worker.until(("work", "state", "--engine", "faust"), "it is a dead letter", is_quarantined)
    assert worker.starts == 2


if __name__ == "__main__":
    sys.exit(main(*sys.argv[1:]))
