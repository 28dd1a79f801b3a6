"""Reads current state: one HGETALL for what took five GETs, typed values back, and how old they are.

Nothing found means unknown, never zero: the state expired, or was never there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, Self, TypeVar

import msgspec
import redis

from tradetape.producers.settings import Settings, load
from tradetape.schemas import names, times
from tradetape.streams.state.connection import connect, mapped_errors
from tradetape.streams.state.keys import DEFAULT_PREFIX, DEFAULT_SET, Keys

GRACE_US = 10 * times.SECOND_US
"""How late the next bar may be before the last one counts as stale."""

Hash = Mapping[bytes, bytes]


class State(msgspec.Struct, frozen=True, kw_only=True):
    """What every state has. `age` is the time since `event_time` when it was read."""

    event_time: datetime
    event_id: str
    age: timedelta
    is_stale: bool


class IndicatorState(State, frozen=True, kw_only=True):
    """The indicators of the newest bar: doubles by canonical name; the bar's close where it was given."""

    values: dict[str, float]
    close: Decimal | None


class CandleState(State, frozen=True, kw_only=True):
    """The newest candle: prices in quote currency, volume in base currency."""

    open: Decimal
    high: Decimal
    low: Decimal
    close: Decimal
    volume: Decimal


class MarketState(State, frozen=True, kw_only=True):
    """The newest condition of a scope."""

    condition: str
    score: float | None
    values: dict[str, float]


class SignalState(State, frozen=True, kw_only=True):
    """The newest signal of a strategy. `fields` holds what else the signal gave, as text; lists and maps are in the history."""

    action: str
    direction: str
    reference_price: Decimal | None
    valid_until: datetime | None
    fields: dict[str, str]


StateT = TypeVar("StateT", bound=State)


class StateReader:
    """Reads the state of one Redis. Thread-safe. `clock` gives microseconds since 1970-01-01 UTC."""

    def __init__(
        self,
        client: redis.Redis,
        *,
        prefix: str = DEFAULT_PREFIX,
        clock: Callable[[], int] = lambda: time.time_ns() // 1_000,
    ) -> None:
        self._client = client
        self._keys = Keys(prefix)
        self._clock = clock

    @classmethod
    def from_env(cls, settings: Settings | None = None) -> Self:
        """A reader as the environment says. Raises SettingsError."""
        settings = settings or load()
        return cls(connect(settings.required("REDIS_URL")), prefix=settings.redis_prefix)

    def indicators(
        self, venue: str, symbol: str, timeframe: str, indicator_set: str = DEFAULT_SET
    ) -> IndicatorState | None:
        """The indicators of the newest finished bar; None when unknown. Raises StateUnavailable, NameRefused."""
        return self.indicators_many([(venue, symbol, timeframe)], indicator_set)[0]

    def indicators_many(
        self, series: Iterable[tuple[str, str, str]], indicator_set: str = DEFAULT_SET
    ) -> list[IndicatorState | None]:
        """The same for many (venue, symbol, timeframe) in one round trip, in their order."""
        asked = [_normalised(*one) for one in series]
        found = self._read([self._keys.indicators(*one, indicator_set) for one in asked])
        now = self._clock()
        return [_indicators(hash_, one[2], now) if hash_ else None for hash_, one in zip(found, asked, strict=True)]

    def candle(self, venue: str, symbol: str, timeframe: str, *, is_final: bool = True) -> CandleState | None:
        """The newest finished candle, or with is_final=False the newest in progress; None when unknown."""
        venue, symbol, timeframe = _normalised(venue, symbol, timeframe)
        found = self._read([self._keys.candle(venue, symbol, timeframe, is_final=is_final)])[0]
        return _candle(found, timeframe, self._clock()) if found else None

    def market(self, scope: str, venue: str = "", symbol: str = names.MARKET_WIDE) -> MarketState | None:
        """The newest condition of a scope that is still valid; None when unknown."""
        if symbol != names.MARKET_WIDE:
            venue, symbol = names.normalise_venue(venue), names.normalise_symbol(symbol)
        found = self._read([self._keys.market(scope, venue, symbol)])[0]
        is_known = b"condition" in found and _is_valid(found, self._clock())
        return _market(found, self._clock()) if is_known else None

    def signal(self, venue: str, symbol: str, strategy_id: str) -> SignalState | None:
        """The newest signal of a strategy that is still valid; None when unknown."""
        key = self._keys.signal(names.normalise_venue(venue), names.normalise_symbol(symbol), strategy_id)
        found = self._read([key])[0]
        return _signal(found, self._clock()) if found and _is_valid(found, self._clock()) else None

    def _read(self, keys: list[str]) -> list[Hash]:
        with mapped_errors():
            if len(keys) == 1:
                one: Any = self._client.hgetall(keys[0])
                return [one]
            pipeline = self._client.pipeline(transaction=False)
            for key in keys:
                pipeline.hgetall(key)
            found: list[Hash] = pipeline.execute()
            return found

    def close(self) -> None:
        """Close the connections."""
        self._client.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _normalised(venue: str, symbol: str, timeframe: str) -> tuple[str, str, str]:
    return names.normalise_venue(venue), names.normalise_symbol(symbol), names.normalise_timeframe(timeframe)


