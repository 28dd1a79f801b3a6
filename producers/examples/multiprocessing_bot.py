"""Several processes, each with a producer and a source of its own, the parent among them.

A producer does not survive a fork: make it in the worker, not before. Two processes cannot share a source, since an
outbox has one owner. And leave it by `with` or `close`: a process of multiprocessing runs no exit handlers.

Run it: KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:19092 python producers/examples/multiprocessing_bot.py
"""

from __future__ import annotations

import multiprocessing
import sys
from datetime import UTC, datetime, timedelta

from tradetape.producers import Producer
from tradetape.schemas import Action, Direction, IndicatorUpdate, MarketCondition, TradeSignal

FIRST_CLOSE = datetime(2025, 5, 5, 8, tzinfo=UTC)
BARS = 3


def work(symbol: str) -> None:
    """What one process does: it watches one symbol."""
    with Producer.from_env(source=f"worker-{symbol.lower()}") as tape:
        for number in range(BARS):
            update = tape.emit(
                IndicatorUpdate(
                    venue="binance", symbol=symbol, timeframe="1m",
                    bar_close_time=FIRST_CLOSE + timedelta(minutes=number), values={"rsi_14": 29.0 + number},
                )
            )  # fmt: skip
        tape.caused_by(update).emit(
            TradeSignal(
                strategy_id="oversold", venue="binance", symbol=symbol, timeframe="1m",
                bar_close_time=update.bar_close_time, action=Action.ENTER, direction=Direction.LONG,
                input_event_ids=[update.event_id],
            )
        )  # fmt: skip


def main() -> None:
    """Start the workers while the parent's own producer is at work."""
    fork, spawn = multiprocessing.get_context("fork"), multiprocessing.get_context("spawn")
    with Producer.from_env(source="parent") as tape:
        tape.emit(
            MarketCondition(
                venue="binance", symbol="MARKET", scope="btc", condition="bullish", event_time=FIRST_CLOSE
            )
        )  # fmt: skip
        workers = [
            *(fork.Process(target=work, args=(symbol,), name=symbol) for symbol in ("BTCUSDT", "ETHUSDT")),
            *(spawn.Process(target=work, args=(symbol,), name=symbol) for symbol in ("SOLUSDT", "XRPUSDT")),
        ]
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    failed = [worker.name for worker in workers if worker.exitcode != 0]
    if failed:
        sys.exit(f"ended with an error: {', '.join(failed)}")


if __name__ == "__main__":
    main()
