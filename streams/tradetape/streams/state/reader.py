"""Reads current state: one HGETALL for what took five GETs, typed values back, and how old they are.

Nothing found means unknown, never zero: the state expired, or was never there.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime, timedelta
from decimal import Decimal
from functools import lru_cache
from typing import Any, NamedTuple, Self, TypeVar

import msgspec
import redis

from tradetape.producers.settings import Settings, load
from tradetape.schemas import names, times
from tradetape.streams.state import activity
from tradetape.streams.state.activity import OUTCOMES, DecisionCounts, LastScan, TradeInFlight
from tradetape.streams.state.connection import connect, exchange, mapped_errors, pack
from tradetape.streams.state.keys import DEFAULT_PREFIX, DEFAULT_SET, Keys

GRACE_US = 10 * times.SECOND_US
"""How late the next bar may be before the last one counts as stale."""
QUESTIONS_REMEMBERED = 16_384
"""Series, each some hundred bytes, whose commands are not built again."""

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
        self,
        series: Iterable[tuple[str, str, str]],
        indicator_set: str = DEFAULT_SET,
        *,
        only: Collection[str] | None = None,
    ) -> list[IndicatorState | None]:
        """The same for many (venue, symbol, timeframe) in one round trip, in their order.

        `only` names the indicators to fetch; a scan of many symbols that looks at a few values is twice as fast.
        """
        wanted = None if only is None else tuple(dict.fromkeys(map(names.normalise_indicator, only)))
        asked = [_question(self._keys, tuple(one), indicator_set, wanted) for one in series]
        answers = self._ask([one.packed for one in asked])
        stored = map(_stored, answers) if wanted is None else (_some_stored(one, wanted) for one in answers)
        now = self._clock()
        return [
            None if found is None else _indicators(found, one.stale_after_us, now)
            for found, one in zip(stored, asked, strict=True)
        ]

    def candle(self, venue: str, symbol: str, timeframe: str, *, is_final: bool = True) -> CandleState | None:
        """The newest finished candle, or with is_final=False the newest in progress; None when unknown."""
        venue, symbol, timeframe = _normalised(venue, symbol, timeframe)
        found = self._read(self._keys.candle(venue, symbol, timeframe, is_final=is_final))
        return _candle(found, timeframe, self._clock()) if found else None

    def market(self, scope: str, venue: str = "", symbol: str = names.MARKET_WIDE) -> MarketState | None:
        """The newest condition of a scope that is still valid; None when unknown."""
        if symbol != names.MARKET_WIDE:
            venue, symbol = names.normalise_venue(venue), names.normalise_symbol(symbol)
        found = self._read(self._keys.market(scope, venue, symbol))
        is_known = b"condition" in found and _is_valid(found, self._clock())
        return _market(found, self._clock()) if is_known else None

    def signal(self, venue: str, symbol: str, strategy_id: str) -> SignalState | None:
        """The newest signal of a strategy that is still valid; None when unknown."""
        key = self._keys.signal(names.normalise_venue(venue), names.normalise_symbol(symbol), strategy_id)
        found = self._read(key)
        return _signal(found, self._clock()) if found and _is_valid(found, self._clock()) else None

    def conditions(self, scopes: Iterable[str]) -> list[MarketState | None]:
        """The newest condition of each market-wide scope, such as btc, in one round trip."""
        now = self._clock()
        found = self._read_many(self._keys.market(scope) for scope in scopes)
        return [_market(one, now) if b"condition" in one and _is_valid(one, now) else None for one in found]

    def decision_counts(self, stages: Iterable[str], *, minutes: int = 60) -> list[DecisionCounts]:
        """What each stage decided in the last minutes, in one round trip; minutes that nothing is known of are left out.

        Two hours are kept; what was counted before is in the history's view `decision_rates`.
        """
        asked = [(stage, one) for stage in stages for one in activity.minutes_until(self._clock(), minutes)]
        keys = (self._keys.decisions(stage, outcome, one) for stage, one in asked for outcome in OUTCOMES)
        sizes = self._ask([pack("SCARD", key) for key in keys])
        step = len(OUTCOMES)
        counts = (
            activity.decision_counts(stage, one, sizes[place * step : (place + 1) * step])
            for place, (stage, one) in enumerate(asked)
        )
        return [one for one in counts if one is not None]

    def last_scans(self, *, stages: Iterable[str] = (), strategies: Iterable[str] = ()) -> list[LastScan | None]:
        """When each stage last decided, then when each strategy last signalled, in one round trip; None when unknown.

        When a series was last updated is the `event_time` of its state.
        """
        keys = [self._keys.scan("stage", one) for one in stages] + [self._keys.scan("strategy", o) for o in strategies]
        now = self._clock()
        return [activity.last_scan(one, now) if one else None for one in self._read_many(keys)]

    def trades_in_flight(self, venue: str, symbol: str) -> list[TradeInFlight]:
        """The trades of a symbol that were approved and whose position is not closed, the oldest first."""
        return self.trades_in_flight_many([(venue, symbol)])[0]

    def trades_in_flight_many(self, symbols: Iterable[tuple[str, str]]) -> list[list[TradeInFlight]]:
        """The same for many (venue, symbol) in one round trip, in their order. Trades are known for 30 days."""
        normal = ((names.normalise_venue(venue), names.normalise_symbol(symbol)) for venue, symbol in symbols)
        found = self._read_many(self._keys.trades(venue, symbol) for venue, symbol in normal)
        now = self._clock()
        return [activity.trades_in_flight(one, now) for one in found]

    def _read(self, key: str) -> Hash:
        return self._read_many([key])[0]

    def _read_many(self, keys: Iterable[str]) -> list[Hash]:
        return [_hash(one) for one in self._ask([pack("HGETALL", key) for key in keys])]

    def _ask(self, packed: list[bytes]) -> list[Any]:
        with mapped_errors():
            return exchange(self._client, packed)

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


class _Question(NamedTuple):
    packed: bytes
    stale_after_us: int


@lru_cache(maxsize=QUESTIONS_REMEMBERED)
def _question(
    keys: Keys, series: tuple[str, str, str], indicator_set: str, wanted: tuple[str, ...] | None
) -> _Question:
    """What Redis is asked for the indicators of a series. A filter asks the same at every scan."""
    venue, symbol, timeframe = _normalised(*series)
    key = keys.indicators(venue, symbol, timeframe, indicator_set)
    packed = pack("HGETALL", key) if wanted is None else pack("HMGET", key, b"_t", b"_id", b"_c", *wanted)
    return _Question(packed, _stale_after_us(timeframe))


class _Stored(NamedTuple):
    """What a hash of indicators holds, as Redis gives it."""

    event_time: bytes
    event_id: bytes
    close: bytes | None
    values: dict[str, float]


def _hash(answer: Any) -> dict[bytes, bytes]:
    """A hash as RESP3 gives it, or RESP2, which has lists only."""
    return answer if isinstance(answer, dict) else dict(zip(answer[0::2], answer[1::2], strict=True))


def _stored(answer: Any) -> _Stored | None:
    values = _hash(answer)
    if not values:
        return None
    event_time, event_id, close = values.pop(b"_t"), values.pop(b"_id"), values.pop(b"_c", None)
    values.pop(b"_o", None)
    return _Stored(event_time, event_id, close, {name.decode(): float(value) for name, value in values.items()})


def _some_stored(answer: list[bytes | None], wanted: tuple[str, ...]) -> _Stored | None:
    event_time, event_id, close, *found = answer
    if event_time is None or event_id is None:
        return None
    values = {name: float(value) for name, value in zip(wanted, found, strict=True) if value is not None}
    return _Stored(event_time, event_id, close, values)


_to_datetime = lru_cache(maxsize=256)(times.to_datetime)
"""The series of a scan have few event times between them: their bars closed together."""


def _indicators(stored: _Stored, stale_after_us: int, now_us: int) -> IndicatorState:
    event_time, event_id, close, values = stored
    event_time_us = int(event_time)
    age_us = now_us - event_time_us
    return IndicatorState(
        event_time=_to_datetime(event_time_us),
        event_id=event_id.decode(),
        age=timedelta(0, 0, age_us),
        is_stale=age_us > stale_after_us,
        values=values,
        close=None if close is None else Decimal(close.decode()),
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
