"""The events that are measured: indicator updates of 12 values and a close, the same for every run."""

from __future__ import annotations

import random
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

from bench.errors import BenchFailed
from bench.services import Services
from tradetape.producers import Producer
from tradetape.schemas import Catalogue, Event, IndicatorUpdate, RunMode
from tradetape.schemas.names import CANONICAL_INDICATORS

VENUE = "bench"
VALUES = CANONICAL_INDICATORS[:12]
SEED = 7
FLUSH_TIMEOUT_S = 120.0


def update(number: int, symbol: str, close_time: datetime, timeframe: str = "1h") -> IndicatorUpdate:
    """One update; its values depend on its number alone."""
    rng = random.Random(SEED + number)
    values = {name: rng.uniform(-100, 100) for name in VALUES}
    close = f"{rng.uniform(1, 60_000):.4f}"
    return IndicatorUpdate(
        venue=VENUE, symbol=symbol, timeframe=timeframe, bar_close_time=close_time, values=values, close=close
    )


def updates(count: int, *, series: int, first_close: datetime, step: timedelta) -> Iterator[IndicatorUpdate]:
    """`count` updates of so many series, bar after bar: no two are the same event."""
    for number in range(count):
        bar, place = divmod(number, series)
        yield update(number, symbol(place), first_close + bar * step)


def symbol(place: int) -> str:
    """The symbol of a series."""
    return f"B{place:05}USDT"


def put_on_tape(services: Services, catalogue: Catalogue, events: Iterable[Event]) -> int:
    """Emit them all and wait until they are acknowledged; how many."""
    count = 0
    with Producer(
        bootstrap_servers=services.bootstrap_servers,
        source="bench",
        run_mode=RunMode.BACKTEST,
        catalogue=catalogue,
        overflow="wait",
        outbox_dir=services.outboxes,
    ) as tape:
        for event in events:
            tape.emit(event)
            count += 1
        if not tape.flush(FLUSH_TIMEOUT_S):
            raise BenchFailed(f"not all of {count} events were acknowledged: {tape.health()}")
    return count
