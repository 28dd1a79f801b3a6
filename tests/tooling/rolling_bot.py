"""A bot that trades on bars until its input is closed, in the old release and in the next one: what it knows of, it fills in.

It says "ready" once it has a producer, waits for a line, and then says of each event what it is: record, id, and what it
put into the field that is new. Run as `python rolling_bot.py SOURCE FIRST STEP BASE_S`.
"""

from __future__ import annotations

import select
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tradetape.producers import Producer
from tradetape.schemas import Action, Candle, Direction, Event, TradeSignal

VENUE = "v"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
PACE_S = 0.2
TIMEFRAME, BAR = "10s", timedelta(seconds=10)
"""They close ahead of the clock, so that Redis still holds the newest at the end, but never by the day that is refused."""
NEW = {"Candle": "open_interest", "TradeSignal": "desk"}


def main() -> None:
    """Emit every STEPth bar from FIRST on, with a signal."""
    source, first, step, base_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    base = datetime.fromtimestamp(base_s, UTC)
    with Producer.from_env(source=source) as tape:
        print("ready", flush=True)
        sys.stdin.readline()
        number = first
        while not select.select([sys.stdin], [], [], 0)[0]:
            emit(tape, bar(base, number))
            emit(tape, entry(source, base, number))
            number += step
            time.sleep(PACE_S)


def emit(tape: Producer, event: Event) -> None:
    """Emit it, and say so."""
    stamped: Any = tape.emit(event)
    record = type(stamped).__name__
    print(record, stamped.event_id, getattr(stamped, NEW[record], None), flush=True)


def known(record: type[Event], **fields: Any) -> dict[str, Any]:
    """Those of the fields that this release's record has."""
    return {name: value for name, value in fields.items() if name in record.__struct_fields__}


def symbol_of(number: int) -> str:
    """Bars go round the symbols, two at a time, so that both bots trade each of them."""
    return SYMBOLS[number // 2 % len(SYMBOLS)]


def bar(base: datetime, number: int) -> Candle:
    """One bar."""
    closed, price = base + number * BAR, Decimal(100 + number)
    return Candle(
        venue=VENUE, symbol=symbol_of(number), timeframe=TIMEFRAME, open_time=closed - BAR,
        close_time=closed, is_final=True, open=price, high=price + 1, low=price - 1, close=price, volume=5,
        **known(Candle, open_interest=Decimal(number) + Decimal("0.5")),
    )  # fmt: skip


def entry(source: str, base: datetime, number: int) -> TradeSignal:
    """The signal that a bar gives."""
    return TradeSignal(
        venue=VENUE, symbol=symbol_of(number), strategy_id=source, timeframe=TIMEFRAME, bar_close_time=base + number * BAR,
        action=Action.ENTER, direction=Direction.LONG, quantity=1, reference_price=100 + number,
        **known(TradeSignal, desk=f"desk-{number}"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
