"""A bot in a process of its own that emits numbered decisions and says of each, once `emit` has returned, that it did.

What it said is kept by whoever started it, in another process: a `kill -9` takes nothing of it back.
Run as `python bot_process.py BOOTSTRAP PREFIX OUTBOX_DIR SOURCE FIRST COUNT PACE_S`.
"""

from __future__ import annotations

import sys
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import event_content
from tradetape.producers import OutboxFull, Producer
from tradetape.schemas import CATALOGUE, Action, Direction, TradeSignal

START = datetime(2020, 1, 1, tzinfo=UTC)
SYMBOLS = tuple(f"COIN{number}USDT" for number in range(7))


def decision(source: str, number: int) -> TradeSignal:
    """The same number is the same event, whoever emits it and when."""
    return TradeSignal(
        strategy_id=source, venue="binance", symbol=SYMBOLS[number % len(SYMBOLS)], timeframe="1m",
        bar_close_time=START + timedelta(minutes=number), action=Action.ENTER, direction=Direction.LONG,
        reference_price="64123.10", reasons=[str(number)],
    )  # fmt: skip


def main() -> None:
    """Emit numbers from FIRST on, until COUNT are emitted; then close."""
    bootstrap, prefix, folder, source = sys.argv[1:5]
    first, count, pace_s = int(sys.argv[5]), int(sys.argv[6]), float(sys.argv[7])
    with Producer(
        bootstrap_servers=bootstrap, source=source, catalogue=CATALOGUE.with_prefix(prefix), outbox_dir=Path(folder)
    ) as tape:
        for number in range(first, count):
            stamped = _emit(tape, decision(source, number))
            told = stamped.event_id, stamped.producer_run_id, stamped.producer_seq
            print(number, *told, event_content.of_event(stamped).hex(), flush=True)
            if pace_s:
                time.sleep(pace_s)


def _emit(tape: Producer, event: TradeSignal) -> TradeSignal:
    while True:
        try:
            return tape.emit(event)
        except OutboxFull:
            time.sleep(0.1)


if __name__ == "__main__":
    main()
