"""A new event takes one .avsc, one catalogue entry and one migration; the rest of the way to PostgreSQL is there already."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any, get_args

import msgspec
import psycopg
import pytest

from history_rig import HistoryRig
from tradetape.schemas import CATALOGUE, Candle, Catalogue, Delivery, EventType, avro_schema
from tradetape.sinks.errors import MigrationError, SchemaBehind
from tradetape.sinks.history.migrate import Migration, migrate, shipped
from tradetape.streams.dead_letters import MemoryDeadLetters
from waiting import eventually

AT = datetime(2025, 6, 1, 12, tzinfo=UTC)
TIME = {"type": "long", "logicalType": "timestamp-micros"}
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
OWN_FIELDS: list[dict[str, Any]] = [
    {"name": "rate_ratio", "type": DECIMAL, "doc": "Funding rate as a fraction, 0.0001 is 0.01 %."},
    {"name": "next_at", "type": ["null", TIME], "default": None, "doc": "When the next one is due; null when unknown."},
    {"name": "interval_hours", "type": "int", "doc": "Hours between two."},
    {
        "name": "phase", "doc": "Whether it is settled.",
        "type": {"type": "enum", "name": "FundingPhase", "doc": "-", "symbols": ["UNKNOWN", "FORECAST", "SETTLED"], "default": "UNKNOWN"},
    },
    {
        "name": "levels", "default": [], "doc": "Open interest at a price.",
        "type": {"type": "array", "items": {"type": "record", "name": "FundingLevel", "doc": "-", "fields": [
            {"name": "price", "type": DECIMAL, "doc": "Price in quote currency."},
            {"name": "share_ratio", "type": "double", "doc": "Fraction of the whole."},
        ]}},
    },
]  # fmt: skip
TABLE = """
    CREATE TABLE tradetape.funding_rates (
        event_id uuid NOT NULL, event_time timestamptz NOT NULL, emitted_at timestamptz NOT NULL, producer text NOT NULL,
        producer_run_id text NOT NULL, producer_seq bigint NOT NULL, run_mode text NOT NULL, correlation_id text NOT NULL,
        causation_id text, venue text NOT NULL, symbol text NOT NULL, tags jsonb NOT NULL,
        rate_ratio numeric(38,18) NOT NULL, next_at timestamptz, interval_hours integer NOT NULL, phase text NOT NULL,
        levels jsonb NOT NULL, stored_at timestamptz NOT NULL DEFAULT now(),
        topic text NOT NULL, "partition" integer NOT NULL, "offset" bigint NOT NULL,
        PRIMARY KEY (event_time, event_id)
    ) PARTITION BY RANGE (event_time)
