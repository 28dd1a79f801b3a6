"""The recipes for frameworks run in the real framework, on real candles; each framework in an environment of its own.

What must be on the tape is taken from the candles' file, from talipp's indicators, and from the trades that the
framework itself reports. The environments are kept in pytest's cache and made once; where a framework cannot be
installed, its tests skip, saying so.
"""

from __future__ import annotations

import csv
import gzip
import json
import subprocess
import sys
import threading
import zipfile
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from talipp.indicators import EMA, RSI

from examples_rig import EXAMPLES, assert_signals_rest_on_their_bars, emitted, ids, run, signal_id, update_id
from history_rig import HistoryRig
from tradetape.schemas import Event, IndicatorUpdate, RunMode, TradeSignal

CHECKOUT = EXAMPLES.parents[1]
FREQTRADE = "freqtrade==2026.9"
NAUTILUS = "nautilus_trader==1.221.0"
MINUTES = 5

pytestmark = [pytest.mark.long, pytest.mark.timeout(900)]


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def install(python: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Install into an environment."""
    return subprocess.run(
        [python, "-m", "pip", "install", "--quiet", *arguments], capture_output=True, text=True, check=False
    )


@pytest.fixture(scope="session")
def python_with(pytestconfig: pytest.Config) -> Callable[[str], Path]:
    """The Python of an environment that holds a requirement and this checkout, installed as a bot would."""

    def made(requirement: str) -> Path:
        folder = Path(pytestconfig.cache.mkdir("examples")) / requirement
        python, done = folder / "bin" / "python", folder / "installed"
        if not done.exists() or done.stat().st_mtime < (CHECKOUT / "pyproject.toml").stat().st_mtime:
            subprocess.run([sys.executable, "-m", "venv", folder], check=True)
            framework = install(python, requirement)
            if framework.returncode:
                reason = [line for line in framework.stderr.splitlines() if line.startswith("ERROR")][-1:]
                pytest.skip(f"{requirement} cannot be installed here: {''.join(reason)}")
            ours = install(python, "--editable", str(CHECKOUT))
            assert ours.returncode == 0, ours.stderr
            done.touch()
        return python

    return made


class Candle(NamedTuple):
    """A line of a file, its numbers as text."""

    open_time_ms: str
    open: str
    high: str
    low: str
    close: str
    volume: str

    @property
    def closed_at(self) -> datetime:
        """The end of the candle."""
        return datetime.fromtimestamp(int(self.open_time_ms) / 1_000, UTC) + timedelta(minutes=MINUTES)


@pytest.fixture
def candles(market_data: Path) -> list[Candle]:
    """Six weeks of BTCUSDT."""
    with gzip.open(market_data / "klines" / "binance-usdm_BTCUSDT_5m.csv.gz", "rt") as lines:
        return [Candle(**row) for row in csv.DictReader(lines)]


def of(events: list[Event], kind: type[Any]) -> list[Any]:
    return [one for one in events if isinstance(one, kind)]


def assert_values_are(updates: list[IndicatorUpdate], expected: dict[str, list[float | None]]) -> None:
    """Each update has the values that are known at its bar, and names the others as invalid."""
    for number, update in enumerate(updates):
        known = {name: values[number] for name, values in expected.items() if values[number] is not None}
        assert update.values == pytest.approx(known, rel=1e-9)
        assert set(update.invalid) == set(expected) - set(known)


@pytest.mark.parametrize("framework", [FREQTRADE, NAUTILUS])
def test_rows_of_pandas_2_and_3_are_emitted_bar_by_bar(
    rig: HistoryRig, python_with: Callable[[str], Path], framework: str
) -> None:
    done = run(rig, EXAMPLES / "pandas_rows.py", python=python_with(framework))
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")
    events = emitted(rig)
    # Eight in the morning in Berlin is six in UTC, in summer.
    closes = [datetime(2025, 5, 5, 7 + number, tzinfo=UTC) for number in range(6)]
    assert ids(events) == {
        ("IndicatorUpdate", "BTCUSDT"): [update_id("binance-usdm", "BTCUSDT", "1h", at, "pandas-rows") for at in closes]
    }
    updates = of(events, IndicatorUpdate)
    assert [one.close for one in updates] == [
        Decimal(text) for text in ("94591.1", "94609.1", "94602.6", "94602.9", "94634", "94633.9")
    ]
    sma_3 = [None, None, 283802.8 / 3, 283814.6 / 3, 283839.5 / 3, 283870.8 / 3]
    assert_values_are(updates, {"sma_3": sma_3, "momentum_4": [None] * 4 + [42.9, 24.8]})


@pytest.fixture
def venue() -> Iterator[tuple[str, list[str]]]:
    """A venue on loopback that says which markets it has, as freqtrade asks before a backtest; and what it was asked."""
    asked: list[str] = []
    filters = [
        {"filterType": "PRICE_FILTER", "minPrice": "0.01", "maxPrice": "1000000", "tickSize": "0.01"},
        {"filterType": "LOT_SIZE", "minQty": "0.00001", "maxQty": "9000", "stepSize": "0.00001"},
        {"filterType": "NOTIONAL", "minNotional": "5", "applyMinToMarket": True, "avgPriceMins": 5},
    ]
    market = {
        "symbol": "BTCUSDT", "status": "TRADING", "baseAsset": "BTC", "quoteAsset": "USDT", "baseAssetPrecision": 8,
        "quotePrecision": 8, "orderTypes": ["LIMIT", "MARKET"], "isSpotTradingAllowed": True, "filters": filters,
        "permissionSets": [["SPOT"]],
    }  # fmt: skip

    class Answers(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            self.send_response(200)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps({"timezone": "UTC", "symbols": [market]}).encode())

        def log_message(self, format: str, *args: object) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Answers) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_address[1]}/api/v3", asked
        server.shutdown()


def freqtrade_folder(folder: Path, candles: list[Candle], venue: str) -> Path:
    """A user's folder for freqtrade: its configuration and its candles."""
    data = folder / "data" / "binance"
    data.mkdir(parents=True)
    rows = [[int(one.open_time_ms), *map(float, one[1:])] for one in candles]
    (data / "BTC_USDT-5m.json").write_text(json.dumps(rows))
    ccxt = {"urls": {"api": {"public": venue}}, "options": {"fetchMarkets": {"types": ["spot"]}}}
    prices = {"price_side": "same", "use_order_book": False}
    config = {
        "dry_run": True, "dry_run_wallet": 10_000, "stake_currency": "USDT", "stake_amount": 1_000, "max_open_trades": 1,
        "fee": 0.001, "dataformat_ohlcv": "json", "entry_pricing": prices, "exit_pricing": prices,
        "pairlists": [{"method": "StaticPairList"}],
        "exchange": {"name": "binance", "pair_whitelist": ["BTC/USDT"], "ccxt_config": ccxt},
    }  # fmt: skip
    (folder / "config.json").write_text(json.dumps(config))
    return folder


def freqtrade_trades(folder: Path) -> list[dict[str, Any]]:
    """The trades that freqtrade reports of its last backtest."""
    (exported,) = (folder / "backtest_results").glob("*.zip")
    with zipfile.ZipFile(exported) as files:
        report = json.loads(files.read(f"{exported.stem}.json"))
    found: list[dict[str, Any]] = report["strategy"]["TapeStrategy"]["trades"]
    return found


def test_a_freqtrade_backtest_is_on_the_tape(
    rig: HistoryRig,
    python_with: Callable[[str], Path],
    candles: list[Candle],
    venue: tuple[str, list[str]],
    tmp_path: Path,
) -> None:
    python = python_with(FREQTRADE)
    address, asked = venue
    folder = freqtrade_folder(tmp_path / "user_data", candles, address)
    done = run(
        rig, "-m", "freqtrade", "backtesting", "--userdir", folder, "--config", folder / "config.json",
        "--strategy", "TapeStrategy", "--strategy-path", EXAMPLES, "--export", "trades", "--cache", "none",
        python=python,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert [line for line in done.stderr.splitlines() if "ERROR" in line or "Traceback" in line] == []
    assert set(asked) == {"/api/v3/exchangeInfo"}

    events, trades = emitted(rig), freqtrade_trades(folder)
    # A candle's signal is acted on when the next one opens, which is when it closed. What is still open at the end is
    # closed in the report, without asking the strategy.
    actions = sorted(
        (datetime.fromisoformat(one[date]), action, one[reason])
        for one in trades
        for date, action, reason in (("open_date", "ENTER", "enter_tag"), ("close_date", "EXIT", "exit_reason"))
        if one[reason] != "force_exit"
    )
    assert len(actions) > 100
    assert ids(events) == {
        ("IndicatorUpdate", "BTCUSDT"): [
            update_id("binance", "BTCUSDT", "5m", one.closed_at, "TapeStrategy-BACKTEST") for one in candles
        ],
        ("TradeSignal", "BTCUSDT"): [
            signal_id("TapeStrategy", "binance", "BTCUSDT", "5m", at, action) for at, action, _ in actions
        ],
    }  # fmt: skip
    assert [one.reasons for one in of(events, TradeSignal)] == [(reason,) for _, _, reason in actions]
    assert_signals_rest_on_their_bars(events)
    assert {one.run_mode for one in events} == {RunMode.BACKTEST}
    closes = [float(one.close) for one in candles]
    assert_values_are(of(events, IndicatorUpdate), {"rsi_14": list(RSI(14, closes)), "ema_50": list(EMA(50, closes))})


IN_A_DRY_RUN = """
import json, sys
from pathlib import Path
from freqtrade.enums import RunMode
from freqtrade.resolvers import StrategyResolver
from pandas import DataFrame, to_datetime
folder, examples = map(Path, sys.argv[1:])
config = json.loads((folder / "config.json").read_text())
config |= {"runmode": RunMode.DRY_RUN, "user_data_dir": folder, "strategy": "TapeStrategy", "strategy_path": examples}
columns = ("date", "open", "high", "low", "close", "volume")
candles = DataFrame(json.loads((folder / "data/binance/BTC_USDT-5m.json").read_text()), columns=columns)
candles["date"] = to_datetime(candles["date"], unit="ms", utc=True)
for until in (1_000, 1_001):
    strategy = StrategyResolver.load_strategy(config)
    strategy.ft_bot_start()
    strategy.analyze_ticker(candles.head(until).copy(), {"pair": "BTC/USDT"})
    strategy.ft_bot_cleanup()
"""


def test_a_bot_that_runs_and_is_reloaded_emits_the_newest_candle_only(
    rig: HistoryRig, python_with: Callable[[str], Path], candles: list[Candle], tmp_path: Path
) -> None:
    python, folder = python_with(FREQTRADE), freqtrade_folder(tmp_path / "user_data", candles, "")
    done = run(rig, "-c", IN_A_DRY_RUN, folder, EXAMPLES, python=python)
    assert (done.returncode, done.stdout) == (0, ""), done.stderr
    events = emitted(rig)
    assert [one.event_id for one in events] == [
        update_id("binance", "BTCUSDT", "5m", candles[number].closed_at, "TapeStrategy-PAPER")
        for number in (999, 1_000)
    ]
    assert {one.run_mode for one in events} == {RunMode.PAPER}


def nautilus_ema(period: int, closes: list[float]) -> list[float | None]:
    """The exponential average as nautilus defines it: it begins with the first value, and counts from `period` on."""
    average, found = closes[0], list[float | None]()
    for number, close in enumerate(closes, 1):
        average += 2.0 / (period + 1.0) * (close - average)
        found.append(average if number >= period else None)
    return found


def test_a_nautilus_backtest_is_on_the_tape(
    rig: HistoryRig, python_with: Callable[[str], Path], candles: list[Candle], tmp_path: Path
) -> None:
    python = python_with(NAUTILUS)
    file = tmp_path / "candles.csv"
    file.write_text("\n".join(map(",".join, [Candle._fields, *candles])))
    done = run(rig, EXAMPLES / "nautilus_strategy.py", file, python=python)
    assert (done.returncode, done.stderr) == (0, "")

    events, closes = emitted(rig), [float(one.close) for one in candles]
    expected = {"ema_10": nautilus_ema(10, closes), "ema_20": nautilus_ema(20, closes)}
    actions, is_long = list[tuple[datetime, str]](), False
    for candle, fast, slow in zip(candles, expected["ema_10"], expected["ema_20"], strict=True):
        if fast is not None and slow is not None and is_long != (fast > slow):
            is_long = not is_long
            actions.append((candle.closed_at, "ENTER" if is_long else "EXIT"))
    assert len(actions) > 100
    assert ids(events) == {
        ("IndicatorUpdate", "BTCUSDT"): [
            update_id("binance", "BTCUSDT", "5m", one.closed_at, "nautilus-backtest") for one in candles
        ],
        ("TradeSignal", "BTCUSDT"): [
            signal_id("ema-cross", "binance", "BTCUSDT", "5m", at, action) for at, action in actions
        ],
    }  # fmt: skip
    assert_signals_rest_on_their_bars(events)
    assert {one.run_mode for one in events} == {RunMode.BACKTEST}
    assert_values_are(of(events, IndicatorUpdate), expected)
    # nautilus itself reports an order filled for each signal: a line each, under the line of names and the index.
    sides = [word for word in done.stdout.split() if word in ("BUY", "SELL")]
    assert sides == ["BUY" if action == "ENTER" else "SELL" for _, action in actions]
