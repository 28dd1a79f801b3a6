"""Every field of every record comes out of PostgreSQL as it was emitted: Producer → Kafka → HistorySink → SQL."""

from __future__ import annotations

import enum
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any

import psycopg
import pytest

from history_rig import HistoryRig
from tradetape.schemas import (
    Action,
    Candle,
    CloseStatus,
    DecisionOutcome,
    Direction,
    DispatchOutcome,
    Event,
    Fill,
    IndicatorUpdate,
    Leg,
    Liquidity,
    MarketCondition,
    OrderType,
    Side,
    SignalDecision,
    TakeProfit,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
    TrailingStop,
)

LARGEST = Decimal("99999999999999999999.999999999999999999")
SMALLEST = Decimal("0.000000000000000001")
AT = datetime(2025, 5, 31, 23, 59, 59, 999_999, tzinfo=UTC)
CLOSE = datetime(2025, 6, 1, tzinfo=UTC)
SIGNAL_ID = "6f1d7a3e-1111-4222-8333-444455556666"
TRADE_ID = "0b8c9d10-aaaa-4bbb-8ccc-ddddeeeeffff"
EVERYWHERE: dict[str, Any] = {
    "venue": "binance-usdm",
    "symbol": "BTCUSDT",
    "tags": {"note": 'über "quoted" \\ \t 的 🐟', "empty": ""},
    "causation_id": "cause-1",
}
ORDER: dict[str, Any] = {
    "take_profits": [
        TakeProfit(price="70000.10", close_ratio=0.5),
        TakeProfit(price=LARGEST, close_ratio=0.5),
    ],
    "trailing_stop": TrailingStop(activation_price="71000", delta_ratio=0.015),
    "legs": [
        Leg(leg_index=0, amount_quote="12.5"),
        Leg(leg_index=1, trigger_price=SMALLEST, deviation_ratio=-0.02, amount_quote=25),
    ],
}
ORDER_IN_SQL: dict[str, Any] = {
    "take_profits": [
        {"price": "70000.1", "close_ratio": 0.5},
        {"price": "99999999999999999999.999999999999999999", "close_ratio": 0.5},
    ],
    "trailing_stop": {"activation_price": "71000", "delta_ratio": 0.015},
    "legs": [
        {"leg_index": 0, "trigger_price": None, "deviation_ratio": None, "amount_quote": "12.5"},
        {
            "leg_index": 1,
            "trigger_price": "0.000000000000000001",
            "deviation_ratio": -0.02,
            "amount_quote": "25",
        },
    ],
}
"""Decimals inside of documents are exact text: a JSON number would be read as a double."""

