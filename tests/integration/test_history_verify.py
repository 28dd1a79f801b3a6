"""`tradetape history verify` finds every row that is missing, extra or different, names it, and blames nothing else."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from console_rig import run_command
from history_rig import HistoryRig
from tradetape.schemas import (
    Action,
    Codec,
    Direction,
    Event,
    Fill,
    IndicatorUpdate,
    Leg,
    MarketCondition,
    Side,
    TakeProfit,
    TradeSignal,
    TrailingStop,
)
from tradetape.sinks.history import reports, verification
from tradetape.sinks.history.promotion import promote
from tradetape.streams.groups import TopicIds
from tradetape.streams.topic_reader import TopicReader

START = datetime(2025, 5, 31, 23, 50, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT")
Found = dict[str, dict[str, Any]]


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str, monkeypatch: pytest.MonkeyPatch) -> HistoryRig:
    monkeypatch.setenv("DATABASE_URL", postgres)
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("TRADETAPE_TOPIC_PREFIX", topic_prefix)
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def some_events(number: int) -> list[Event]:
    """One of four kinds each, with documents, many digits, a tiny double and a negative zero."""
    common: dict[str, Any] = {"venue": "v", "symbol": SYMBOLS[number % 4], "tags": {"b": "ü", "a": ""}}
    at = START + timedelta(minutes=number)
    values = {"rsi_14": -0.0, "mine": 1e22, "tiny": 5e-324, "other": -0.0}
    return [
        MarketCondition(**common, scope="s", condition="c", event_time=at, values={"x": 0.1 + 0.2, "y": 3.0}, score=1.0),
        IndicatorUpdate(**common, timeframe="1m", bar_close_time=at, values=values, close="0.10", invalid=["adx_14"]),
        Fill(
            **common, event_time=at, venue_order_id="o", venue_trade_id=str(number), side=Side.BUY,
            price="99999999999999999999.999999999999999999", quantity="0.000000000000000001", amount_quote="-0.0",
        ),
        TradeSignal(
            **common, strategy_id="s", timeframe="1m", bar_close_time=at, action=Action.ENTER, direction=Direction.LONG,
            score_components={"a": 1e-9}, take_profits=[TakeProfit(price="1.50", close_ratio=1)],
            trailing_stop=TrailingStop(activation_price="2.0", delta_ratio=0.01),
            legs=[Leg(leg_index=0), Leg(leg_index=1, trigger_price="1e-18", amount_quote=25)], reasons=["r", "q"],
        ),
    ]  # fmt: skip


def emit(rig: HistoryRig, numbers: range) -> list[Event]:
    with rig.producer() as tape:
        return [tape.emit(event) for number in numbers for event in some_events(number)]


@pytest.fixture
def verify(capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[int, Found]]:
    """Runs the command; its exit code and what it says of each table."""

    def verify(*options: str) -> tuple[int, Found]:
        capsys.readouterr()
        code = run_command("history", "verify", "--json", *options)
        return code, {one["table"]: one for one in json.loads(capsys.readouterr().out)}

    return verify


def counts(found: Found, *kinds: str) -> dict[str, tuple[int, ...]]:
    """By table, without those that have none of these."""
    numbers = {table: tuple(one[kind] for kind in kinds) for table, one in found.items()}
    return {table: row for table, row in numbers.items() if any(row)}


FILLED = ("market_conditions", "indicator_updates", "fills", "trade_signals")
ALL = ("equal", "missing", "extra", "different", "refused", "pending", "dropped", "unchecked")


def test_a_history_that_is_right_is_found_right_to_the_last_digit(rig: HistoryRig, verify: Any) -> None:
    emit(rig, range(30))
    emit(rig, range(10))  # repeats, of another run: the row is the first one's
    rig.store()
    code, found = verify()
    assert counts(found, *ALL) == dict.fromkeys(FILLED, (30, 0, 0, 0, 0, 0, 0, 0))
    assert code == 0


def change(rig: HistoryRig, statement: str, *parameters: object) -> None:
    with psycopg.connect(rig.dsn) as connection:
        assert connection.execute(statement.encode(), parameters).rowcount == 1


def test_what_is_missing_extra_or_different_is_named(rig: HistoryRig, verify: Any) -> None:
    conditions, updates, fills, signals = (list(kind) for kind in zip(*zip(*[iter(emit(rig, range(30)))] * 4, strict=True), strict=True))  # fmt: skip
    rig.store()
    change(rig, "DELETE FROM tradetape.fills WHERE event_id = %s", fills[3].event_id)
    change(
        rig, "UPDATE tradetape.fills SET price = price - 0.000000000000000001, side = 'SELL' WHERE event_id = %s",
        fills[4].event_id,
    )  # fmt: skip
    change(rig, "UPDATE tradetape.indicator_updates SET extra = extra || '{\"mine\": 2}' WHERE event_id = %s", updates[5].event_id)  # fmt: skip
    change(rig, "UPDATE tradetape.trade_signals SET legs = legs - 1 WHERE event_id = %s", signals[6].event_id)
    change(
        rig, "UPDATE tradetape.market_conditions SET event_id = '11111111-1111-4111-8111-111111111111' WHERE event_id = %s",
        conditions[7].event_id,
    )  # fmt: skip

    code, found = verify()

    assert code == 4
    assert counts(found, "equal", "missing", "extra", "different") == {
        "fills": (28, 1, 0, 1), "indicator_updates": (29, 0, 0, 1), "trade_signals": (29, 0, 0, 1),
        "market_conditions": (29, 1, 1, 0),
    }  # fmt: skip
    examples = {(one["kind"], one["event_id"]): one["columns"] for table in found.values() for one in table["examples"]}
    assert examples == {
        ("missing", fills[3].event_id): [],
        ("different", fills[4].event_id): ["price", "side"],
        ("different", updates[5].event_id): ["values"],
        ("different", signals[6].event_id): ["legs"],
        ("missing", conditions[7].event_id): [],
        ("extra", "11111111-1111-4111-8111-111111111111"): [],
    }


def test_refused_and_pending_records_are_accounted_for(rig: HistoryRig, verify: Any) -> None:
    emit(rig, range(4))
    fills = rig.catalogue.by_record("Fill")
    topic = rig.catalogue.topic_name(fills)
    plain = rig.plain(rig.tape(topic)[0]) | {"event_id": "11111111-1111-4111-8111-111111111111", "producer": "a\x00b"}
    rig.put(topic, [(b"v:BTCUSDT", rig.frame(fills, plain)), (b"v:BTCUSDT", b"rubbish")])
    rig.store(rig.sink(dead_letters=rig.kafka_dead_letters()))
    emit(rig, range(4, 7))

    code, found = verify("--topics", "fills")

    assert counts(found, "equal", "missing", "refused", "pending") == {"fills": (4, 0, 2, 3)}
    assert code == 0


def test_a_record_that_was_passed_over_without_a_dead_letter_is_missing(rig: HistoryRig, verify: Any) -> None:
    emit(rig, range(4))
    topic = rig.catalogue.topic_name(rig.catalogue.by_record("Fill"))
    rig.put(topic, [(b"v:BTCUSDT", b"rubbish")])
    rig.store()  # its dead letters stay in memory
    code, found = verify("--topics", "fills")
    assert (code, counts(found, "equal", "missing")) == (4, {"fills": (4, 1)})


def test_only_the_stretch_is_compared(rig: HistoryRig, verify: Any) -> None:
    emitted = emit(rig, range(30))
    rig.store()
    change(rig, "DELETE FROM tradetape.fills WHERE event_id = %s", emitted[2].event_id)
    first, last = ((START + timedelta(minutes=number)).isoformat() for number in (1, 21))
    code, found = verify("--from", first, "--to", last)
    assert counts(found, *ALL) == dict.fromkeys(FILLED, (20, 0, 0, 0, 0, 0, 0, 0))
    assert code == 0
    code, found = verify("--to", first, "--topics", "fills")
    assert (code, counts(found, "equal", "missing")) == (4, {"fills": (0, 1)})


def test_a_month_that_retention_dropped_is_not_missing(rig: HistoryRig, verify: Any) -> None:
    emit(rig, range(30))
    rig.store()
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("SELECT tradetape.drop_month('market_conditions', '2025-05-01')")
        connection.execute("DROP TABLE tradetape.fills_y2025m05")
    code, found = verify()
    assert counts(found, "equal", "missing", "dropped")["market_conditions"] == (20, 0, 10)
    assert counts(found, "equal", "missing", "dropped")["fills"] == (20, 10, 0), "nobody may drop these"
    assert code == 4


def test_a_promoted_indicator_is_no_difference(rig: HistoryRig, verify: Any) -> None:
    emit(rig, range(5))
    rig.store()
    with psycopg.connect(rig.dsn, autocommit=True) as connection:
        assert promote(connection, "mine").rows == 5
    assert counts(verify()[1], *ALL) == dict.fromkeys(FILLED, (5, 0, 0, 0, 0, 0, 0, 0))


def test_what_is_sorted_on_disk_gives_the_same_findings(rig: HistoryRig) -> None:
    emitted = emit(rig, range(50))
    rig.store()
    change(rig, "DELETE FROM tradetape.fills WHERE event_id = %s", emitted[2].event_id)
    reader = TopicReader(rig.kafka)
    found = []
    for run_entries in (7, 500_000):
        with reports.reading(rig.dsn) as connection:
            one = verification.Verification(
                connection=connection, reader=reader, codec=Codec(rig.catalogue), topic_uuid=TopicIds(rig.kafka),
                run_entries=run_entries,
            )  # fmt: skip
            found.append(
                [(finding.table, finding.counts, finding.examples) for finding in one.run(list(rig.catalogue))]
            )
    reader.close()
    assert found[0] == found[1]
    assert sum(counted["equal"] for _, counted, _ in found[0]) == 199
