"""What Redis has to hold of a run, and what it holds: each series' newest event, field by field, for as long as it is current.

What is expected is derived here from the events themselves, as the documentation of the layout says it, and not by the
code that writes the hashes; only keys and horizons come from their registry, which is where they are defined.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, NamedTuple

import redis

from tradetape.console.demo.topic_content import Newest, TopicContent
from tradetape.schemas import Candle, Codec, Event, IndicatorUpdate, MarketCondition, TradeSignal, times
from tradetape.streams.state import keys as registry
from tradetape.streams.state.keys import Keys

Value = Decimal | float | int | str
Fields = dict[str, Value]

SCAN_COUNT = 1_000
_CANDLE = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "trade_count")
_SIGNAL = (
    "timeframe", "action", "direction", "order_type", "strategy_version", "confidence", "score", "magnitude_ratio",
    "weight", "multiplier", "reference_price", "entry_price", "stop_loss_price", "quantity", "amount_quote", "leverage",
    "position_ref",
)  # fmt: skip


class ExpectedHash(NamedTuple):
    """The hash of a series' newest event, and when it expires, in milliseconds since 1970."""

    fields: Fields
    expires_at_ms: int


class FoundHash(NamedTuple):
    """A hash as Redis has it. `ttl_ms` is -1 without an expiry, as PTTL says it."""

    fields: Mapping[str, str]
    ttl_ms: int
    encoding: str


class FoundState(NamedTuple):
    """The hashes of one venue by key, and Redis' own clock when they were read, in milliseconds since 1970."""

    hashes: dict[str, FoundHash]
    now_ms: int


def expected_hashes(contents: Iterable[TopicContent], codec: Codec, keys: Keys) -> dict[str, ExpectedHash]:
    """What Redis has to hold by key, for every series whose records are projected."""
    found = {}
    for content in contents:
        layout = _LAYOUTS.get(content.event_type.event_class)
        for newest in content.newest.values() if layout else ():
            assert layout
            event = codec.decode(newest.record.topic, newest.record.value)
            key = layout.key(keys, event)
            expires_at_ms = registry.expires_at_ms(key, newest.event_time_us, layout.horizon_us(event))
            found[key] = ExpectedHash({**_order(newest, event), **layout.fields(event)}, expires_at_ms)
    return found


def _order(newest: Newest, event: Event) -> Fields:
    assert event.event_id
    place = f"{newest.place.partition}:{newest.place.offset}"
    return {"_t": newest.event_time_us, "_o": place, "_id": event.event_id}


def find_hashes(client: redis.Redis, keys: Keys, venue: str) -> FoundState:
    """Every key of a venue that holds a series' newest event, whoever wrote it, read in one transaction."""
    pattern = f"{keys.root}*{{{venue}:*"
    trades = f"{keys.root}trades:"
    found = {key.decode() for key in client.scan_iter(match=pattern, count=SCAN_COUNT)}
    names = sorted(name for name in found if not name.startswith(trades))
    with client.pipeline(transaction=True) as pipeline:
        pipeline.time()
        for name in names:
            pipeline.hgetall(name)
            pipeline.pttl(name)
            pipeline.object("encoding", name)
        (seconds, micros), *answers = pipeline.execute()
    hashes = {}
    for name, fields, ttl_ms, encoding in zip(names, answers[0::3], answers[1::3], answers[2::3], strict=True):
        if fields:
            hashes[name] = FoundHash({k.decode(): v.decode() for k, v in fields.items()}, ttl_ms, encoding.decode())
    return FoundState(hashes, int(seconds) * 1_000 + int(micros) // 1_000)


def _given(event: Any, names: Iterable[str]) -> Fields:
    return {name: value for name in names if (value := getattr(event, name)) is not None}


def _time(name: str, instant: datetime | None) -> Fields:
    return {} if instant is None else {name: times.from_datetime(instant)}


def _candle(event: Any) -> Fields:
    return _given(event, _CANDLE)


def _indicators(event: Any) -> Fields:
    close = {} if event.close is None else {"_c": event.close}
    return {**close, **event.values}


def _market(event: Any) -> Fields:
    values = {f"v.{name}": value for name, value in event.values.items()}
    return {**_given(event, ("condition", "score")), **_time("_x", event.valid_until), **values}


def _signal(event: Any) -> Fields:
    return {**_given(event, _SIGNAL), **_time("_x", event.valid_until)}


class _Layout(NamedTuple):
    key: Callable[[Keys, Any], str]
    horizon_us: Callable[[Any], int]
    fields: Callable[[Any], Fields]


def _bars(event: Any) -> int:
    return registry.bar_horizon_us(event.timeframe)


def _a_day(_: Any) -> int:
    return registry.DAILY_HORIZON_US


_LAYOUTS: dict[type, _Layout] = {
    Candle: _Layout(lambda k, e: k.candle(e.venue, e.symbol, e.timeframe, is_final=e.is_final), _bars, _candle),
    IndicatorUpdate: _Layout(
        lambda k, e: k.indicators(e.venue, e.symbol, e.timeframe, e.indicator_set, is_final=e.is_final),
        _bars,
        _indicators,
    ),
    MarketCondition: _Layout(lambda k, e: k.market(e.scope, e.venue, e.symbol), _a_day, _market),
    TradeSignal: _Layout(lambda k, e: k.signal(e.venue, e.symbol, e.strategy_id), _a_day, _signal),
}
