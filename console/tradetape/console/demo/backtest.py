"""A backtest in one page: the bot's strategy over the tape's candles gives the signals that it gave live, ids included.

    tradetape demo
    python -m tradetape.console.demo.backtest demo1

The bot is the very one that played live; only its producer is another one, which keeps what it is given. Ids follow from
what an event is about, so a signal of the backtest has the id of the live one (I9), and the two can be compared.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from datetime import datetime

from tradetape.console import exit_codes
from tradetape.console.demo.bars import Bar
from tradetape.console.demo.bot import SIGNAL_TIMEFRAME, SOURCE, Bot
from tradetape.console.environment import settings
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import Candle, RunMode, TradeSignal
from tradetape.streams import Tape


def backtest(tape: Tape, venue: str, start: datetime | None = None, end: datetime | None = None) -> list[TradeSignal]:
    """The signals that the bot gives on a stretch of the tape; the indicators warm up from its start."""
    recorder = RecordingProducer(source=SOURCE, run_mode=RunMode.BACKTEST)
    bot = Bot(tape=recorder, venue=venue)
    for candle in tape.read(Candle, start, end, order="time"):
        if candle.venue == venue and candle.timeframe == SIGNAL_TIMEFRAME:
            bot.on_minute(_bar(candle))
    return recorder.of(TradeSignal)


def live(tape: Tape, venue: str, start: datetime | None = None, end: datetime | None = None) -> list[TradeSignal]:
    """The signals of that stretch as they were given."""
    return [one for one in tape.read(TradeSignal, start, end) if one.venue == venue]


def _bar(candle: Candle) -> Bar:
    return Bar(
        candle.symbol, candle.timeframe, candle.open_time, candle.close_time,
        candle.open, candle.high, candle.low, candle.close, candle.volume,
    )  # fmt: skip


def main(argv: Sequence[str]) -> int:
    """Compare one venue's backtest with what happened; 4 where they differ."""
    if len(argv) != 1:
        print("usage: python -m tradetape.console.demo.backtest VENUE   (such as demo1, after `tradetape demo`)")
        return exit_codes.USAGE
    with Tape.from_env(settings()) as tape:
        given, found = live(tape, argv[0]), backtest(tape, argv[0])
    given_ids, found_ids = {one.event_id for one in given}, {one.event_id for one in found}
    for one in found:
        mark = " " if one.event_id in given_ids else "+"
        print(f"{mark} {one.event_time:%Y-%m-%d %H:%M}Z  {one.symbol:<8}  {one.action} {one.direction}  {one.event_id}")
    print(f"{len(found)} signals in the backtest, {len(given)} live, {len(given_ids & found_ids)} the same")
    return exit_codes.OK if given_ids == found_ids else exit_codes.BAD_DATA


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
