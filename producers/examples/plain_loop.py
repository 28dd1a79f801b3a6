"""A plain trading loop: an indicator update for each finished bar, and a signal that names the update it rests on.

`emit` never waits for the network, so it may stand in the middle of the loop; leaving the `with` delivers what is left.

Run it: KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:19092 python producers/examples/plain_loop.py
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from tradetape.producers import Producer
from tradetape.schemas import Action, Direction, IndicatorUpdate, TradeSignal

FIRST_CLOSE = datetime(2025, 5, 5, 8, 12, tzinfo=UTC)
CLOSES = ("94591.1", "94609.1", "94602.6", "94602.9", "94634", "94633.9", "94620", "94621")
PERIOD = 3


def finished_bars() -> Iterator[tuple[datetime, Decimal]]:
    """What a venue's feed yields: when each bar closed, and its close by the venue's own text."""
    for number, close in enumerate(CLOSES):
        yield FIRST_CLOSE + timedelta(minutes=number), Decimal(close)


def main() -> None:
    """Trade until the feed ends: enter above the average, exit below it."""
    recent: deque[Decimal] = deque(maxlen=PERIOD)
    is_long = False
    with Producer.from_env(source="plain-loop") as tape:
        for closed_at, close in finished_bars():
            recent.append(close)
            average = sum(recent) / PERIOD if len(recent) == PERIOD else None
            update = tape.emit(
                IndicatorUpdate(
                    venue="binance-usdm", symbol="BTCUSDT", timeframe="1m", bar_close_time=closed_at, close=close,
                    values={"sma_3": None if average is None else float(average)},
                )
            )  # fmt: skip
            if average is None or is_long == (close > average):
                continue
            is_long = not is_long
            tape.caused_by(update).emit(
                TradeSignal(
                    strategy_id="above-average", venue="binance-usdm", symbol="BTCUSDT", timeframe="1m",
                    bar_close_time=closed_at, action=Action.ENTER if is_long else Action.EXIT, direction=Direction.LONG,
                    reference_price=close, valid_until=closed_at + timedelta(minutes=5),
                    input_event_ids=[update.event_id],
                )
            )  # fmt: skip


if __name__ == "__main__":
    main()
