"""The bot at work: it plays the sample's minutes at their pace, in a thread of its own, and writes down what it emitted."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import NamedTuple

import msgspec

from tradetape.console.demo import bars
from tradetape.console.demo.bars import Bar
from tradetape.console.demo.bot import SOURCE, Bot
from tradetape.console.demo.ledger import Ledger
from tradetape.console.demo.pace import Pace
from tradetape.console.errors import DemoFailed
from tradetape.producers import Producer
from tradetape.producers.settings import Settings
from tradetape.schemas import times

FLUSH_TIMEOUT_S = 60.0


class Plan(NamedTuple):
    """What to play. `speed` is a factor of real time, None as fast as it goes; `as_recorded` keeps the sample's times."""

    symbols: Sequence[str]
    speed: float | None
    as_recorded: bool


class Emission:
    """One run's bot. `ledger` holds what it emitted, `minutes_done` how many minutes of the market it has played."""

    def __init__(self, *, plan: Plan, settings: Settings, venue: str) -> None:
        self._series = [bars.read_sample(symbol) for symbol in plan.symbols]
        self.venue = venue
        self._plan = plan
        # Two runs may play at once, and an outbox belongs to one producer.
        settings = msgspec.structs.replace(settings, outbox_dir=f"{settings.outbox_dir}/{venue}")
        # A backfill wants every event on the tape: it waits for room rather than drop what is not the newest.
        self._producer = Producer.from_env(source=SOURCE, overflow="wait", settings=settings)
        self.ledger = Ledger(self._producer, settings.catalogue())
        self.minutes = len(self._series[0])
        self.minutes_done = 0
        self._failure: Exception | None = None
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="demo-bot", daemon=True)

    def start(self) -> None:
        """Begin to play."""
        self._thread.start()

    def is_done(self) -> bool:
        """Whether all is played and acknowledged by Kafka. Raises DemoFailed when the bot has failed."""
        if self._failure is not None:
            raise DemoFailed(f"the bot has failed: {self._failure}") from self._failure
        return not self._thread.is_alive()

    def market_end_us(self) -> int:
        """When the last bar that was emitted closed, in microseconds since 1970; 0 before the first one."""
        newest = self.ledger.latest.get("Candle")
        return times.from_datetime(newest.event_time) if newest is not None and newest.event_time is not None else 0

    def stop(self) -> None:
        """Play no further minute and let go of the producer."""
        self._stop.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            with self._producer:
                self._play()
                if not self._stop.is_set() and not self._producer.flush(FLUSH_TIMEOUT_S):
                    raise DemoFailed(f"Kafka has not acknowledged every event within {FLUSH_TIMEOUT_S:.0f} s")
        except Exception as error:  # noqa: BLE001  # handed to whoever asks is_done(), in the main thread
            self._failure = error

    def _play(self) -> None:
        pace = Pace(self._plan.speed, sleep=self._stop.wait)
        bot = Bot(tape=self.ledger, venue=self.venue)
        for index, together in enumerate(bars.by_minute(self._timed(pace.takes(self.minutes)))):
            pace.await_close(index)
            if self._stop.is_set():
                return
            for minute in together:
                bot.on_minute(minute)
            self.minutes_done = index + 1

    def _timed(self, takes: timedelta) -> list[list[Bar]]:
        """The sample, moved so that its last minute closes when it is played."""
        if self._plan.as_recorded:
            return self._series
        shift = bars.shift_to(self._series[0][-1].close_time, datetime.now(UTC) + takes)
        return [bars.moved(series, shift) for series in self._series]