def _is_valid(found: Hash, now_us: int) -> bool:
    return b"_x" not in found or int(found[b"_x"]) > now_us


def _stale_after_us(timeframe: str) -> int:
    """A bar is followed by the next one's close a timeframe later; only then, and a grace, is it stale."""
    return names.timeframe_us(timeframe) + GRACE_US


def _indicators(found: Hash, timeframe: str, now_us: int) -> IndicatorState:
    event_time_us = int(found[b"_t"])
    close = found.get(b"_c")
    return IndicatorState(
        event_time=times.to_datetime(event_time_us),
        event_id=found[b"_id"].decode(),
        age=timedelta(microseconds=now_us - event_time_us),
        is_stale=now_us - event_time_us > _stale_after_us(timeframe),
        values={name.decode(): float(value) for name, value in found.items() if name[0] != _UNDERSCORE},
        close=Decimal(close.decode()) if close is not None else None,
    )


_UNDERSCORE = ord("_")


def _common(found: Hash, now_us: int, stale_after_us: int) -> dict[str, object]:
    event_time_us = int(found[b"_t"])
    return {
        "event_time": times.to_datetime(event_time_us),
        "event_id": found[b"_id"].decode(),
        "age": timedelta(microseconds=now_us - event_time_us),
        "is_stale": now_us - event_time_us > stale_after_us,
    }


def _candle(found: Hash, timeframe: str, now_us: int) -> CandleState:
    prices = {name: Decimal(found[name.encode()].decode()) for name in ("open", "high", "low", "close", "volume")}
    return msgspec.convert({**_common(found, now_us, _stale_after_us(timeframe)), **prices}, CandleState)


def _market(found: Hash, now_us: int) -> MarketState:
    score = found.get(b"score")
    values = {name[2:].decode(): float(value) for name, value in found.items() if name.startswith(b"v.")}
    own = {"condition": found[b"condition"].decode(), "score": float(score) if score else None, "values": values}
    return msgspec.convert({**_common(found, now_us, times.DAY_US), **own}, MarketState)


def _signal(found: Hash, now_us: int) -> SignalState:
    fields = {name.decode(): value.decode() for name, value in found.items() if name[0] != _UNDERSCORE}
    own = {
        "action": fields.pop("action"),
        "direction": fields.pop("direction"),
        "reference_price": Decimal(price) if (price := fields.pop("reference_price", None)) else None,
        "valid_until": times.to_datetime(int(found[b"_x"])) if b"_x" in found else None,
        "fields": fields,
    }
    return msgspec.convert({**_common(found, now_us, times.DAY_US), **own}, SignalState)
