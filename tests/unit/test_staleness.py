"""The alarm for a silent series: one for each hole, under the same id whenever it is found, and none where there is no hole."""

from __future__ import annotations

import csv
import gzip
import random
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any

import msgspec
import pytest

from streams_rig import Tape, candle, indicators
from tradetape.schemas import CATALOGUE, Codec, Event, EventType, MarketCondition, times
from tradetape.schemas.errors import RegistryUnreachable
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.effects import MemoryEffects, Output
from tradetape.streams.engines.memory import MemoryEngine
from tradetape.streams.errors import EffectsRefused
from tradetape.streams.processor import Partition
from tradetape.streams.processors import staleness
from tradetape.streams.processors.staleness import Staleness
from tradetape.streams.processors.staleness_past import NoPast, Past
from tradetape.streams.record import Record

CODEC = Codec(CATALOGUE)
CANDLES = "tradetape.candles"
CONDITIONS = "tradetape.market-conditions"
START = datetime(2024, 5, 1, tzinfo=UTC)
MINUTE, GRACE = timedelta(minutes=1), timedelta(seconds=10)
GAPPY = {"gappy_ADABTC_5m": 5, "gappy_UNITTESTBTC_1m": 538}
"""How many holes each file has, as the README beside the data says."""


class Remembered:
    """A past that an earlier worker left on the tape."""

    def __init__(self, outputs: Sequence[Output], start: int = 0) -> None:
        self._outputs, self._start = outputs, start

    def conditions(self, numbers: Collection[int]) -> Iterable[Record]:
        """All of partition 0."""
        found = enumerate(self._outputs if 0 in numbers else ())
        return [Record(one.topic, 0, offset, one.key, one.value, (), one.timestamp_ms) for offset, one in found]

    def starts(self, partitions: Sequence[Partition]) -> Mapping[Partition, int | None]:
        return dict.fromkeys(partitions, self._start)


class Rig:
    """A watch, what it emits, and the stream time that ticks come with."""

    def __init__(self, *, past: Past | None = None, is_behind: Callable[[Partition], bool] = lambda _: False) -> None:
        self.effects = MemoryEffects(codec=CODEC, worker="staleness")
        self.letters = MemoryDeadLetters()
        self.watch = Staleness(
            codec=CODEC, effects=self.effects, dead_letters=self.letters, past=past or NoPast(), is_behind=is_behind
        )
        self.stream_time_us = 0

    def run(self, records: Sequence[Record], *, batch: int = 50) -> None:
        """Feed records as an engine would; time is that of the newest bar."""
        newest = [CODEC.decode_fields(one.topic, one.value)["event_time"] for one in records]

        def stream_time_us() -> int:
            done = engine.committed.get(Partition(records[0].topic, 0), 0)
            return max((at for at, one in zip(newest, records, strict=True) if one.offset < done), default=0)

        engine = MemoryEngine(
            processor=self.watch, dead_letters=self.letters, records=records, max_batch_records=batch,
            now_us=stream_time_us,
        )  # fmt: skip
        engine.run()

    def take(self, *records: Record) -> None:
        self.watch.assigned([Partition(CANDLES, 0)])
        self.watch.process(records)

    def tick(self, at: datetime) -> None:
        self.watch.tick(times.from_datetime(at))

    def told(self) -> list[tuple[str, datetime]]:
        """Condition and event time of all that was emitted, in order."""
        return [(one.condition, one.event_time) for one in conditions(self.effects.outputs)]


def conditions(outputs: Sequence[Output]) -> list[Any]:
    return [CODEC.decode(one.topic, one.value) for one in outputs]


def closes(folder: Path, file: str, minutes: int) -> list[datetime]:
    """When the candles of a file closed."""
    with gzip.open(folder / "klines" / f"{file}.csv.gz", "rt") as lines:
        opened = [int(row["open_time_ms"]) for row in csv.DictReader(lines)]
    return [datetime.fromtimestamp(one / 1_000, UTC) + timedelta(minutes=minutes) for one in opened]


