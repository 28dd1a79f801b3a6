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
from tradetape.schemas import CATALOGUE, Action, Candle, Direction, Event, TradeSignal

VENUE = "v"
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT")
HOLD_BARS = 4
PACE_S = 0.05
NEW = {"Candle": "open_interest", "TradeSignal": "desk"}


def main() -> None:
    """Emit every STEPth bar from FIRST on, with a signal to enter, and one to leave what was entered before."""
    source, first, step, base_s = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), float(sys.argv[4])
    base = datetime.fromtimestamp(base_s, UTC)
    with Producer.from_env(source=source) as tape:
        print("ready", flush=True)
        sys.stdin.readline()
        number, entered = first, dict[int, str]()
        while not select.select([sys.stdin], [], [], 0)[0]:
            emit(tape, bar(base, number))
            signal = emit(tape, entry(source, base, number))
            entered[number] = CATALOGUE.by_record("Trade").derive_id({"signal_id": signal, "account_id": None})  # type: ignore[misc]
            if (before := entered.pop(number - HOLD_BARS * step, None)) is not None:
                emit(tape, leave(source, base, number, before))
            number += step
            time.sleep(PACE_S)


def emit(tape: Producer, event: Event) -> str:
    """Emit it, and say so."""
    stamped: Any = tape.emit(event)
    record = type(stamped).__name__
    print(record, stamped.event_id, getattr(stamped, NEW[record], None), flush=True)
    return str(stamped.event_id)


def known(record: type[Event], **fields: Any) -> dict[str, Any]:
    """Those of the fields that this release's record has."""
    return {name: value for name, value in fields.items() if name in record.__struct_fields__}


def symbol_of(number: int) -> str:
    """Bars go round the symbols, two at a time, so that both bots trade each of them."""
    return SYMBOLS[number // 2 % len(SYMBOLS)]


def bar(base: datetime, number: int) -> Candle:
    """The bar of a minute."""
    closed, price = base + timedelta(minutes=number), Decimal(100 + number)
    return Candle(
        venue=VENUE, symbol=symbol_of(number), timeframe="1m", open_time=closed - timedelta(minutes=1),
        close_time=closed, is_final=True, open=price, high=price + 1, low=price - 1, close=price, volume=5,
        **known(Candle, open_interest=Decimal(number) + Decimal("0.5")),
    )  # fmt: skip


def entry(source: str, base: datetime, number: int, **more: Any) -> TradeSignal:
    """The signal that a bar gives."""
    closed = base + timedelta(minutes=number)
    given = {"action": Action.ENTER, "quantity": 1, **more}
    return TradeSignal(
        venue=VENUE, symbol=symbol_of(number), strategy_id=source, timeframe="1m", bar_close_time=closed,
        direction=Direction.LONG, reference_price=100 + number, **given, **known(TradeSignal, desk=f"desk-{number}"),
    )  # fmt: skip


def leave(source: str, base: datetime, number: int, trade_id: str) -> TradeSignal:
    """The signal to leave a position."""
    return entry(source, base, number, action=Action.EXIT, position_ref=trade_id)


if __name__ == "__main__":
    main()
