"""A bot that trades on bars until its input is closed, in the old release and in the next one: what it knows of, it fills in.

It says "ready" once it has a producer, waits for a line, and then says of each event what it is: record, id, and what it
put into the field that is new. Run as `python rolling_bot.py SOURCE FIRST STEP BASE_S`.
"""

from __future__ import annotations

import math
import select
import sys
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from tradetape.producers import Producer
from tradetape.schemas import Action, Candle, Direction, Event, TradeSignal

VENUE = "v"
SYMBOLS = tuple(f"COIN{number}USDT" for number in range(10))
"""Each is traded by every bot."""
TIMEFRAME, BAR = "1s", timedelta(seconds=1)
"""They close by the clock: Redis takes none that is ahead of it, and keeps none that is minutes old."""
NEW = {"Candle": "open_interest", "TradeSignal": "desk"}


def main() -> None:
    """Emit every STEPth bar of each symbol from FIRST on, those that close from now on, with a signal."""
    source, first, step, base_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    base = datetime.fromtimestamp(base_s, UTC)
    with Producer.from_env(source=source) as tape:
        print("ready", flush=True)
        sys.stdin.readline()
        number = first + step * math.ceil(max(time.time() - base_s - first, 0) / step)
        while not select.select([sys.stdin], [], [], max(base_s + number - time.time(), 0))[0]:
            for symbol in SYMBOLS:
                emit(tape, bar(symbol, base, number))
                emit(tape, entry(source, symbol, base, number))
            number += step


def emit(tape: Producer, event: Event) -> None:
    """Emit it, and say so."""
    stamped: Any = tape.emit(event)
    record = type(stamped).__name__
    print(record, stamped.event_id, getattr(stamped, NEW[record], None), flush=True)


def known(record: type[Event], **fields: Any) -> dict[str, Any]:
    """Those of the fields that this release's record has."""
    return {name: value for name, value in fields.items() if name in record.__struct_fields__}


def bar(symbol: str, base: datetime, number: int) -> Candle:
    """One bar."""
    closed, price = base + number * BAR, Decimal(100 + number)
    return Candle(
        venue=VENUE, symbol=symbol, timeframe=TIMEFRAME, open_time=closed - BAR,
        close_time=closed, is_final=True, open=price, high=price + 1, low=price - 1, close=price, volume=5,
        **known(Candle, open_interest=Decimal(number) + Decimal("0.5")),
    )  # fmt: skip


def entry(source: str, symbol: str, base: datetime, number: int) -> TradeSignal:
    """The signal that a bar gives."""
    return TradeSignal(
        venue=VENUE, symbol=symbol, strategy_id=source, timeframe=TIMEFRAME, bar_close_time=base + number * BAR,
        action=Action.ENTER, direction=Direction.LONG, quantity=1, reference_price=100 + number,
        **known(TradeSignal, desk=f"desk-{number}"),
    )  # fmt: skip


if __name__ == "__main__":
    main()