def bars(closed: Iterable[datetime], timeframe: str, **more: Any) -> list[Record]:
    tape = Tape()
    records = [tape.record(candle(one, timeframe=timeframe, **more)) for one in closed]
    # As they would have been emitted then: no later than the bar closed.
    return [
        msgspec.structs.replace(one, timestamp_ms=CODEC.decode_fields(one.topic, one.value)["event_time"] // 1_000)
        for one in records
    ]


@pytest.mark.parametrize("file", GAPPY)
def test_each_hole_of_real_data_is_one_alarm_at_its_due_time_and_its_end_takes_it_back(
    market_data: Path, file: str
) -> None:
    minutes = int(file.rpartition("_")[2].removesuffix("m"))
    closed, length = closes(market_data, file, minutes), timedelta(minutes=minutes)
    holes = [(last, following) for last, following in pairwise(closed) if following - last > length]
    rig = Rig()
    rig.run(bars(closed, f"{minutes}m"))
    assert len(holes) == GAPPY[file]
    expected = [
        one
        for last, following in holes
        for one in (("stale", last + length + GRACE), ("fresh", max(following, last + length + GRACE)))
    ]
    assert rig.told() == expected
    found = conditions(rig.effects.outputs)
    assert len({one.event_id for one in found}) == 2 * len(holes)
    assert {one.scope for one in found} == {f"staleness:candles:{minutes}m"}
    assert (rig.watch.stale, rig.watch.counts) == (0, {"raised": len(holes), "cleared": len(holes)})


@pytest.mark.parametrize(("file", "minutes"), [("binance-usdm_XRPUSDT_15m", 15), ("binance-usdm_BTCUSDT_1h", 60)])
def test_real_data_without_a_hole_raises_no_alarm(market_data: Path, file: str, minutes: int) -> None:
    rig = Rig()
    rig.run(bars(closes(market_data, file, minutes), f"{minutes}m"))
    assert rig.told() == []


def test_a_bar_that_waits_for_its_schema_is_not_missing() -> None:
    rig = Rig()
    first, second = bars([START, START + MINUTE], "1m")
    rig.take(first)
    late = msgspec.structs.replace(second, value=b"\0\0\0\0\7" + (second.value or b"")[5:])
    registry = Registered()
    rig.watch._codec = Codec(CATALOGUE, look_up=registry)
    with pytest.raises(RegistryUnreachable):
        rig.watch.process([late])
    rig.tick(START + 10 * MINUTE)
    assert rig.told() == []
    registry.schema = CATALOGUE.by_record("Candle").schema
    rig.watch.process([late])
    rig.tick(START + 10 * MINUTE)
    assert rig.told() == [("stale", START + 2 * MINUTE + GRACE)]


class Registered:
    """A registry that is away until it has a schema."""

    schema: dict[str, Any] | None = None

    def find(self, event_type: EventType, subject: str, schema_id: int) -> dict[str, Any]:
        if self.schema is None:
            raise RegistryUnreachable(f"{subject} {schema_id}")
        return self.schema


def test_wherever_a_worker_ends_the_next_one_raises_what_is_missing_and_nothing_twice() -> None:
    chance = random.Random(11)
    closed = [START + n * MINUTE for n in range(400) if chance.random() > 0.1]
    records = bars(closed, "1m")
    whole = Rig()
    whole.run(records)
    expected = [one.event_id for one in conditions(whole.effects.outputs)]
    assert len(expected) > 50
    for cut in chance.sample(range(5, len(records)), 40):
        first = Rig()
        first.run(records[:cut], batch=chance.randint(1, 60))
        # Killed in the middle of what it emitted; the next one reads the last hours again.
        emitted = first.effects.outputs[: len(first.effects.outputs) - chance.choice((0, 0, 1))]
        second = Rig(past=Remembered(emitted, start=max(0, cut - chance.randint(60, 150))))
        second.run(records, batch=chance.randint(1, 60))
        found = [one.event_id for one in conditions([*emitted, *second.effects.outputs])]
        assert found == expected, cut


def test_silence_is_told_when_a_bar_is_due_and_not_before_and_once() -> None:
    rig = Rig()
    rig.take(*bars([START], "1m"))
    due = START + MINUTE + GRACE
    rig.tick(due - timedelta(microseconds=1))
    assert rig.told() == []
    for later in (timedelta(0), timedelta(seconds=1), timedelta(days=3)):
        rig.tick(due + later)
    assert rig.told() == [("stale", due)]
    assert rig.watch.stale == 1


def test_a_bar_that_is_merely_late_takes_its_alarm_back_and_is_newer_than_it() -> None:
    rig = Rig()
    tape = bars([START, START + MINUTE, START + 2 * MINUTE], "1m")
    due = START + MINUTE + GRACE
    rig.take(tape[0])
    rig.tick(due + timedelta(seconds=5))
    rig.take(*tape[1:])
    assert rig.told() == [("stale", due), ("fresh", due)]


def test_what_is_still_to_be_read_is_not_taken_for_missing() -> None:
    behind = [True]
    rig = Rig(is_behind=lambda _: behind[0])
    records = bars([START, START + MINUTE], "1m")
    rig.take(records[0])
    rig.tick(START + timedelta(days=1))
    assert rig.told() == []
    # Another series of the partition was emitted later: so much time has gone by there.
    rig.take(*bars([START + 9 * MINUTE], "1m", symbol="ETHUSDT"))
    rig.tick(START + timedelta(days=1))
    assert [(one.symbol, one.condition) for one in conditions(rig.effects.outputs)] == [("BTCUSDT", "stale")]
    behind[0] = False
    rig.tick(START + timedelta(days=1))
    assert len(rig.told()) == 2


def test_a_process_that_stood_still_reads_before_it_raises_anything() -> None:
    rig = Rig()
    rig.watch = Staleness(
        codec=CODEC, effects=rig.effects, dead_letters=rig.letters, past=NoPast(), stall_us=5_000_000
    )  # fmt: skip
    records = bars([START + n * MINUTE for n in range(60)], "1m")
    rig.take(records[0])
    rig.tick(START + GRACE)
    rig.tick(START + timedelta(hours=1))
    rig.take(*records[1:])
    rig.tick(START + timedelta(hours=1, seconds=1))
    assert rig.told() == []
    rig.tick(START + timedelta(hours=1, seconds=6))
    rig.tick(START + timedelta(hours=1, seconds=10))
    assert rig.told() == [("stale", START + 60 * MINUTE + GRACE)]


def test_kinds_timeframes_and_sets_of_a_symbol_are_watched_apart() -> None:
    tape, rig = Tape(), Rig()
    events: list[Event] = [
        candle(START), candle(START, timeframe="1h"), indicators(START, {"rsi_14": 1.0}),
        indicators(START, {"rsi_14": 1.0}, indicator_set="slow"),
        candle(START + MINUTE, is_final=False, event_time=START + timedelta(seconds=50)),
    ]  # fmt: skip
    rig.take(*map(tape.record, events))
    rig.tick(START + timedelta(seconds=90))
    assert [one.scope for one in conditions(rig.effects.outputs)] == [
        "staleness:candles:1m", "staleness:indicators:1m", "staleness:indicators:1m:slow"
    ]  # fmt: skip
    rig.tick(START + timedelta(hours=1) + GRACE)
    assert conditions(rig.effects.outputs)[-1].scope == "staleness:candles:1h"


def test_an_alarm_names_the_bar_it_rests_on_and_copies_its_run_mode() -> None:
    rig = Rig()
    (record,) = bars([START], "1m", tags={"a": "b"})
    rig.take(record)
    rig.tick(START + timedelta(hours=1))
    bar = CODEC.decode(record.topic, record.value)
    (alarm,) = conditions(rig.effects.outputs)
    assert (alarm.causation_id, alarm.correlation_id, alarm.run_mode) == (
        bar.event_id,
        bar.correlation_id,
        bar.run_mode,
    )
    assert alarm.values == {"last_close_s": START.timestamp()}


def test_what_kafka_does_not_take_is_emitted_when_the_batch_or_the_tick_comes_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    rig = Rig()
    records = bars([START, START + 5 * MINUTE], "1m")

    def refuse(_: object) -> None:
        raise EffectsRefused("away")

    with monkeypatch.context() as patched:
        patched.setattr(rig.effects, "send", refuse)
        for _ in range(2):
            with pytest.raises(EffectsRefused):
                rig.take(*records)
    rig.take(*records)
    assert [condition for condition, _ in rig.told()] == ["stale", "fresh"]
    with monkeypatch.context() as patched:
        patched.setattr(rig.effects, "send", refuse)
        with pytest.raises(EffectsRefused):
            rig.tick(START + 10 * MINUTE)
    rig.tick(START + 10 * MINUTE)
    assert rig.told()[2:] == [("stale", START + 6 * MINUTE + GRACE)]


def test_a_series_that_another_worker_has_taken_over_is_not_watched_here() -> None:
    rig = Rig()
    rig.take(*bars([START], "1m"))
    rig.watch.released([Partition(CANDLES, 0)])
    rig.tick(START + 10 * MINUTE)
    assert rig.told() == []


def test_a_series_that_was_silent_when_the_last_worker_ended_is_taken_back_by_the_next() -> None:
    records = bars([START, START + timedelta(days=2)], "1m")
    first = Rig()
    first.take(records[0])
    first.tick(START + 5 * MINUTE)
    next_one = Rig(past=Remembered(first.effects.outputs, start=2))
    next_one.watch.assigned([Partition(CANDLES, 0)])
    assert next_one.watch.stale == 1
    next_one.tick(START + timedelta(days=1))
    assert next_one.told() == []
    next_one.take(records[1])
    assert next_one.told() == [("fresh", START + timedelta(days=2))]


def test_a_series_that_was_last_heard_of_long_before_the_lookback_raises_nothing_for_what_was_not_read() -> None:
    first = Rig()
    first.run(bars([START, START + 3 * MINUTE], "1m"))
    assert [condition for condition, _ in first.told()] == ["stale", "fresh"]
    later = START + timedelta(days=20)
    second = Rig(past=Remembered(first.effects.outputs))
    second.take(*bars([later], "1m"))
    second.tick(later + MINUTE)
    assert second.told() == []


def test_conditions_of_others_and_rubbish_on_their_topic_are_passed_by() -> None:
    tape, rig = Tape(), Rig()
    foreign = [
        MarketCondition(venue="binance", symbol="BTCUSDT", scope=scope, condition="stale", event_time=START, values=values)
        for scope, values in (
            ("btc", {"last_close_s": 1.0}), ("staleness:candles:1m", {}), ("staleness:candles:x", {"last_close_s": 1.0}),
            ("staleness:other:1m", {"last_close_s": 1.0}), ("staleness", {"last_close_s": 1.0}),
        )
    ]  # fmt: skip
    records = [tape.record(one) for one in foreign]
    outputs = [Output(one.topic, one.key or b"", one.value or b"", one.timestamp_ms) for one in records]
    rig.watch = Rig(past=Remembered([*outputs, Output(CONDITIONS, b"", b"\x01", 0)])).watch
    rig.watch.assigned([Partition(CANDLES, 0)])
    assert rig.watch.stale == 0


def test_rubbish_is_a_dead_letter_and_its_neighbours_are_watched() -> None:
    rig = Rig()
    good, other = bars([START, START + MINUTE], "1m")
    rig.take(msgspec.structs.replace(other, value=b"\x01"), good)
    assert [one.reason for one in rig.letters.letters] == ["bad_magic"]
    rig.tick(START + timedelta(hours=1))
    assert len(rig.told()) == 1


def test_more_series_than_one_worker_watches_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staleness, "MAX_SERIES", 2)
    rig, tape = Rig(), Tape()
    rig.take(*(tape.record(candle(START, symbol=f"C{number}USDT")) for number in range(5)))
    assert rig.watch.counts == {"unwatched": 3}
    rig.tick(START + timedelta(hours=1))
    assert len(rig.told()) == 2
