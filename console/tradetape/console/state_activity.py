"""What the system is busy with, for `tradetape state activity`: every stage, strategy and symbol that Redis knows of."""

from __future__ import annotations

from collections import Counter

import msgspec

from tradetape.console.state_content import StateContent
from tradetape.streams.state.activity import LastScan, TradeInFlight
from tradetape.streams.state.reader import StateReader


class StageActivity(msgspec.Struct, frozen=True, kw_only=True):
    """One stage: how its decisions of the last minutes came out, and its newest one."""

    stage: str
    by_outcome: dict[str, int]
    last: LastScan | None


class StrategyActivity(msgspec.Struct, frozen=True, kw_only=True):
    """One strategy and its newest signal."""

    strategy_id: str
    last: LastScan


class SymbolActivity(msgspec.Struct, frozen=True, kw_only=True):
    """One symbol and its trades in flight."""

    venue: str
    symbol: str
    trades: list[TradeInFlight]


class Activity(msgspec.Struct, frozen=True, kw_only=True):
    """All of it."""

    minutes: int
    stages: list[StageActivity]
    strategies: list[StrategyActivity]
    symbols: list[SymbolActivity]


def activity(content: StateContent, reader: StateReader, *, minutes: int) -> Activity:
    """What happened in the last minutes, and what is in flight. Raises StateUnavailable."""
    scanned = [one.partition(":") for one in content.subjects("scan")]
    stages = sorted({name for by, _, name in scanned if by == "stage"} | set(content.subjects("decisions")))
    strategies = sorted(name for by, _, name in scanned if by == "strategy")
    last = reader.last_scans(stages=stages, strategies=strategies)
    totals: dict[str, Counter[str]] = {stage: Counter() for stage in stages}
    for one in reader.decision_counts(stages, minutes=minutes):
        totals[one.stage].update(one.by_outcome)
    places = [(venue, symbol) for venue, _, symbol in (one.partition(":") for one in content.subjects("trades"))]
    trades = reader.trades_in_flight_many(places)
    return Activity(
        minutes=minutes,
        stages=[
            StageActivity(stage=stage, by_outcome=dict(totals[stage]), last=found)
            for stage, found in zip(stages, last, strict=False)
        ],
        strategies=[
            StrategyActivity(strategy_id=strategy_id, last=found)
            for strategy_id, found in zip(strategies, last[len(stages) :], strict=True)
            if found is not None
        ],
        symbols=[
            SymbolActivity(venue=venue, symbol=symbol, trades=found)
            for (venue, symbol), found in zip(places, trades, strict=True)
            if found
        ],
    )
