"""What current state is made of: for each record of the tape, the keys that it changes, and how.

Pure functions of one record; the store is asked only for its keys and for what fits into a hash.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any
from uuid import UUID

from tradetape.schemas import decimals, times
from tradetape.streams.record import Record
from tradetape.streams.state import keys as layout
from tradetape.streams.state.keys import Keys
from tradetape.streams.state.store import StateStore
from tradetape.streams.state.writes import Members, TradeStep, Update, Write

Plain = Mapping[str, Any]
Fields = Iterator[tuple[str, str]]
Project = Callable[[StateStore, Record, Plain], Write]

COUNTED_BITS = (1 << 62) - 1
"""Of an id, what a count tells events apart by: Redis keeps a small set of such integers in 8 bytes each."""


def _newest(
    key_of: Callable[[Keys, Plain], str], horizon_us: Callable[[Plain], int], fields_of: Callable[[Plain], Fields]
) -> Project:
    """The newest event of a key, as its fields."""

    def project(store: StateStore, record: Record, plain: Plain) -> Write:
        key = key_of(store.keys, plain)
        event_time_us = plain["event_time"]
        return Update(
            key=key,
            event_time_us=event_time_us,
            partition=record.partition,
            offset=record.offset,
            expires_at_ms=layout.expires_at_ms(key, event_time_us, horizon_us(plain)),
            fields=store.fitting([("_id", plain["event_id"]), *fields_of(plain)]),
        )

    return project


def _counted(store: StateStore, _: Record, plain: Plain) -> Write:
    """A decision, in the set of those that its stage made in that minute with that outcome."""
    minute_us = plain["event_time"] // times.MINUTE_US * times.MINUTE_US
    key = store.keys.decisions(plain["stage"], plain["outcome"], minute_us)
    expires_at_ms = layout.expires_at_ms(key, minute_us, layout.DECISIONS_HORIZON_US)
    return Members(key=key, expires_at_ms=expires_at_ms, numbers={UUID(plain["event_id"]).int & COUNTED_BITS})


def _step(
    step: str, text_of_step: Callable[[Plain], str], fields_of: Callable[[Plain], Fields] = lambda _: iter(())
) -> Project:
    """What became of a trade, in the hash of its symbol's trades."""

    def project(store: StateStore, record: Record, plain: Plain) -> Write:
        key = store.keys.trades(plain["venue"], plain["symbol"])
        event_time_us = plain["event_time"]
        return TradeStep(
            key=key, trade_id=plain["trade_id"], step=step, event_time_us=event_time_us, partition=record.partition,
            offset=record.offset, text=text_of_step(plain), fields=store.fitting(fields_of(plain)),
            # Not put off as a key's expiry is: it stands in the hash, and trades do not come all at once.
            expires_at_ms=(event_time_us + layout.TRADES_HORIZON_US) // 1_000,
        )  # fmt: skip

    return project


def _text_of(value: Any) -> str:
    """A plain value as a field's text: decimals canonical, doubles by their shortest text, booleans 1 and 0."""
    if isinstance(value, bytes):
        return decimals.to_text(value)
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, float) else str(value)


def _given(plain: Plain, fields: Sequence[str]) -> Fields:
    for name in fields:
        if (value := plain[name]) is not None:
            yield name, _text_of(value)


_CANDLE = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "trade_count")
_SIGNAL = (
    "timeframe", "action", "direction", "order_type", "strategy_version", "confidence", "score", "magnitude_ratio",
    "weight", "multiplier", "reference_price", "entry_price", "stop_loss_price", "quantity", "amount_quote", "leverage",
    "position_ref",
)  # fmt: skip
"""A signal's lists and maps stay in the history, by its id."""


def _candle_fields(plain: Plain) -> Fields:
    yield from _given(plain, _CANDLE)


def _indicator_fields(plain: Plain) -> Fields:
    if plain["close"] is not None:
        yield "_c", _text_of(plain["close"])
    for name, value in plain["values"].items():
        yield name, repr(value)


def _market_fields(plain: Plain) -> Fields:
    yield from _given(plain, ("condition", "score"))
    yield from _valid_until(plain)
    for name, value in plain["values"].items():
        yield f"v.{name}", repr(value)


def _signal_fields(plain: Plain) -> Fields:
    yield from _given(plain, _SIGNAL)
    yield from _valid_until(plain)


def _valid_until(plain: Plain) -> Fields:
    """Not the key's expiry: an older signal that may live longer would come back after it."""
    if plain["valid_until"] is not None:
        yield "_x", str(plain["valid_until"])


def _of_symbol(plain: Plain) -> Fields:
    yield "venue", plain["venue"]
    yield "symbol", plain["symbol"]


def _decision_fields(plain: Plain) -> Fields:
    yield from _of_symbol(plain)
    yield "what", plain["outcome"]


def _strategy_fields(plain: Plain) -> Fields:
    yield from _of_symbol(plain)
    yield "what", plain["action"]


def _trade_fields(plain: Plain) -> Fields:
    yield from _given(plain, ("strategy_id", "position_ref", "planned_entry_price"))


def _bar_horizon_us(plain: Plain) -> int:
    return layout.bar_horizon_us(plain["timeframe"])


def _daily_horizon_us(_: Plain) -> int:
    return layout.DAILY_HORIZON_US


def _candle_key(keys: Keys, plain: Plain) -> str:
    return keys.candle(plain["venue"], plain["symbol"], plain["timeframe"], is_final=plain["is_final"])


def _indicators_key(keys: Keys, plain: Plain) -> str:
    return keys.indicators(
        plain["venue"], plain["symbol"], plain["timeframe"], plain["indicator_set"], is_final=plain["is_final"]
    )


def _market_key(keys: Keys, plain: Plain) -> str:
    return keys.market(plain["scope"], plain["venue"], plain["symbol"])


def _signal_key(keys: Keys, plain: Plain) -> str:
    return keys.signal(plain["venue"], plain["symbol"], plain["strategy_id"])


def _stage_key(keys: Keys, plain: Plain) -> str:
    return keys.scan("stage", plain["stage"])


def _strategy_key(keys: Keys, plain: Plain) -> str:
    return keys.scan("strategy", plain["strategy_id"])


PROJECTIONS: dict[str, tuple[Project, ...]] = {
    "Candle": (_newest(_candle_key, _bar_horizon_us, _candle_fields),),
    "IndicatorUpdate": (_newest(_indicators_key, _bar_horizon_us, _indicator_fields),),
    "MarketCondition": (_newest(_market_key, _daily_horizon_us, _market_fields),),
    "TradeSignal": (
        _newest(_signal_key, _daily_horizon_us, _signal_fields),
        _newest(_strategy_key, _daily_horizon_us, _strategy_fields),
    ),
    "SignalDecision": (_newest(_stage_key, _daily_horizon_us, _decision_fields), _counted),
    "Trade": (_step("approved", lambda plain: f"{plain['action']} {plain['direction']}", _trade_fields),),
    "TradeDispatch": (_step("dispatched", lambda plain: plain["outcome"]),),
    "TradeClosed": (_step("closed", lambda plain: f"CLOSED {plain['close_status']}"),),
}
"""By record, everything that it changes."""
