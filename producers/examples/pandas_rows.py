"""The rows of a DataFrame: indicators computed for a whole column at once, emitted bar by bar.

A row's time needs a zone, any zone. `emit` takes numpy's float64, not float32 (use astype); a NaN is left out of
`values` and named in `invalid`. overflow="wait" is for such backfills: where the way is full, `emit` waits for room.

Run it: pip install pandas, then KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:19092 python producers/examples/pandas_rows.py
"""

from __future__ import annotations

import sys

from tradetape.producers import Producer
from tradetape.schemas import IndicatorUpdate

try:
    import pandas as pd
except ModuleNotFoundError:
    sys.exit("this example needs pandas: pip install pandas")

CLOSES = [94591.1, 94609.1, 94602.6, 94602.9, 94634.0, 94633.9]


def finished_bars() -> pd.DataFrame:
    """Bars of an hour by the time they opened, on the clock of Berlin, and their indicators."""
    opened_at = pd.date_range("2025-05-05 08:00", periods=len(CLOSES), freq="h", tz="Europe/Berlin")
    bars = pd.DataFrame({"close": CLOSES}, index=opened_at)
    bars["sma_3"] = bars["close"].rolling(3).mean()
    bars["momentum_4"] = bars["close"].diff(4)
    return bars


def main() -> None:
    """Emit every row."""
    bars = finished_bars()
    with Producer.from_env(source="pandas-rows", overflow="wait") as tape:
        for opened_at, row in bars.iterrows():
            tape.emit(
                IndicatorUpdate(
                    venue="binance-usdm", symbol="BTCUSDT", timeframe="1h",
                    bar_open_time=opened_at, bar_close_time=opened_at + pd.Timedelta("1h"),
                    close=row["close"], values=row[["sma_3", "momentum_4"]].to_dict(),
                )
            )  # fmt: skip
        if not tape.flush(timeout_s=30.0):
            sys.exit(f"not on the tape: {tape.health().queued} rows")


if __name__ == "__main__":
    main()
