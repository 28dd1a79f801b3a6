"""An asyncio bot: one task for each symbol, all on one producer.

`emit` is called without `await`: it never waits for the network. What does wait has its own form, `aflush` and
`async with`, and leaves the event loop to the other tasks.

Run it: KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:19092 python producers/examples/asyncio_bot.py
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta

from tradetape.producers import Producer
from tradetape.schemas import Action, Direction, IndicatorUpdate, TradeSignal

FIRST_CLOSE = datetime(2025, 5, 5, 8, tzinfo=UTC)
RSI_14 = {"BTCUSDT": (41.2, 35.8, 29.1, 33.0), "ETHUSDT": (28.4, 31.7, 36.0, 38.8), "SOLUSDT": (55.0, 52.3, 48.9, 45.1)}


async def finished_bars(symbol: str) -> AsyncIterator[tuple[datetime, float]]:
    """What a venue's websocket yields: when each bar closed, and an indicator of it."""
    for number, rsi in enumerate(RSI_14[symbol]):
        await asyncio.sleep(0)
        yield FIRST_CLOSE + timedelta(minutes=number), rsi


async def watch(tape: Producer, symbol: str) -> None:
    """Emit each bar's indicator, and a signal where it says oversold."""
    async for closed_at, rsi in finished_bars(symbol):
        update = tape.emit(
            IndicatorUpdate(
                venue="binance", symbol=symbol, timeframe="1m", bar_close_time=closed_at, values={"rsi_14": rsi}
            )
        )
        if rsi < 30:
            tape.caused_by(update).emit(
                TradeSignal(
                    strategy_id="oversold", venue="binance", symbol=symbol, timeframe="1m", bar_close_time=closed_at,
                    action=Action.ENTER, direction=Direction.LONG, valid_until=closed_at + timedelta(minutes=5),
                    input_event_ids=[update.event_id],
                )
            )  # fmt: skip


async def main() -> None:
    """Watch all symbols at once, and say so where something is not on the tape yet."""
    async with Producer.from_env(source="asyncio-bot") as tape:
        async with asyncio.TaskGroup() as tasks:
            for symbol in RSI_14:
                tasks.create_task(watch(tape, symbol))
        if not await tape.aflush(timeout_s=30.0):
            sys.exit(f"not on the tape yet: {tape.health().outbox.events} decisions, which the outbox keeps")


if __name__ == "__main__":
    asyncio.run(main())