"""


@pytest.fixture
def catalogue(tmp_path: Path) -> Catalogue:
    """The shipped catalogue and one event type more, whose schema is read from a file."""
    file = tmp_path / "FundingRate.avsc"
    common = avro_schema.load("Candle")["fields"][:12]
    schema = {"type": "record", "name": "FundingRate", "namespace": "tradetape.events", "doc": "What longs pay shorts."}
    file.write_text(json.dumps({**schema, "fields": [*common, *OWN_FIELDS]}), encoding="utf-8")
    return CATALOGUE.with_event(
        EventType(
            record="FundingRate", topic="funding-rates", table="funding_rates", delivery=Delivery.MARKET,
            schema=json.loads(file.read_text(encoding="utf-8")), natural_key=("venue", "symbol", "event_time"),
        )
    )  # fmt: skip


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str, catalogue: Catalogue) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres, catalogue=catalogue)


def add_table(rig: HistoryRig, text: str = TABLE) -> None:
    assert migrate(rig.dsn, [*shipped(), Migration(9001, "9001_funding.sql", text)]) == ["9001_funding.sql"]


def item_class(event_class: type, field: str) -> Any:
    """The class of the items of a list field."""
    found = next(one for one in msgspec.structs.fields(event_class) if one.name == field)
    return get_args(found.type)[0]


def test_a_new_event_travels_from_the_producer_to_its_table(rig: HistoryRig) -> None:
    add_table(rig)
    funding = rig.catalogue.by_record("FundingRate")
    make: Any = funding.event_class
    level = item_class(make, "levels")
    with rig.producer() as tape:
        emitted = [
            tape.emit(
                make(
                    venue="binance-usdm", symbol="BTC/USDT:USDT", event_time=AT + timedelta(hours=8 * number),
                    rate_ratio=f"-0.0000000000000000{number}1", interval_hours=8, phase="SETTLED",
                    next_at=AT + timedelta(hours=8 * number + 8) if number else None,
                    levels=[level(price="1.50", share_ratio=0.25)] * number,
                )
            )
            for number in range(3)
        ]  # fmt: skip
        tape.emit(
            Candle(
                venue="binance", symbol="BTCUSDT", timeframe="1m", open_time=AT, close_time=AT + timedelta(minutes=1),
                open=1, high=1, low=1, close=1, volume=1, is_final=True,
            )
        )  # fmt: skip

    letters = MemoryDeadLetters()
    sink = rig.store(rig.sink(dead_letters=letters))

    assert letters.letters == []
    assert sink.counts["stored"] == 4
    rows = rig.rows("SELECT * FROM tradetape.funding_rates ORDER BY event_time")
    assert [str(row["event_id"]) for row in rows] == [event.event_id for event in emitted]
    assert [row["rate_ratio"] for row in rows] == [Decimal(f"-0.0000000000000000{number}1") for number in range(3)]
    assert [row["next_at"] for row in rows] == [None, AT + timedelta(hours=16), AT + timedelta(hours=24)]
    assert {(row["symbol"], row["phase"], row["interval_hours"]) for row in rows} == {("BTCUSDT", "SETTLED", 8)}
    assert [row["levels"] for row in rows] == [[{"price": "1.5", "share_ratio": 0.25}] * number for number in range(3)]
    assert all(row["stored_at"] is not None for row in rows)
    assert rig.places_in_history().keys() == {(one.topic, one.partition, one.offset) for one in rig.tape()}


@pytest.mark.parametrize(
    ("wanted", "instead", "problem"),
    [
        (TABLE, "SELECT 1", "there is no table tradetape.funding_rates"),
        ("rate_ratio numeric(38,18) NOT NULL,", "", "has no column for rate_ratio"),
        ("rate_ratio numeric(38,18)", "rate_ratio numeric(20,8)", "has rate_ratio as numeric(20,8), which must be numeric(38,18)"),
        ("next_at timestamptz", "next_at timestamp", "has next_at as timestamp without time zone"),
        ("next_at timestamptz", "next_at timestamptz NOT NULL", "refuses NULL in next_at"),
        ("interval_hours integer", "interval_hours smallint", "has interval_hours as smallint"),
        ("levels jsonb", "levels json", "has levels as json"),
        ("stored_at timestamptz NOT NULL DEFAULT now()", "desk text NOT NULL", "wants desk, which FundingRate does not have"),
        ("PRIMARY KEY (event_time, event_id)", "PRIMARY KEY (event_time, event_id, venue)", "has no unique key (event_time, event_id)"),
        (") PARTITION BY RANGE (event_time)", ")", "is not partitioned by range of event_time"),
        (") PARTITION BY RANGE (event_time)", ") PARTITION BY HASH (event_time)", "is not partitioned by range of event_time"),
    ],
)  # fmt: skip
def test_a_table_that_does_not_fit_is_a_clear_error_at_the_start(
    rig: HistoryRig, wanted: str, instead: str, problem: str
) -> None:
    assert wanted in TABLE
    add_table(rig, TABLE.replace(wanted, instead))
    sink = rig.sink()
    with pytest.raises(SchemaBehind) as refused:
        sink.assigned([])
    assert problem in str(refused.value)
    assert "run `tradetape history migrate`" in str(refused.value)


def test_a_worker_on_a_database_without_tables_ends_and_says_what_to_do(rig: HistoryRig) -> None:
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("DROP SCHEMA tradetape CASCADE")
    with pytest.raises(SchemaBehind, match="tradetape history migrate"), rig.working(rig.sink()) as thread:
        eventually("the worker ends", lambda: thread.failure is not None)


def test_an_applied_migration_that_is_edited_later_is_refused(rig: HistoryRig) -> None:
    add_table(rig)
    edited = Migration(9001, "9001_funding.sql", TABLE.replace("interval_hours integer", "interval_hours bigint"))
    with pytest.raises(MigrationError, match=r"9001_funding\.sql was applied and has been changed since"):
        migrate(rig.dsn, [*shipped(), edited])


@pytest.mark.parametrize("text", ["CREATE TABLE tradetape.x (a no_such_type)", "SELECT 1/0", "SELECT 'x'::uuid"])
def test_a_migration_that_fails_names_itself_and_leaves_nothing(rig: HistoryRig, text: str) -> None:
    broken = Migration(9001, "9001_broken.sql", f"CREATE TABLE tradetape.half (a integer); {text}")
    with pytest.raises(MigrationError, match=r"9001_broken\.sql"):
        migrate(rig.dsn, [*shipped(), broken])
    assert rig.rows("SELECT to_regclass('tradetape.half') AS half") == [{"half": None}]
    versions = [row["version"] for row in rig.rows("SELECT version FROM tradetape.migrations ORDER BY version")]
    assert versions == [one.version for one in shipped()]
