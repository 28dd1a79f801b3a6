"""What cannot be decoded or stored is a dead letter, once by its place; everything around it is stored (I7)."""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import psycopg
import pytest

from history_rig import HistoryRig
from ledger import Place
from tradetape.schemas import Fill, MarketCondition, Side
from tradetape.streams.dead_letters import MemoryDeadLetters
from tradetape.streams.errors import DeadLettersRefused
from tradetape.streams.processor import Partition
from tradetape.streams.record import Record

START = datetime(2025, 6, 1, tzinfo=UTC)
SYMBOLS = ("BTCUSDT", "ETHUSDT", "SOLUSDT", "XRPUSDT", "ADAUSDT")
YEAR_2099_US = 4_083_004_800_000_000
SEVEN = (7 * 10**18).to_bytes(9, "big")
"""What no quantity may be once `divide_by_quantity` was there: the database finds 22012, which nothing of ours could."""
LONGEST_S, LONGEST_BESIDE_OTHERS_S = 2.0, 15.0
"""It takes under 1 s, and is owed in 2; beside other tests a machine may be busy. Without bisection it takes minutes."""
NEVER_US = -(2**63) + 946_684_800_000_000
"""What would be -infinity, as counted from PostgreSQL's epoch."""


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> HistoryRig:
    return HistoryRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def emit_good(rig: HistoryRig, count: int, *, offset: int = 0) -> list[Record]:
    """Fills and conditions, half each, spread over the partitions; their records."""
    with rig.producer() as tape:
        for number in range(offset, offset + count // 2):
            at = START + timedelta(seconds=number)
            symbol = SYMBOLS[number % len(SYMBOLS)]
            tape.emit(MarketCondition(venue="v", symbol=symbol, scope="s", condition="c", event_time=at))
            tape.emit(
                Fill(
                    venue="v", symbol=symbol, event_time=at, venue_order_id="o", venue_trade_id=str(number),
                    side=Side.BUY, price="1.5", quantity=2, amount_quote=3,
                )
            )  # fmt: skip
    return rig.tape()


def divide_by_quantity(rig: HistoryRig) -> None:
    """What an operator may add to a table: an index that cannot hold every value of its column."""
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("CREATE INDEX ON tradetape.fills ((1 / (quantity - 7)))")


Change = Callable[[dict[str, Any]], object]
REFUSED_BY_THE_DATABASE: dict[str, Change] = {
    "a quantity that an index of the operator's divides by": lambda plain: plain.update(quantity=SEVEN),
    "a month that no history is kept for": lambda plain: plain.update(event_time=YEAR_2099_US),
}
REFUSED_BEFORE: dict[str, Change] = {
    "a NUL in a text": lambda plain: plain.update(producer="a\x00b"),
    "a NUL in a document": lambda plain: plain.update(tags={"note": "a\x00b"}),
    "21 digits before the point": lambda plain: plain.update(price=(10**38).to_bytes(17, "big")),
    "the least number of 21 digits": lambda plain: plain.update(price=(-(10**38)).to_bytes(17, "big", signed=True)),
    "an amount of a hundred thousand bytes": lambda plain: plain.update(price=b"\x01" + bytes(100_000)),
    "an id that is no UUID": lambda plain: plain.update(event_id="z" * 36),
    "a time that no reader's clock holds": lambda plain: plain.update(emitted_at=2**63 - 1),
    "a time before what a timestamp holds": lambda plain: plain.update(emitted_at=-(2**63)),
    "a time that the database reads as never": lambda plain: plain.update(emitted_at=NEVER_US),
}


@pytest.mark.parametrize("what", [*REFUSED_BY_THE_DATABASE, *REFUSED_BEFORE])
def test_a_row_that_cannot_be_stored_is_a_dead_letter_and_the_rest_of_its_batch_is_stored(
    rig: HistoryRig, what: str
) -> None:
    divide_by_quantity(rig)
    records = emit_good(rig, 60)
    fills = rig.catalogue.by_record("Fill")
    topic = rig.catalogue.topic_name(fills)
    plain = rig.plain(next(record for record in records if record.topic == topic))
    plain |= {"event_id": "11111111-1111-4111-8111-111111111111"}
    (REFUSED_BY_THE_DATABASE | REFUSED_BEFORE)[what](plain)
    rig.put(topic, [(b"v:BTCUSDT", rig.frame(fills, plain))])
    emit_good(rig, 40, offset=1_000)
    bad = next(one for one in rig.tape(topic) if rig.plain(one) == plain)

    letters = MemoryDeadLetters("history")
    sink = rig.store(rig.sink(dead_letters=letters))

    assert {letter.record for letter in letters.letters} == {bad}
    assert sink.counts["stored"] == len(rig.places_in_history()) == 100
    assert Place(bad.topic, bad.partition, bad.offset) not in rig.places_in_history()


def test_several_bad_rows_in_one_batch_are_found_each_by_itself(rig: HistoryRig) -> None:
    """Two next to each other, one at the end, in two tables, with repeats of good events between them."""
    divide_by_quantity(rig)
    records = emit_good(rig, 200)
    bad: set[tuple[str, str]] = set()
    for name, fault in (("Fill", {"quantity": SEVEN}), ("MarketCondition", {"producer": "\x00"})):
        event_type = rig.catalogue.by_record(name)
        topic = rig.catalogue.topic_name(event_type)
        first = next(record for record in records if record.topic == topic)
        values = []
        for number in range(3):
            event_id = f"11111111-1111-4111-8111-{number:012d}"
            bad.add((topic, event_id))
            poisoned = rig.plain(first) | {"event_id": event_id, **fault}
            values += [rig.frame(event_type, poisoned)] + [first.value] * (number == 1)
        rig.put(topic, [(b"v:BTCUSDT", value) for value in values])

    letters = MemoryDeadLetters("history")
    sink = rig.store(rig.sink(dead_letters=letters))

    assert {(one.record.topic, rig.plain(one.record)["event_id"]) for one in letters.letters} == bad
    assert (sink.counts["stored"], sink.counts["repeated"]) == (200, 2)


@pytest.mark.parametrize("longest_s", [LONGEST_BESIDE_OTHERS_S, pytest.param(LONGEST_S, marks=pytest.mark.long)])
def test_a_row_that_the_database_refuses_keeps_the_4999_beside_it_waiting_for_seconds_and_not_minutes(
    rig: HistoryRig, longest_s: float
) -> None:
    divide_by_quantity(rig)
    fills = rig.catalogue.by_record("Fill")
    topic = rig.catalogue.topic_name(fills)
    with rig.producer() as tape:
        for number in range(5_000):
            tape.emit(
                Fill(
                    venue="v", symbol="BTCUSDT", event_time=START + timedelta(seconds=number), venue_order_id="o",
                    venue_trade_id=str(number), side=Side.BUY, price="1.5", quantity=7 if number == 3_210 else 2,
                    amount_quote=3,
                )
            )  # fmt: skip
    batch = rig.tape(topic)
    letters = MemoryDeadLetters("history")
    sink = rig.sink(dead_letters=letters)
    sink.assigned([Partition(topic, partition) for partition in {one.partition for one in batch}])

    began = time.monotonic()
    sink.process(batch)
    took_s = time.monotonic() - began
    sink.close()

    (letter,) = letters.letters
    assert rig.fields(letter.record)["venue_trade_id"] == "3210"
    assert dict(letter.headers)["__connect.errors.exception.class.name"] == b"psycopg.errors.DivisionByZero"
    assert {row["venue_trade_id"] for row in rig.table(fills)} == {str(one) for one in range(5_000)} - {"3210"}
    assert took_s < longest_s


class Unacknowledged(MemoryDeadLetters):
    """A topic of dead letters that takes nothing, until it does."""

    def __init__(self) -> None:
        super().__init__("history")
        self.takes = False

    def flush(self) -> None:
        if self.letters and not self.takes:
            self.letters.clear()
            raise DeadLettersRefused("not acknowledged")


@pytest.mark.parametrize("what", ["a NUL in a text", "no magic byte"])
def test_a_dead_letter_that_is_not_acknowledged_holds_rows_and_offset_back(rig: HistoryRig, what: str) -> None:
    """Found while decoding or while the rows are on their way: neither may move past it."""
    records = emit_good(rig, 10)
    topic, value = records[0].topic, records[0].value
    assert value is not None
    poisoned = rig.plain(records[0]) | {"producer": "\x00"}
    bad = rig.frame(rig.catalogue.by_topic(topic), poisoned) if what == "a NUL in a text" else b"\x01" + value[1:]
    rig.put(topic, [(b"v:BTCUSDT", bad)])
    batch, letters = rig.tape(), Unacknowledged()
    sink = rig.sink(dead_letters=letters)
    sink.assigned([Partition(*place) for place in {(one.topic, one.partition) for one in batch}])

    with pytest.raises(DeadLettersRefused):
        sink.process(batch)
    assert rig.places_in_history() == {}
    assert {row["next_offset"] for row in rig.rows("SELECT next_offset FROM tradetape.sink_offsets")} == {None}

    letters.takes = True
    sink.process(batch)
    sink.close()
    assert len(letters.letters) == 1
    assert len(rig.places_in_history()) == 10
    assert rig.has_come_to(rig.ends())


def test_a_month_that_was_dropped_is_made_again_for_a_late_event(rig: HistoryRig) -> None:
    """Retention drops a month while the sink runs; an event of that month is late, not unstorable."""
    emit_good(rig, 4)
    letters = MemoryDeadLetters("history")
    sink = rig.sink(dead_letters=letters)
    rig.store(sink)
    with psycopg.connect(rig.dsn) as connection:
        connection.execute("DROP TABLE tradetape.market_conditions_y2025m06")
    with rig.producer() as tape:
        tape.emit(MarketCondition(venue="v", symbol="LATEUSDT", scope="s", condition="c", event_time=START))

    rig.store(sink)

    assert letters.letters == []
    assert [row["symbol"] for row in rig.rows("SELECT symbol FROM tradetape.market_conditions")] == ["LATEUSDT"]


def rubbish(rng: random.Random, good: bytes) -> dict[str, bytes]:
    """What can be wrong with a record's bytes, by the reason that its dead letter has to give."""
    return {
        "bad_magic": b"\x01" + good[1:],
        "unknown_schema_id": good[:1] + b"\x00\x00\x00\x07" + good[5:],
        "truncated": good[: rng.randrange(5, len(good))],
        "trailing_bytes": good + rng.randbytes(rng.randrange(1, 9)),
        "random": b"\xff" + rng.randbytes(rng.randrange(1, 200)),
        "empty": b"",
    }


def test_one_percent_of_rubbish_costs_nothing_else(rig: HistoryRig) -> None:
    rng = random.Random(20250601)
    records = emit_good(rig, 3_000)
    given: dict[str, list[tuple[bytes | None, bytes | None]]] = {}
    for _ in range(5):
        for record in rng.sample(records, 1):
            assert record.value is not None
            for value in rubbish(rng, record.value).values():
                given.setdefault(record.topic, []).append((f"v:{rng.choice(SYMBOLS)}".encode(), value))
    for topic, values in given.items():
        rig.put(topic, values)
    emit_good(rig, 1_000, offset=10_000)
    tape = {Place(one.topic, one.partition, one.offset): one for one in rig.tape()}
    bad = {value for values in given.values() for _, value in values}
    wrong = {place for place, one in tape.items() if one.value in bad}
    assert len(wrong) == 30

    sink = rig.store(rig.sink(dead_letters=rig.kafka_dead_letters()))

    assert set(rig.places_in_history()) == set(tape) - wrong
    assert rig.places_of_dead_letters() == dict.fromkeys(wrong, 1)
    assert sink.counts == {"stored": 4_000, "repeated": 0, "skipped": 0}


def test_a_dead_letter_is_the_record_itself_with_what_was_wrong(rig: HistoryRig) -> None:
    records = emit_good(rig, 2)
    rng = random.Random(7)
    topic, good = records[0].topic, records[0].value
    assert good is not None
    values = rubbish(rng, good)
    rig.put(topic, [(b"v:BTCUSDT", value) for value in values.values()])
    rig.store(rig.sink(dead_letters=rig.kafka_dead_letters()))

    found = {one.value: dict(one.headers) for one in rig.tape(rig.catalogue.dead_letters_topic)}
    assert set(found) == set(values.values())
    for reason, value in values.items():
        headers = found[value]
        assert headers["x-reason"] == ("bad_magic" if reason == "random" else reason).encode()
        assert headers["__connect.errors.topic"] == topic.encode()
        assert headers["__connect.errors.exception.message"]


def test_a_record_without_a_value_is_a_dead_letter(rig: HistoryRig) -> None:
    emit_good(rig, 2)
    rig.put(rig.topics()[0], [(b"v:BTCUSDT", None)])
    letters = MemoryDeadLetters()
    sink = rig.store(rig.sink(dead_letters=letters))
    assert [letter.reason for letter in letters.letters] == ["empty"]
    assert sink.counts["stored"] == 2
