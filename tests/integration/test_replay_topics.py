"""A replay into topics keeps keys, partitions and order, says that it is one, and never meets a live topic."""

from __future__ import annotations

import itertools
import json
import time
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from history_rig import HistoryRig
from replay_rig import ReplayRig
from tradetape.console import topics
from tradetape.schemas import Action, Candle, Direction, Event, Trade, TradeSignal
from tradetape.streams.record import Record

MINUTE = timedelta(minutes=1)
DAY_MS = 86_400_000
SYMBOLS = [f"S{number}USDT" for number in range(5)]
YEARS = range(2017, 2023)


def candle(symbol: str, year: int, minute: int) -> Candle:
    opens = datetime(year, 8, 17, tzinfo=UTC) + minute * MINUTE
    price = Decimal(minute + 1)
    return Candle(
        venue="v", symbol=symbol, timeframe="1m", open_time=opens, close_time=opens + MINUTE, is_final=True,
        open=price, high=price, low=price, close=price, volume=Decimal(1), tags={"n": str(minute)},
    )  # fmt: skip


def signal(symbol: str, year: int) -> TradeSignal:
    closes = datetime(year, 8, 17, 1, tzinfo=UTC)
    return TradeSignal(
        strategy_id="s", venue="v", symbol=symbol, timeframe="1h", bar_close_time=closes, action=Action.ENTER,
        direction=Direction.LONG, reference_price="10", valid_until=closes + MINUTE,
    )  # fmt: skip


def emitted(rig: HistoryRig) -> list[Event]:
    events: list[Event] = []
    for symbol in SYMBOLS:
        for year in YEARS:
            events += [candle(symbol, year, minute) for minute in range(30)]
            events.append(signal(symbol, year))
    with rig.producer() as producer:
        return [producer.emit(one) for one in events]


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


@pytest.fixture
def replay(rig: HistoryRig, kafka: str) -> ReplayRig:
    return ReplayRig(KAFKA_BOOTSTRAP_SERVERS=kafka, TRADETAPE_TOPIC_PREFIX=rig.catalogue.prefix)


@pytest.fixture
def elsewhere(rig: HistoryRig, kafka: str, postgres: str) -> HistoryRig:
    """Another prefix on the same Kafka, with its topics."""
    return HistoryRig(kafka=kafka, prefix=f"again-{rig.catalogue.prefix}", dsn=postgres)


def by_partition(records: list[Record]) -> dict[tuple[str, int], list[Record]]:
    found: dict[tuple[str, int], list[Record]] = {}
    for one in sorted(records, key=lambda one: (one.topic, one.partition, one.offset)):
        found.setdefault((one.topic.rpartition(".")[2], one.partition), []).append(one)
    return found


def test_keys_partitions_order_and_every_field_but_the_run_mode_are_kept(
    rig: HistoryRig, elsewhere: HistoryRig, replay: ReplayRig
) -> None:
    events = emitted(rig)
    # Without a key a record may lie on any partition.
    candles = rig.catalogue.topic_name(rig.catalogue.by_record("Candle"))
    value = rig.tape(candles)[0].value
    for _ in range(8):
        rig.put(candles, [(None, value)])
    done = replay.run("--into", f"topics:{elsewhere.catalogue.prefix}", "--json")
    assert done.code == 0, done.err
    assert done.document["counts"]["written"] == len(events) + 8
    before, after = by_partition(rig.tape()), by_partition(elsewhere.tape())
    assert before.keys() == after.keys()
    for place, records in before.items():
        copies = after[place]
        assert [one.key for one in copies] == [one.key for one in records]
        assert [elsewhere.plain(one) for one in copies] == [{**rig.plain(one), "run_mode": "REPLAY"} for one in records]
        assert all("x-replay" in dict(one.headers) for one in copies)


def test_verbatim_keeps_the_bytes(rig: HistoryRig, elsewhere: HistoryRig, replay: ReplayRig) -> None:
    emitted(rig)
    assert replay.run("--into", f"topics:{elsewhere.catalogue.prefix}", "--verbatim").code == 0
    before, after = by_partition(rig.tape()), by_partition(elsewhere.tape())
    assert {place: [one.value for one in records] for place, records in after.items()} == {
        place: [one.value for one in records] for place, records in before.items()
    }


def test_paced_the_events_come_by_time_and_each_keys_order_is_kept(
    rig: HistoryRig, elsewhere: HistoryRig, replay: ReplayRig
) -> None:
    emitted(rig)
    # Five years in a blink: the pace itself is tested with a clock under control.
    done = replay.run("--into", f"topics:{elsewhere.catalogue.prefix}", "--speed", "1000000000x")
    assert done.code == 0, done.err
    for records in by_partition(elsewhere.tape()).values():
        times = [elsewhere.plain(one)["event_time"] for one in records]
        assert times == sorted(times)
    assert _by_key(rig) == _by_key(elsewhere)


def _by_key(rig: HistoryRig) -> dict[tuple[str, bytes | None], list[str]]:
    found: dict[tuple[str, bytes | None], list[str]] = {}
    for (topic, _), records in by_partition(rig.tape()).items():
        for one in records:
            found.setdefault((topic, one.key), []).append(rig.plain(one)["event_id"])
    return found


