"""Every key that tradetape keeps in Redis: the patterns, and the only way to build one (I2).

`tradetape:1:<kind>:{<venue>:<symbol>}…`: one versioned namespace; the braces are Redis Cluster's hash tag, so all of a
symbol's state lies on one node. An audit compares what it finds with `PATTERNS`.
"""

from __future__ import annotations

import re
import zlib
from functools import lru_cache
from typing import NamedTuple

from tradetape.schemas import names, times
from tradetape.schemas.times import DAY_US, MINUTE_US

LAYOUT = 1
DEFAULT_PREFIX = "tradetape"
DEFAULT_SET = "default"
BARS_KEPT = 3
LEAST_HORIZON_US = 5 * MINUTE_US
SPREAD = 10
"""Expiry is put off by up to one in this many parts of the horizon, so that keys of one bar do not expire at once."""


class KeyPattern(NamedTuple):
    """One kind of key: what it is, when it expires, who writes it."""

    kind: str
    regex: str
    type: str
    expiry: str
    owner: str


SHARED = r"\{[a-z][a-z0-9-]{0,63}(:[A-Za-z0-9._:/-]{1,128})?\}"

PATTERNS = (
    KeyPattern("indicators", r"\{[^{}:]+:[^{}:]+\}:[0-9]+[a-z]+(:[^:]+)?(:open)?", "hash", "bar close + 3 timeframes + 60 s, at least 5 min", "state"),
    KeyPattern("candle", r"\{[^{}:]+:[^{}:]+\}:[0-9]+[a-z]+(:open)?", "hash", "bar close + 3 timeframes + 60 s, at least 5 min", "state"),
    KeyPattern("market", r"\{[^{}]+\}(:.+)?", "hash", "event time + 24 h", "state"),
    KeyPattern("signal", r"\{[^{}:]+:[^{}:]+\}:.+", "hash", "event time + 24 h", "state"),
    KeyPattern("approval", r"\{[^{}]+\}:(account|open|last)", "hash", "7 days after the approval worker last ran", "approval"),
    KeyPattern("approval", r"\{[^{}]+\}:(decision|trade):[^:]+", "string", "7 days after it was last used", "approval"),
    KeyPattern("scan", r"\{(stage|strategy):.+\}", "hash", "event time + 24 h", "state"),
    KeyPattern("decisions", r"\{.+\}:[A-Z]+:[0-9]{8}T[0-9]{4}", "set", "the minute + 2 h", "state"),
    KeyPattern("trades", r"\{[^{}:]+:[^{}:]+\}", "hash", "event time of the newest + 30 d", "state"),
    KeyPattern("limit", SHARED, "list", "a window after the last call", "trading code"),
    KeyPattern("lock", SHARED, "string", "as declared, at most 1 h", "trading code"),
    KeyPattern("fence", SHARED, "string", "24 h after the lock was taken", "trading code"),
    KeyPattern("flag", SHARED, "string", "as declared, at most 31 d", "trading code"),
    KeyPattern("count", SHARED, "string", "as declared, at most 31 d", "trading code"),
    KeyPattern("layout", r"state", "string", "a day after the state worker last ran", "state"),
)  # fmt: skip


class Keys:
    """Builds keys under one prefix."""

    def __init__(self, prefix: str = DEFAULT_PREFIX) -> None:
        self.root = f"{prefix}:{LAYOUT}:"

    def indicators(
        self, venue: str, symbol: str, timeframe: str, indicator_set: str = DEFAULT_SET, *, is_final: bool = True
    ) -> str:
        """The newest indicators of a series."""
        more = "" if indicator_set == DEFAULT_SET else f":{indicator_set}"
        return f"{self.root}indicators:{{{venue}:{symbol}}}:{timeframe}{more}{'' if is_final else ':open'}"

    def candle(self, venue: str, symbol: str, timeframe: str, *, is_final: bool = True) -> str:
        """The newest candle of a series."""
        return f"{self.root}candle:{{{venue}:{symbol}}}:{timeframe}{'' if is_final else ':open'}"

    def market(self, scope: str, venue: str = "", symbol: str = names.MARKET_WIDE) -> str:
        """The newest condition of a scope: of the market, or of one symbol."""
        if symbol == names.MARKET_WIDE:
            return f"{self.root}market:{{{scope}}}"
        return f"{self.root}market:{{{venue}:{symbol}}}:{scope}"

    def signal(self, venue: str, symbol: str, strategy_id: str) -> str:
        """The newest signal of a strategy on a symbol."""
        return f"{self.root}signal:{{{venue}:{symbol}}}:{strategy_id}"

    def approval(self, account: str, part: str) -> str:
        """A part of what approval remembers of an account; all of it lies on one node, for its scripts."""
        return f"{self.root}approval:{{{account}}}:{part}"

    def scan(self, by: str, name: str) -> str:
        """The last thing that a stage (by="stage") decided, or a strategy signalled: when it last came around."""
        return f"{self.root}scan:{{{by}:{name}}}"

    def decisions(self, stage: str, outcome: str, minute_us: int) -> str:
        """The decisions of a stage with one outcome in the minute that begins then."""
        return f"{self.root}decisions:{{{stage}}}:{outcome}:{_minute(minute_us)}"

    def trades(self, venue: str, symbol: str) -> str:
        """The trades of a symbol that are on their way, and those that were closed lately."""
        return f"{self.root}trades:{{{venue}:{symbol}}}"

    def shared(self, kind: str, name: str, of: str = "") -> str:
        """What trading code declared under a name, for one of what it is applied to."""
        return f"{self.root}{kind}:{{{name}:{of}}}" if of else f"{self.root}{kind}:{{{name}}}"

    def layout(self) -> str:
        """The marker that says that this Redis was filled from the tape."""
        return f"{self.root}layout:state"

    def pattern_of(self, key: str) -> KeyPattern | None:
        """The declared pattern of a key; None for one that nobody declared."""
        if not key.startswith(self.root):
            return None
        kind, _, rest = key.removeprefix(self.root).partition(":")
        return next((one for one in PATTERNS if one.kind == kind and re.fullmatch(one.regex, rest)), None)


@lru_cache(maxsize=256)
def _minute(minute_us: int) -> str:
    return f"{times.to_datetime(minute_us):%Y%m%dT%H%M}"


def bar_horizon_us(timeframe: str) -> int:
    """How long the state of a bar is current, in microseconds after its close."""
    return max(BARS_KEPT * names.timeframe_us(timeframe) + MINUTE_US, LEAST_HORIZON_US)


DAILY_HORIZON_US = DAY_US
"""How long signals, market conditions and last scans are kept, in microseconds after their event time."""
DECISIONS_HORIZON_US = 120 * MINUTE_US
"""How long a minute's decisions can be counted here; the history counts them for ever."""
TRADES_HORIZON_US = 30 * DAY_US
"""How long a trade is known to be in flight, or closed."""


def expires_at_ms(key: str, event_time_us: int, horizon_us: int) -> int:
    """When a key expires, in milliseconds since 1970: the same for the same key and event, whenever it is written."""
    spread_us = horizon_us // SPREAD * (zlib.crc32(key.encode()) % 1_000) // 1_000
    return (event_time_us + horizon_us + spread_us) // 1_000