FULL: dict[type[Event], dict[str, Any]] = {
    Candle: {
        "timeframe": "1m", "open_time": CLOSE - timedelta(minutes=1), "close_time": CLOSE,
        "open": Decimal("64123.10"), "high": LARGEST, "low": SMALLEST, "close": "1", "volume": 10_000,
        "quote_volume": "0.00010000", "taker_buy_volume": 0, "trade_count": 2**40, "is_final": True, "source": "replay",
    },
    IndicatorUpdate: {
        "timeframe": "1h", "indicator_set": "slow", "bar_open_time": CLOSE - timedelta(hours=1),
        "bar_close_time": CLOSE, "is_final": True, "bars_used": 2**31 - 1, "close": "64210.5",
        "values": {"ema_50": 64210.1, "rsi_14": 28.400000000000002, "macd_hist": -0.0, "my_own": 1e-300},
        "invalid": ["ema_200"], "candle_event_id": "c-1",
    },
    MarketCondition: {
        "event_time": AT, "scope": "btc", "condition": "bullish", "score": 0.1,
        "values": {"adx_14": 31.25}, "valid_until": AT + timedelta(hours=4),
    },
    TradeSignal: {
        "strategy_id": "rsi-dip", "strategy_version": "3", "timeframe": "1h", "bar_close_time": CLOSE,
        "action": Action.ENTER, "direction": Direction.LONG, "confidence": 0.75, "score": 1.5,
        "magnitude_ratio": 0.01, "weight": 0.1, "score_components": {"rsi": 0.3}, "multiplier": 1.1,
        "reference_price": "64123.10", "order_type": OrderType.LIMIT, "entry_price": "64000",
        "stop_loss_price": "60000.5", **ORDER, "quantity": "0.001", "amount_quote": "64.1231", "leverage": 3.0,
        "valid_until": CLOSE + timedelta(minutes=5), "position_ref": "p-1", "input_event_ids": ["i-1", "i-2"],
        "indicators": {"rsi_14": 28.4}, "reasons": ["oversold", "line\nbreak"],
    },
    SignalDecision: {
        "event_time": CLOSE, "signal_id": SIGNAL_ID, "stage": "risk", "outcome": DecisionOutcome.REJECTED,
        "score": 0.4, "threshold": 0.5, "components": {"drawdown": -0.1}, "facts": {"open_trades": "3"},
        "policy_version": "2025-06", "reasons": ["too many open"], "trade_id": TRADE_ID,
    },
    Trade: {
        "event_time": CLOSE, "signal_id": SIGNAL_ID, "strategy_id": "rsi-dip", "account_id": "main",
        "action": Action.ENTER, "direction": Direction.SHORT, "order_type": OrderType.STOP_LIMIT,
        "planned_entry_price": "64000.000000000000000001", "quantity": "0.5", "amount_quote": "32000", "leverage": 2.5,
        "stop_loss_price": "60000", **ORDER, "position_ref": "p-1", "approved_at": AT, "approved_by": "risk",
        "valid_until": AT + timedelta(minutes=1), "idempotency_key": "k-1",
    },
    TradeDispatch: {
        "event_time": CLOSE, "trade_id": TRADE_ID, "leg_index": 1, "attempt": 2, "outcome": DispatchOutcome.IN_DOUBT,
        "executor": "paper", "external_id": "x-1", "error": "timed out",
    },
    Fill: {
        "event_time": AT, "trade_id": TRADE_ID, "leg_index": 0, "account_id": "main", "client_order_id": "o-1",
        "venue_order_id": "v-1", "venue_trade_id": "t-1", "strategy_id": "rsi-dip", "position_ref": "p-1",
        "side": Side.SELL, "price": "64000.01", "quantity": "0.00000001", "amount_quote": "0.0006400001",
        "fee": "-0.00000003", "fee_asset": "BNB", "liquidity": Liquidity.MAKER, "is_reconciliation": True,
    },
    TradeClosed: {
        "trade_id": TRADE_ID, "signal_id": SIGNAL_ID, "strategy_id": "rsi-dip", "direction": Direction.LONG,
        "leverage": 1.0, "opened_at": CLOSE - timedelta(days=40), "closed_at": CLOSE, "entry_price_avg": "1.000000000000000001",
        "exit_price_avg": "0.5", "quantity": "1000", "entry_cost_quote": "1000.000000000000001",
        "exit_value_quote": "500", "fees_quote": "0.1", "pnl_quote": "-500.100000000000001", "pnl_ratio": -0.5001,
        "min_price": "0.4", "max_price": "1.1", "legs_filled": 2, "legs_max": 5, "fill_ids": ["f-1", "f-2"],
        "close_status": CloseStatus.STOPPED, "exit_reason": "stop_loss",
    },
}  # fmt: skip
"""One event of each record with every field set, at the ends of what the fields can hold."""

