"""The replaced system's Redis, as its script fills and reads it, and its content as events of ours.

Nothing is dropped on the way: every value of every symbol and timeframe, the newest candle of every list, and every
entry of the lists that were its queues.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, NamedTuple

import redis

from bench.errors import BenchFailed
from tradetape.schemas import Action, Candle, Direction, IndicatorUpdate, TradeSignal, names

VENUE = "binance"
TIMEOUT_S = 300
SERIES = re.compile(rb"^([A-Z]+[0-9]*)_(15m|1h|4h)$")
QUEUES = ("FORK_FINAL_TRADES", "queues:trades")
FINAL = "FINAL_TRADES"
NOT_VALUES = ("latest_close", "timestamp")
SEPARATE = {"MACD_diff": "macd_diff"}
"""The script fills it with a value of its own, although it was MACD_Histogram under another name."""


class Series(NamedTuple):
    """The state of one symbol and timeframe."""

    symbol: str
    timeframe: str
    values: dict[str, float]
    close: float
    newest_candle: list[Any]


class Content(NamedTuple):
    """What the replaced system's Redis held, as far as it was state or work."""

    series: list[Series]
    queued: list[dict[str, Any]]


class LegacyScript:
    """The script, run against one Redis."""

    def __init__(self, path: Path, redis_url: str) -> None:
        self._command = [sys.executable, str(path)]
        self._url = redis_url

    def __call__(self, what: str) -> dict[str, Any]:
        """Run fill, report or read; what it found. Raises BenchFailed."""
        done = subprocess.run(
            [*self._command, what, "--url", self._url], capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
        if done.returncode:
            raise BenchFailed(f"{self._command[1]} {what} failed: {done.stderr.strip()[-500:]}")
        found: dict[str, Any] = json.loads(done.stdout)
        return found


def read_content(client: redis.Redis) -> Content:
    """Everything that is to be kept."""
    series = [
        _series(client, key, found)
        for key in sorted(client.scan_iter(count=1_000))
        if (found := SERIES.match(key)) is not None
    ]
    entries: list[Any] = [entry for name in QUEUES for entry in _list(client, name)]
    final = [{"symbol": symbol, "score": None, "meta": {}} for symbol in json.loads(_text(client, FINAL))]
    return Content(series, [json.loads(entry) for entry in entries] + final)


def queued(client: redis.Redis) -> int:
    """How many entries of its queues a Redis of the replaced system holds."""
    final = client.get(FINAL)
    return sum(len(_list(client, name)) for name in QUEUES) + (
        len(json.loads(final)) if isinstance(final, bytes) else 0
    )


def _series(client: redis.Redis, key: bytes, found: re.Match[bytes]) -> Series:
    values = json.loads(_text(client, key.decode()))
    newest = json.loads(_list(client, f"{key.decode()}_klines")[-1])
    kept = {name: value for name, value in values.items() if name not in NOT_VALUES}
    return Series(found[1].decode(), found[2].decode(), kept, values["latest_close"], newest)


def _text(client: redis.Redis, key: str) -> bytes:
    value = client.get(key)
    if not isinstance(value, bytes):
        raise BenchFailed(f"the script left no {key}")
    return value


def _list(client: redis.Redis, key: str) -> list[bytes]:
    entries: Any = client.lrange(key, 0, -1)
    return list(entries)


def canonical(values: dict[str, float]) -> dict[str, float]:
    """The values under the names that readers of ours use."""
    return {SEPARATE.get(name) or names.normalise_indicator(name): value for name, value in values.items()}


def events(content: Content, now: datetime) -> Iterator[IndicatorUpdate | Candle | TradeSignal]:
    """The content as it is emitted; bars are the last ones that closed before `now`."""
    for one in content.series:
        close_time = last_close(one.timeframe, now)
        yield IndicatorUpdate(
            venue=VENUE, symbol=one.symbol, timeframe=one.timeframe, bar_close_time=close_time,
            values=canonical(one.values), close=one.close,
        )  # fmt: skip
        yield _candle(one, close_time)
    for place, entry in enumerate(content.queued):
        yield TradeSignal(
            strategy_id="fork", venue=VENUE, symbol=entry["symbol"], timeframe="1h", action=Action.ENTER,
            direction=Direction.LONG, score=entry["score"], indicators=entry["meta"],
            event_time=now - timedelta(milliseconds=place),
        )  # fmt: skip


def last_close(timeframe: str, now: datetime) -> datetime:
    """When the last bar before `now` closed."""
    length = timedelta(microseconds=names.timeframe_us(timeframe))
    epoch = datetime(1970, 1, 1, tzinfo=UTC)
    return epoch + (now - epoch) // length * length


def _candle(one: Series, close_time: datetime) -> Candle:
    _, open_, high, low, close, volume, *_ = one.newest_candle
    length = timedelta(microseconds=names.timeframe_us(one.timeframe))
    return Candle(
        venue=VENUE, symbol=one.symbol, timeframe=one.timeframe, open_time=close_time - length, close_time=close_time,
        open=open_, high=high, low=low, close=close, volume=volume, is_final=True,
    )  # fmt: skip