def test_one_topic_goes_into_a_topic_of_any_name_which_is_made_like_its_source(
    rig: HistoryRig, replay: ReplayRig
) -> None:
    emitted(rig)
    name = f"rehearsal-{rig.catalogue.prefix}signals"
    done = replay.run("--into", f"topic:{name}", "--topics", "trade-signals", "--from", "2020-01-01T00:00Z")
    assert done.code == 0, done.err
    copies = rig.tape(name)
    assert len(copies) == len(SYMBOLS) * 3
    source = rig.catalogue.topic_name(rig.catalogue.by_record("TradeSignal"))
    counts = topics.partition_counts(topics.admin_client(rig.kafka))
    assert counts[name] == counts[source]


def test_topics_of_the_live_prefix_are_refused(rig: HistoryRig, replay: ReplayRig) -> None:
    emitted(rig)
    before = rig.ends(*(one.name for one in rig.catalogue.topics()))
    prefix = rig.catalogue.prefix
    for into, more in (
        (f"topics:{prefix}", []),
        (f"topic:{prefix}trades", ["--topics", "candles"]),
        (f"topic:{prefix}candles", ["--topics", "candles"]),
        (f"topic:{prefix}dead-letters", ["--topics", "candles"]),
        ("topic:of-two", ["--topics", "candles,trades"]),
    ):
        done = replay.run("--into", into, *more)
        assert (done.code, done.out) == (2, ""), into
    assert rig.ends(*(one.name for one in rig.catalogue.topics())) == before
    assert not replay.topics("of-two")


def test_records_of_old_events_bear_the_time_of_their_writing_which_retention_goes_by(
    rig: HistoryRig, elsewhere: HistoryRig, replay: ReplayRig
) -> None:
    began_ms = time.time_ns() // 1_000_000
    emitted(rig)
    assert replay.run("--into", f"topics:{elsewhere.catalogue.prefix}").code == 0
    admin = topics.admin_client(rig.kafka)
    for series in (rig, elsewhere):
        # CreateTime: Kafka deletes a segment once its newest record is older than retention.ms, by the record's own time.
        changes = topics.differences(admin, series.catalogue.topics(), topics.layout_of(admin))
        assert {one.action for one in changes} == {"same"}
        records = series.tape()
        assert {datetime.fromtimestamp(series.plain(one)["event_time"] / 1e6, UTC).year for one in records} == {*YEARS}
        assert min(one.timestamp_ms for one in records) >= began_ms - 1_000
        kept_ms = [one.retention_ms for one in series.catalogue.topics() if one.retention_ms > 0]
        assert min(kept_ms) >= 30 * DAY_MS


def test_no_trade_is_dispatched_and_no_group_of_a_worker_is_joined(
    rig: HistoryRig, elsewhere: HistoryRig, replay: ReplayRig
) -> None:
    closes = datetime(2020, 1, 1, tzinfo=UTC)
    with rig.producer() as producer:
        made = producer.emit(signal("S1USDT", 2020))
        producer.emit(
            Trade(
                venue="v", symbol="S1USDT", event_time=closes, signal_id=made.event_id, strategy_id="s",
                account_id="a", action=Action.ENTER, direction=Direction.LONG, quantity="1",
                approved_at=closes, approved_by="test", idempotency_key="k",
            )
        )  # fmt: skip
    admin = topics.admin_client(rig.kafka)
    before = {one.group_id for one in admin.list_consumer_groups().result().valid}
    done = replay.run("--into", f"topics:{elsewhere.catalogue.prefix}", "--topics", "trades")
    assert done.code == 0, done.err
    (copy,) = elsewhere.tape()
    assert elsewhere.plain(copy)["run_mode"] == "REPLAY"
    assert {one.group_id for one in admin.list_consumer_groups().result().valid} == before
    dispatches = [one.catalogue.topic_name(one.catalogue.by_record("TradeDispatch")) for one in (rig, elsewhere)]
    assert not rig.ends(*dispatches)


def test_lines_come_by_time_and_what_cannot_be_decoded_is_told(rig: HistoryRig, replay: ReplayRig) -> None:
    events = emitted(rig)
    rig.put(rig.catalogue.topic_name(rig.catalogue.by_record("Candle")), [(b"v:S1USDT", b"rubbish")])
    done = replay.run("--into", "stdout", "--to", "2019-01-01T00:00Z", "--json")
    assert done.code == 4, done.err
    documents = [json.loads(line) for line in done.out.splitlines()]
    times = [one["event"]["event_time"] for one in documents]
    assert times == sorted(times)
    wanted = [one.event_id for one in events if one.event_time and one.event_time.year < 2019]
    assert sorted(one["event"]["event_id"] for one in documents) == sorted(map(str, wanted))
    assert "not recorded" in done.err
    told = next(json.loads(line) for line in done.err.splitlines() if line.startswith("{"))
    assert told["counts"]["undecodable.bad_magic"] == 1
    assert told["run"] is None


def test_a_reader_that_has_seen_enough_is_no_error(rig: HistoryRig, replay: ReplayRig) -> None:
    emitted(rig)
    running = replay.started("--into", "stdout")
    assert running.stdout is not None
    assert len(list(itertools.islice(running.stdout, 3))) == 3
    running.stdout.close()
    _, told = running.communicate(timeout=60)
    assert (running.returncode, "Traceback" in told) == (0, False)
