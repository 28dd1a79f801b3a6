"""What tests of the streams room share: events as records of the tape, and workers as processes of their own."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tradetape.schemas import CATALOGUE, Candle, Catalogue, Codec, Event, IndicatorUpdate, RunMode, names, times
from tradetape.schemas.stamping import Stamper, wall_clock_us
from tradetape.streams.groups import NOT_YET
from tradetape.streams.record import Record
from waiting import eventually

DEADLINE_S = 60.0
STEP_S = 0.02


def now() -> datetime:
    """The time of this machine, which is also Redis'."""
    return times.to_datetime(wall_clock_us())


class Tape:
    """Turns events into the records that a producer would have written, numbered within one partition."""

    def __init__(self, catalogue: Catalogue = CATALOGUE, *, partition: int = 0) -> None:
        self._catalogue = catalogue
        self._stamper = Stamper(codec=Codec(catalogue), source="test", run_mode=RunMode.PAPER)
        self._partition = partition
        self._offset = 0

    def record(self, event: Event) -> Record:
        """The next record."""
        event_type, stamped, payload, emitted_at_us = self._stamper.stamp(event)
        self._stamper.keep()
        self._offset += 1
        return Record(
            self._catalogue.topic_name(event_type), self._partition, self._offset,
            names.record_key(stamped.venue, stamped.symbol), payload, (), emitted_at_us // 1_000,
        )  # fmt: skip


def candle(close_time: datetime, *, timeframe: str = "1m", symbol: str = "BTCUSDT", **more: Any) -> Candle:
    """A finished candle that closes then."""
    opened = close_time - timedelta(microseconds=names.timeframe_us(timeframe))
    prices = {"open": "10", "high": "12.5", "low": "9.75", "close": "11", "volume": "3"}
    return Candle(
        venue="binance", symbol=symbol, timeframe=timeframe, open_time=opened, close_time=close_time,
        **{"is_final": True, **prices, **more},
    )  # fmt: skip


def indicators(
    close_time: datetime, values: Mapping[str, float], *, timeframe: str = "1m", symbol: str = "BTCUSDT", **more: Any
) -> IndicatorUpdate:
    """The indicators of a bar that closes then."""
    return IndicatorUpdate(
        venue="binance", symbol=symbol, timeframe=timeframe, bar_close_time=close_time, values=values,
        **{"close": Decimal("11"), **more},
    )  # fmt: skip


class GroupOffsets:
    """Where a group stands, asked in its name by a client that does not join it.

    The administration's client is not asked: librdkafka ends the process when its answer is that the group is just
    moving on (seen with 2.16 in rd_kafka_handle_OffsetFetch).
    """

    def __init__(self, servers: str, group: str) -> None:
        self._consumer = Consumer({"bootstrap.servers": servers, "group.id": group, "enable.auto.commit": False})

    def committed(self, *topics: str, partitions: int) -> dict[tuple[str, int], int]:
        """The committed offset of each partition that has one."""
        asked = [TopicPartition(topic, number) for topic in topics for number in range(partitions)]
        try:
            found = self._consumer.committed(asked, timeout=DEADLINE_S)
        except KafkaException as error:
            if error.args[0].code() in NOT_YET:
                return {}
            raise
        return {(one.topic, one.partition): one.offset for one in found if one.offset >= 0}

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()


class WorkerProcess:
    """A worker in a process of its own, which does not outlive the test."""

    def __init__(self, command: Sequence[str], *, environment: Mapping[str, str], log: Path) -> None:
        self.log = log
        with log.open("ab") as output:
            self._process = subprocess.Popen(
                [sys.executable, *command], stdin=subprocess.DEVNULL, stdout=output, stderr=output,
                env={**os.environ, **environ_of(environment)},
            )  # fmt: skip

    @property
    def pid(self) -> int:
        return self._process.pid

    @property
    def has_ended(self) -> bool:
        return self._process.poll() is not None

    def until(self, what: str, condition: Callable[[], bool]) -> None:
        """Wait for a condition while the worker lives."""
        eventually(what, lambda: self.has_ended or condition())
        assert condition(), f"the worker ended with {self._process.poll()}: {self.log.read_text()[-3000:]}"

    def kill(self) -> None:
        """kill -9."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait(DEADLINE_S)

    def signal(self, name: str) -> None:
        """Send it a signal, such as STOP."""
        self._process.send_signal(signal.Signals[f"SIG{name}"])

    def stop(self) -> int:
        """TERM; the exit code."""
        self._process.terminate()
        return self._process.wait(DEADLINE_S)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        if not self.has_ended:
            self.kill()


def environ_of(given: Mapping[str, str]) -> dict[str, str]:
    """An environment in which Python buffers nothing."""
    return {"PYTHONUNBUFFERED": "1", **given}