OPTIONAL: dict[type[Event], set[str]] = {
    Candle: {"quote_volume", "taker_buy_volume", "trade_count", "source"},
    IndicatorUpdate: {"indicator_set", "bar_open_time", "is_final", "bars_used", "close", "invalid", "candle_event_id"},
    MarketCondition: {"score", "values", "valid_until"},
    TradeSignal: {
        "strategy_version", "bar_close_time", "confidence", "score", "magnitude_ratio", "weight", "score_components",
        "multiplier", "reference_price", "order_type", "entry_price", "stop_loss_price", "take_profits", "trailing_stop",
        "legs", "quantity", "amount_quote", "leverage", "valid_until", "position_ref", "input_event_ids", "indicators",
        "reasons",
    },
    SignalDecision: {"score", "threshold", "components", "facts", "policy_version", "reasons", "trade_id"},
    Trade: {
        "account_id", "order_type", "planned_entry_price", "quantity", "amount_quote", "leverage", "stop_loss_price",
        "take_profits", "trailing_stop", "legs", "position_ref", "valid_until",
    },
    TradeDispatch: {"external_id", "error"},
    Fill: {
        "trade_id", "leg_index", "account_id", "client_order_id", "strategy_id", "position_ref", "fee", "fee_asset",
        "liquidity", "is_reconciliation",
    },
    TradeClosed: {
        "signal_id", "leverage", "opened_at", "entry_price_avg", "exit_price_avg", "pnl_ratio", "min_price",
        "max_price", "fill_ids", "exit_reason",
    },
}  # fmt: skip
DEFAULTS = {
    "indicator_set": "default", "is_final": True, "order_type": "MARKET", "liquidity": "UNKNOWN",
    "is_reconciliation": False, "invalid": [], "take_profits": [], "legs": [], "input_event_ids": [], "reasons": [],
    "fill_ids": [], "values": {}, "score_components": {}, "indicators": {}, "components": {}, "facts": {},
}  # fmt: skip
"""What design says of fields that are left out; of all others that they are null."""
OWN_IDS = {TradeSignal: "signal_id", Trade: "trade_id", Fill: "fill_id"}
WIDE = {
    "ema_50", "ema_200", "rsi_14", "adx_14", "qqe", "psar", "atr_14", "stochrsi_k", "stochrsi_d", "macd",
    "macd_signal", "macd_hist", "macd_hist_prev", "macd_lift",
}  # fmt: skip
"""The known indicators, which have a column each."""


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def minimal(kind: type[Event]) -> dict[str, Any]:
    """The same event without what may be left out; one that its other fields do not make the same event again."""
    given = {name: value for name, value in FULL[kind].items() if name not in OPTIONAL[kind]}
    if "event_time" not in given:
        given["event_time"] = CLOSE
    return {"venue": "kraken", "symbol": "ETHUSD", **given}


def in_sql(name: str, value: Any) -> Any:
    """What a field's value has to be in SQL."""
    if name in ORDER_IN_SQL and value:
        return ORDER_IN_SQL[name]
    if isinstance(value, enum.Enum):
        return value.value
    if isinstance(value, tuple):
        return list(value)
    return value


def expected(kind: type[Event], given: Mapping[str, Any], stamped: Event) -> dict[str, Any]:
    """The columns of an event's row, from what the test gave; only what a producer stamps is taken from it."""
    columns: dict[str, Any] = dict.fromkeys(OPTIONAL[kind]) | {n: v for n, v in DEFAULTS.items() if n in OPTIONAL[kind]}
    columns |= {"causation_id": None, "tags": {}}
    columns |= {name: in_sql(name, value) for name, value in given.items()}
    columns |= {
        name: in_sql(name, getattr(stamped, name))
        for name in ("event_id", "emitted_at", "producer_run_id", "producer_seq", "run_mode")
    }
    columns |= {
        "event_time": given.get("event_time") or CLOSE,
        "producer": "test",
        "correlation_id": given.get("signal_id", stamped.event_id),
    }
    if kind in OWN_IDS:
        columns[OWN_IDS[kind]] = stamped.event_id
    if kind is IndicatorUpdate:
        values = columns.pop("values")
        columns |= {name: values.get(name) for name in WIDE}
        columns["extra"] = {name: value for name, value in values.items() if name not in WIDE} or None
    return columns


def assert_row_is(row: Mapping[str, Any], columns: Mapping[str, Any]) -> None:
    """Every column has its value, and there is none besides."""
    assert set(row) == {*columns, "topic", "partition", "offset"}
    for name, value in columns.items():
        found = str(row[name]) if name == "event_id" else row[name]
        if isinstance(found, Decimal):
            assert found == Decimal(value), name
            assert found.as_tuple().exponent == -18, f"{name} has lost its scale"
        else:
            assert found == value, name
            assert type(found) is type(value) or isinstance(value, enum.Enum), name
        if isinstance(found, datetime):
            assert found.utcoffset() == timedelta(0), name


@pytest.mark.parametrize("shape", ["full", "minimal"])
def test_every_field_of_every_record_is_stored_as_it_was_emitted(rig: HistoryRig, shape: str) -> None:
    assert set(FULL) == {one.event_class for one in rig.catalogue}
    given = {kind: EVERYWHERE | FULL[kind] if shape == "full" else minimal(kind) for kind in FULL}
    with rig.producer() as tape:
        stamped = {kind: tape.emit(kind(**fields)) for kind, fields in given.items()}

    sink = rig.store()

    assert sink.counts["stored"] == len(FULL)
    for event_type in rig.catalogue:
        kind = event_type.event_class
        (row,) = rig.table(event_type)
        assert_row_is(row, expected(kind, given[kind], stamped[kind]))


