"""Outboxes for tests: made by a real producer whose broker is away, looked at with the installed command."""

from __future__ import annotations

import json
import subprocess
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from console_rig import clean_environment, tradetape
from tradetape.producers import Producer
from tradetape.schemas import CATALOGUE, Action, Direction, Event, IndicatorUpdate, TradeSignal

LAST_HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def signal(number: int, *, symbol: str = "BTCUSDT", **given: Any) -> TradeSignal:
    """A decision; its number makes it another one."""
    return TradeSignal(
        strategy_id="rsi-dip", venue="v", symbol=symbol, timeframe="1m", action=Action.ENTER, direction=Direction.LONG,
        bar_close_time=LAST_HOUR - timedelta(minutes=number), reference_price="64123.10", **given,
    )  # fmt: skip


def update() -> IndicatorUpdate:
    """A market update for decisions to rest on."""
    return IndicatorUpdate(venue="v", symbol="BTCUSDT", timeframe="1h", bar_close_time=LAST_HOUR, values={"rsi_14": 28})


class OutboxRig:
    """A folder of outboxes, and a command that finds it."""

    def __init__(self, folder: Path, *, away: str, prefix: str) -> None:
        self.folder = folder / "outboxes"
        self.away = away
        self.catalogue = CATALOGUE.with_prefix(prefix)
        self.environment = clean_environment(
            folder / "home", TRADETAPE_OUTBOX_DIR=str(self.folder), TRADETAPE_TOPIC_PREFIX=prefix
        )

    @contextmanager
    def bot(self, source: str = "rsi-bot", *, servers: str | None = None) -> Iterator[Producer]:
        """A producer that runs; its broker is away unless one is named."""
        made = Producer(
            bootstrap_servers=servers or self.away, source=source, catalogue=self.catalogue, outbox_dir=self.folder
        )
        try:
            yield made
        finally:
            made.close(0.1)

    def left_behind(self, events: Iterable[Event], *, source: str = "rsi-bot") -> list[Event]:
        """What a bot emitted before it ended, with the broker away."""
        with self.bot(source) as bot:
            return [bot.emit(event) for event in events]

    def file(self, source: str = "rsi-bot") -> Path:
        """A source's outbox file."""
        return self.folder / source / "outbox.sqlite3"

    def run(self, *words: str, **variables: str) -> subprocess.CompletedProcess[str]:
        """`tradetape outbox …`."""
        return tradetape("outbox", *words, environment={**self.environment, **variables})

    def document(self, *words: str, **variables: str) -> Any:
        """What it prints with --json."""
        done = self.run(*words, "--json", **variables)
        assert done.stdout, done.stderr
        return json.loads(done.stdout)


def documents(done: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What was printed, one JSON document a line."""
    return [json.loads(line) for line in done.stdout.splitlines()]
