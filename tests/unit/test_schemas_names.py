"""Every name has one spelling on the tape, and what could mean two things is refused, never guessed."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradetape.schemas import names
from tradetape.schemas.errors import NameRefused

UNIT_SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400, "w": 604_800}

# As research of the replaced system lists them; `timestamp` stood beside them and is no indicator.
LEGACY = {
    "EMA50": "ema_50",
    "EMA200": "ema_200",
    "RSI14": "rsi_14",
    "ADX14": "adx_14",
    "QQE": "qqe",
    "PSAR": "psar",
    "ATR": "atr_14",
    "StochRSI_K": "stochrsi_k",
    "StochRSI_D": "stochrsi_d",
    "MACD": "macd",
    "MACD_signal": "macd_signal",
    "MACD_diff": "macd_hist",
    "MACD_Histogram": "macd_hist",
    "MACD_Histogram_Prev": "macd_hist_prev",
    "MACD_lift": "macd_lift",
    "latest_close": "close",
}


@pytest.mark.parametrize(
    "spelling",
    [
        "BTCUSDT", "btcusdt", " BtcUsdt ", "BTC/USDT", "btc/usdt", "BTC-USDT", "BTC_USDT", "USDT_BTC", "BTC/USDT:USDT",
    ],
)  # fmt: skip
def test_a_pair_has_one_spelling(spelling: str) -> None:
    assert names.normalise_symbol(spelling) == "BTCUSDT"


@pytest.mark.parametrize(
    ("spelling", "symbol"),
    [
        ("USDT_ARDR", "ARDRUSDT"),
        ("ARDR_USDT", "ARDRUSDT"),
        ("BTC_ARDR", "ARDRBTC"),
        ("USDT_ETH", "ETHUSDT"),
        ("ETH/BTC", "ETHBTC"),
        ("ETH-BTC", "ETHBTC"),
        ("EUR/USDT", "EURUSDT"),
        ("USDC/USDT", "USDCUSDT"),
        ("1000SHIB/USDT", "1000SHIBUSDT"),
        ("FOO/BAR", "FOOBAR"),
        ("ARDR", "ARDR"),
        ("market", "MARKET"),
    ],
)
def test_a_symbol_becomes_the_venues_own(spelling: str, symbol: str) -> None:
    assert names.normalise_symbol(spelling) == symbol


@pytest.mark.parametrize("ambiguous", ["BTC_ETH", "ETH_BTC", "USDT_USDC", "FOO_BAR", "USDT/BTC", "USDT-BTC", "BTC/FOO"])
def test_a_pair_that_does_not_say_its_quote_currency_is_refused(ambiguous: str) -> None:
    with pytest.raises(NameRefused, match="does not say which side is the quote currency") as refused:
        names.normalise_symbol(ambiguous)
    assert repr(ambiguous) in str(refused.value)


@pytest.mark.parametrize(
    ("wrong", "rule"),
    [
        ("", "2 to 32 letters and digits"),
        ("B", "2 to 32 letters and digits"),
        ("A" * 33, "2 to 32 letters and digits"),
        ("BTC USDT", "2 to 32 letters and digits"),
        ("BTCUSDT.P", "2 to 32 letters and digits"),
        ("BTCUSDT:USDT", "2 to 32 letters and digits"),
        ("BTC/USDT/USD", "must be BASE/QUOTE"),
        ("BTC-USDT-PERP", "name a contract by its venue"),
        ("ETHUSD_210924_X", "must be BASE/QUOTE"),
        ("/USDT", "must be BASE/QUOTE"),
        ("BTC/", "must be BASE/QUOTE"),
        ("BTC/USD:BTC", "must settle in its quote currency"),
    ],
)
def test_a_symbol_that_cannot_be_understood_is_refused_with_the_rule(wrong: str, rule: str) -> None:
    with pytest.raises(NameRefused, match=rule):
        names.normalise_symbol(wrong)


BASES = st.from_regex(r"[A-Z0-9]{2,12}", fullmatch=True).filter(lambda base: base not in names._QUOTE_RANK)


@given(BASES, st.sampled_from(["USDT", "USDC", "EUR"]))
def test_every_spelling_of_a_pair_gives_the_same_symbol(base: str, quote: str) -> None:
    spellings = (f"{base}/{quote}", f"{base}-{quote}", f"{base}_{quote}", f"{quote}_{base}", f"{base}{quote}".lower())
    assert {names.normalise_symbol(spelling) for spelling in spellings} == {base + quote}


@given(st.text(max_size=40))
def test_a_symbol_that_is_accepted_stays_as_it_is(text: str) -> None:
    try:
        symbol = names.normalise_symbol(text)
    except NameRefused:
        return
    assert names.normalise_symbol(symbol) == symbol


@pytest.mark.parametrize(
    ("given_as", "canonical"),
    [
        ("60m", "1h"),
        ("1M", "1mo"),
        ("1mo", "1mo"),
        ("1m", "1m"),
        ("90m", "90m"),
        ("240", "4h"),
        ("15", "15m"),
        ("60s", "1m"),
        ("3600s", "1h"),
        ("86400s", "1d"),
        ("1440m", "1d"),
        ("24h", "1d"),
        ("1H", "1h"),
        ("1D", "1d"),
        ("1W", "1w"),
        (" 4h ", "4h"),
        ("3M", "3mo"),
    ],
)
def test_a_timeframe_has_one_spelling(given_as: str, canonical: str) -> None:
    assert names.normalise_timeframe(given_as) == canonical


@pytest.mark.parametrize("wrong", ["", "m", "0m", "-1m", "01m", "1.5h", "1y", "1 m", "1min", "m1", "1mm", "12345678m"])
def test_a_timeframe_that_cannot_be_understood_is_refused(wrong: str) -> None:
    with pytest.raises(NameRefused, match="must be a number and one of s, m, h, d, w, mo"):
        names.normalise_timeframe(wrong)


@given(st.integers(1, 9_999_999), st.sampled_from(sorted(UNIT_SECONDS)))
def test_bringing_a_timeframe_to_one_spelling_keeps_its_length(count: int, unit: str) -> None:
    canonical = names.normalise_timeframe(f"{count}{unit}")
    assert names.timeframe_us(canonical) == count * UNIT_SECONDS[unit] * 1_000_000
    assert names.normalise_timeframe(canonical) == canonical
    assert names.has_fixed_length(canonical)


def test_months_have_no_fixed_length_and_count_as_the_longest() -> None:
    assert not names.has_fixed_length("1mo")
    assert names.timeframe_us("1M") == 31 * 86_400 * 1_000_000


@pytest.mark.parametrize(("given_as", "venue"), [("Binance", "binance"), (" binance-usdm ", "binance-usdm")])
def test_a_venue_is_lower_case(given_as: str, venue: str) -> None:
    assert names.normalise_venue(given_as) == venue


@pytest.mark.parametrize("wrong", ["", "binance usdm", "-binance", "b:c", "x" * 33, "börse"])
def test_a_venue_that_would_not_fit_a_key_is_refused(wrong: str) -> None:
    with pytest.raises(NameRefused, match="must be 1 to 32 of a-z, 0-9, dot, dash and underscore"):
        names.normalise_venue(wrong)


@pytest.mark.parametrize("legacy", LEGACY)
def test_a_legacy_indicator_has_its_canonical_name(legacy: str) -> None:
    assert names.normalise_indicator(legacy) == LEGACY[legacy]
    assert LEGACY[legacy] in names.CANONICAL_INDICATORS


def test_the_alias_table_holds_the_legacy_names_and_no_other() -> None:
    assert set(names.LEGACY_INDICATORS) == set(LEGACY)
    assert set(names.CANONICAL_INDICATORS) == set(LEGACY.values())


@pytest.mark.parametrize("name", ["ema_50", "vwap", "bb_upper_20_2", "x" * 59])
def test_a_canonical_indicator_stays_as_it_is(name: str) -> None:
    assert names.normalise_indicator(name) == name


@pytest.mark.parametrize("wrong", ["", "Ema_50", "ema-50", "50_ema", "ema 50", "_ema", "x" * 60, "ema.50", "émail"])
def test_an_indicator_that_is_not_lower_snake_case_is_refused(wrong: str) -> None:
    with pytest.raises(NameRefused, match="must be lower snake case with its period"):
        names.normalise_indicator(wrong)