def test_a_row_names_the_place_of_its_event_on_the_tape(rig: HistoryRig) -> None:
    with rig.producer() as tape:
        for symbol in ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT", "BNBUSDT"):
            for minute in range(5):
                at = CLOSE + timedelta(minutes=minute)
                tape.emit(MarketCondition(venue="v", symbol=symbol, scope="s", condition="c", event_time=at))

    rig.store()

    on_tape = {(one.topic, one.partition, one.offset): rig.fields(one)["event_id"] for one in rig.tape()}
    assert len({partition for _, partition, _ in on_tape}) > 1
    assert rig.places_in_history() == on_tape


def test_each_month_has_a_partition_of_its_own_in_utc(rig: HistoryRig) -> None:
    """The last microsecond of May and the first of June are two partitions, in whatever zone the host is."""
    new_york = timezone(timedelta(hours=-4))
    times = [AT, CLOSE, datetime(2025, 6, 30, 19, 59, 59, tzinfo=new_york), datetime(2025, 6, 30, 20, tzinfo=new_york)]
    times.append(datetime(2009, 1, 3, tzinfo=UTC))
    with rig.producer() as tape:
        for at in times:
            tape.emit(MarketCondition(venue="v", symbol="BTCUSDT", scope="s", condition="c", event_time=at))

    rig.store()

    rows = rig.rows(
        "SELECT relname AS part, count(*) FROM tradetape.market_conditions m JOIN pg_class c ON c.oid = m.tableoid GROUP BY 1"
    )
    assert {row["part"]: row["count"] for row in rows} == {
        "market_conditions_y2009m01": 1,
        "market_conditions_y2025m05": 1,
        "market_conditions_y2025m06": 2,
        "market_conditions_y2025m07": 1,
    }


def test_documents_can_be_asked_in_sql(rig: HistoryRig) -> None:
    """A leg's price is found and compared as a number, exactly."""
    with rig.producer() as tape:
        tape.emit(TradeSignal(**EVERYWHERE, **FULL[TradeSignal]))
    rig.store()
    (row,) = rig.rows(
        "SELECT (take_profits -> 1 ->> 'price')::numeric AS price, indicators ->> 'rsi_14' AS rsi, "
        "input_event_ids ? 'i-2' AS is_known, take_profits::text AS document FROM tradetape.trade_signals"
    )
    assert row["price"] == LARGEST
    assert row["rsi"] == "28.4"
    assert row["is_known"] is True
    assert [one["price"] for one in json.loads(row["document"])] == ["70000.1", str(LARGEST)]


@pytest.fixture
def migrated(rig: HistoryRig) -> Iterator[psycopg.Connection]:
    with psycopg.connect(rig.dsn) as connection:
        yield connection


def test_every_table_column_and_function_has_a_comment(migrated: psycopg.Connection) -> None:
    mute = migrated.execute(
        """
        SELECT c.relname, a.attname FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum >= 0
        WHERE c.relnamespace = 'tradetape'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
          AND NOT a.attisdropped AND col_description(c.oid, a.attnum) IS NULL AND c.relname <> 'migrations'
        UNION ALL
        SELECT c.relname, NULL FROM pg_class c
        WHERE c.relnamespace = 'tradetape'::regnamespace AND c.relkind IN ('r', 'p', 'v') AND NOT c.relispartition
          AND obj_description(c.oid, 'pg_class') IS NULL
        UNION ALL
        SELECT p.proname, NULL FROM pg_proc p
        WHERE p.pronamespace = 'tradetape'::regnamespace AND obj_description(p.oid, 'pg_proc') IS NULL
        """
    ).fetchall()
    assert mute == []


def test_a_column_says_what_its_field_says(rig: HistoryRig, migrated: psycopg.Connection) -> None:
    """The comment of a column is the documentation of the field in the record's schema."""
    for event_type in rig.catalogue:
        comments: dict[str, str] = dict(
            migrated.execute(
                "SELECT attname, col_description(attrelid, attnum) FROM pg_attribute WHERE attrelid = to_regclass(%s)",
                [f"tradetape.{event_type.table}"],
            ).fetchall()
        )
        for field in event_type.schema["fields"]:
            if field["name"] in comments:
                assert comments[field["name"]] == field["doc"], f"{event_type.table}.{field['name']}"
