"""Names of symbols, venues, timeframes and indicators: one canonical spelling each.

Ambiguous spellings are refused with the accepted form, never guessed: a wrong guess here is a trade in the
wrong market.
"""

from __future__ import annotations

import re
from functools import lru_cache

from tradetape.schemas.errors import NameRefused

MARKET_WIDE = "MARKET"
"""The symbol of events that concern a whole venue."""

_QUOTE_RANK = dict.fromkeys(
    ("USDT", "USDC", "BUSD", "FDUSD", "TUSD", "DAI", "USD", "EUR", "GBP", "TRY", "BRL", "JPY", "AUD"), 2
) | dict.fromkeys(("BTC", "ETH", "BNB"), 1)
_VENUE = re.compile(r"[a-z0-9][a-z0-9._-]{0,31}\Z")
_TIMEFRAME = re.compile(r"([1-9][0-9]{0,6})(s|m|h|d|w|mo)?\Z")
_INDICATOR = re.compile(r"[a-z][a-z0-9_]{0,58}\Z")
_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800, "mo": 31 * 86_400}
_LARGER = (("s", 60, "m"), ("m", 60, "h"), ("h", 24, "d"))

CANONICAL_INDICATORS = (
    "ema_50", "ema_200", "rsi_14", "adx_14", "qqe", "psar", "atr_14", "stochrsi_k", "stochrsi_d",
    "macd", "macd_signal", "macd_hist", "macd_hist_prev", "macd_lift", "close",
)  # fmt: skip
"""The indicators of the replaced system under their canonical names; each has a column in the history."""

LEGACY_INDICATORS = {
    "EMA50": "ema_50", "EMA200": "ema_200", "RSI14": "rsi_14", "ADX14": "adx_14", "QQE": "qqe", "PSAR": "psar",
    "ATR": "atr_14", "StochRSI_K": "stochrsi_k", "StochRSI_D": "stochrsi_d", "MACD": "macd",
    "MACD_signal": "macd_signal", "MACD_diff": "macd_hist", "MACD_Histogram": "macd_hist",
    "MACD_Histogram_Prev": "macd_hist_prev", "MACD_lift": "macd_lift", "latest_close": "close",
}  # fmt: skip
"""What the replaced system called them; MACD_diff and MACD_Histogram were one value under two names."""


def record_key(venue: str, symbol: str) -> bytes:
    """The key of every record of a market: they share a partition, and so stay in order."""
    return f"{venue}:{symbol}".encode()


@lru_cache(maxsize=4096)
def normalise_symbol(text: str) -> str:
    """Bring a symbol to the venue's own form: upper case, no separators.

    Takes BTCUSDT, btcusdt, BTC/USDT, BTC-USDT, BTC_USDT, USDT_BTC and ccxt's BTC/USDT:USDT. Raises NameRefused.
    """
    upper = text.strip().upper()
    pair, _, settle = upper.partition(":")
    for separator in "/-_":
        if separator in pair:
            return _joined(text, pair.split(separator), separator, settle)
    if settle or not upper.isalnum() or not 2 <= len(upper) <= 32:
        raise NameRefused(text, "must be a symbol of 2 to 32 letters and digits such as BTCUSDT, or BASE/QUOTE")
    return upper


def _joined(text: str, parts: list[str], separator: str, settle: str) -> str:
    if len(parts) != 2 or not all(part.isalnum() for part in parts):
        raise NameRefused(text, "must be BASE/QUOTE; name a contract by its venue, such as binance-usdm")
    base, quote = parts
    if settle and settle != quote:
        raise NameRefused(text, "must settle in its quote currency; name other contracts by their venue")
    base_rank, quote_rank = _QUOTE_RANK.get(base, 0), _QUOTE_RANK.get(quote, 0)
    if separator == "_" and base_rank > quote_rank:
        return quote + base
    if (separator == "_" and base_rank == quote_rank) or base_rank > quote_rank:
        raise NameRefused(text, "does not say which side is the quote currency; write BASEQUOTE without a separator")
    return base + quote


@lru_cache(maxsize=4096)
def quote_asset(symbol: str) -> str | None:
    """The quote currency of a symbol in the venue's own form, None where it is not a known one.

    BTCUSDT is priced in USDT, not in the T that ends it as well: the longest that is known counts.
    """
    known = [quote for quote in _QUOTE_RANK if symbol.endswith(quote) and symbol != quote]
    return max(known, key=len, default=None)


@lru_cache(maxsize=4096)
def is_quote(asset: str, symbol: str) -> bool | None:
    """Whether a symbol is priced in an asset; False where the asset is what is traded, None where it is neither."""
    quote = quote_asset(symbol)
    if quote is not None:
        return {quote: True, symbol.removesuffix(quote): False}.get(asset)
    if not asset or asset == symbol:
        return None
    return True if symbol.endswith(asset) else False if symbol.startswith(asset) else None


@lru_cache(maxsize=256)
def normalise_venue(text: str) -> str:
    """Bring a venue to lower case and check its letters. Raises NameRefused."""
    venue = text.strip().lower()
    if not _VENUE.match(venue):
        raise NameRefused(text, "must be 1 to 32 of a-z, 0-9, dot, dash and underscore, such as binance-usdm")
    return venue


@lru_cache(maxsize=256)
def normalise_timeframe(text: str) -> str:
    """Bring a timeframe to canonical form: 60m becomes 1h, 1M becomes 1mo, 240 (minutes) becomes 4h.

    Raises NameRefused.
    """
    stripped = text.strip()
    lower = f"{stripped[:-1]}mo" if stripped.endswith("M") else stripped.lower()
    found = _TIMEFRAME.match(lower)
    if not found:
        raise NameRefused(text, "must be a number and one of s, m, h, d, w, mo, such as 15m or 1mo")
    count, unit = int(found[1]), found[2] or "m"
    for smaller, factor, larger in _LARGER:
        if unit == smaller and count % factor == 0:
            count, unit = count // factor, larger
    return f"{count}{unit}"


@lru_cache(maxsize=256)
def timeframe_us(timeframe: str) -> int:
    """Length of a timeframe in microseconds; a month counts as its longest, 31 days. Raises NameRefused."""
    found = _TIMEFRAME.match(normalise_timeframe(timeframe))
    assert found
    return int(found[1]) * _SECONDS[found[2]] * 1_000_000


def has_fixed_length(timeframe: str) -> bool:
    """Whether every bar of the timeframe is of the same length, which months are not."""
    return not timeframe.endswith("mo")


@lru_cache(maxsize=4096)
def normalise_indicator(text: str) -> str:
    """Bring an indicator's name to canonical form: lower snake case with its period. Raises NameRefused."""
    name = LEGACY_INDICATORS.get(text, text)
    if not _INDICATOR.match(name):
        raise NameRefused(text, "must be lower snake case with its period, such as ema_50, of at most 59 characters")
    return name
