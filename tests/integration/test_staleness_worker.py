"""`tradetape work staleness` as a process: silence reaches the tape by the clock, and a killed worker's successor knows of it."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from streams_rig import WorkerProcess, candle, now
from topics_rig import TopicsRig
from tradetape.schemas import Codec, MarketCondition
from tradetape.streams.topic_reader import TopicReader

GRACE = timedelta(seconds=1)
LENGTH = timedelta(seconds=1)


class Rig(TopicsRig):
    """A tape of candles, and what is told about them."""

    def __init__(self, kafka: str, prefix: str, folder: Path) -> None:
        super().__init__(kafka, prefix)
        self._prefix, self._folder = prefix, folder
        self._reader = TopicReader(self.kafka)

    def worker(self) -> WorkerProcess:
        environment = {
            "KAFKA_BOOTSTRAP_SERVERS": self.kafka.bootstrap_servers, "TRADETAPE_TOPIC_PREFIX": self._prefix,
            "REDIS_URL": "redis://127.0.0.1:1/0",
        }  # fmt: skip
        command = [
            "-m",
            "tradetape.console",
            "work",
            "staleness",
            "--grace-s",
            "1",
            "--group",
            f"{self._prefix}staleness",
        ]
        return WorkerProcess(command, environment=environment, log=self._folder / "staleness.log")

    def told(self) -> list[Any]:
        """Every condition on the tape, in order: they are of one symbol."""
        topic = self.catalogue.topic_name(self.catalogue.by_class(MarketCondition))
        partitions = self._reader.partitions([topic])
        codec = Codec(self.catalogue)
        records = self._reader.read(self._reader.begins(partitions), self._reader.ends(partitions))
        return [codec.decode(one.topic, one.value) for one in records]

    def conditions(self) -> list[str]:
        return [one.condition for one in self.told()]

    def close(self) -> None:
        self._reader.close()


@pytest.fixture
def rig(kafka: str, topic_prefix: str, tmp_path: Path) -> Iterator[Rig]:
    made = Rig(kafka, topic_prefix, tmp_path)
    yield made
    made.close()


def test_silence_is_told_by_the_clock_and_its_end_by_the_successor_of_a_worker(rig: Rig) -> None:
    closed_at = now().replace(microsecond=0)
    rig.emit([candle(closed_at, timeframe="1s")])
    with rig.worker() as worker:
        worker.until("the silence is told", lambda: rig.conditions() == ["stale"])
        assert worker.stop() == 0
    (alarm,) = rig.told()
    assert alarm.event_time == closed_at + LENGTH + GRACE
    assert (alarm.scope, alarm.symbol, alarm.producer) == ("staleness:candles:1s", "BTCUSDT", "staleness")

    back_at = now().replace(microsecond=0)
    with rig.worker() as successor:
        rig.emit([candle(back_at, timeframe="1s")])
        successor.until("its end is told, and the next silence", lambda: len(rig.told()) == 3)
        assert successor.stop() == 0
    assert rig.conditions() == ["stale", "fresh", "stale"]
    assert [one.event_time for one in rig.told()[1:]] == [back_at, back_at + LENGTH + GRACE]
    assert len({one.event_id for one in rig.told()}) == 3


@pytest.mark.long
def test_a_series_that_falls_silent_while_its_worker_is_dead_is_told_by_the_next_one_and_nothing_is_told_twice(
    rig: Rig,
) -> None:
    first_at = now().replace(microsecond=0)
    rig.emit([candle(first_at, timeframe="1s")])
    with rig.worker() as worker:
        worker.until("the first silence is told", lambda: rig.conditions() == ["stale"])
        worker.kill()
    back_at = now().replace(microsecond=0)
    rig.emit([candle(back_at, timeframe="1s"), candle(back_at + LENGTH, timeframe="1s")])
    for _ in range(2):
        with rig.worker() as worker:
            worker.until("all is told", lambda: len(rig.told()) == 3)
            worker.kill()
    with rig.worker() as worker:
        rig.emit([candle(now().replace(microsecond=0) + LENGTH, timeframe="1s")])
        worker.until("it is back again", lambda: rig.conditions()[3:4] == ["fresh"])
        worker.kill()
    told = rig.told()
    assert [one.condition for one in told][:4] == ["stale", "fresh", "stale", "fresh"]
    assert [one.event_time for one in told[:3]] == [
        first_at + LENGTH + GRACE, max(back_at, first_at + LENGTH + GRACE), back_at + 2 * LENGTH + GRACE
    ]  # fmt: skip
    assert len({one.event_id for one in told}) == len(told)
