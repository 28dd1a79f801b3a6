"""Events come back from bytes as they were, and bytes that are no event of their topic are refused with a reason."""

from __future__ import annotations

import json
import uuid
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from io import BytesIO
from pathlib import Path
from typing import Any

import fastavro
import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tradetape.schemas
from tradetape.schemas import (
    CATALOGUE,
    Action,
    Candle,
    Codec,
    DecodeError,
    Direction,
    Event,
    EventError,
    Fill,
    Leg,
    Liquidity,
    OrderType,
    RunMode,
    Side,
    TakeProfit,
    TradeSignal,
    TrailingStop,
    avro_schema,
)
from tradetape.schemas import codec as codec_module
from tradetape.schemas.catalogue import MAX_EVENT_BYTES
from tradetape.schemas.errors import NotRegistered
from tradetape.schemas.event_classes import RECORDS
from tradetape.schemas.stamping import Stamper

GOLDEN = Path(tradetape.schemas.__path__[0]) / "released" / "golden"
NOW = datetime(2025, 5, 5, tzinfo=UTC)
NOW_US = 1_746_403_200_000_000
CODEC = Codec(CATALOGUE)
Schema = dict[str, Any]


def golden(record: str) -> bytes:
    return (GOLDEN / f"{record}.v1.bin").read_bytes()


def sample(record: str) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((GOLDEN / f"{record}.v1.json").read_text())
    return loaded


def topic(record: str) -> str:
    return CATALOGUE.topic_name(CATALOGUE.by_record(record))


def refused(payload: bytes | None, record: str = "Candle") -> str:
    with pytest.raises(DecodeError) as error:
        CODEC.decode(topic(record), payload)
    assert str(error.value) == f"{error.value.reason}: {error.value.detail}"
    return error.value.reason


def through(event: Event) -> tuple[Event, Event]:
    """The event as stamped and as a reader gets it."""
    stamper = Stamper(codec=CODEC, source="bot", run_mode=RunMode.PAPER, clock=lambda: NOW_US)
    event_type, stamped, payload, _ = stamper.stamp(event)
    return stamped, CODEC.decode(CATALOGUE.topic_name(event_type), payload)


# -- what comes back ---------------------------------------------------------------------------------------------


def as_said(value: Any) -> Any:
    """A typed value as a sample writes it."""
    if isinstance(value, datetime):
        assert value.tzinfo is UTC
        return value
    if isinstance(value, msgspec.Struct):
        return {name: as_said(item) for name, item in msgspec.structs.asdict(value).items()}
    if isinstance(value, tuple):
        return [as_said(item) for item in value]
    return {name: as_said(item) for name, item in value.items()} if isinstance(value, dict) else value


def typed_like(said: Any, found: Any) -> Any:
    """What a sample says, in the type of what was found."""
    if isinstance(found, datetime):
        return datetime.fromisoformat(said)
    if isinstance(found, Decimal):
        return Decimal(said)
    if isinstance(found, dict):
        assert found.keys() == said.keys()
        return {name: typed_like(said[name], item) for name, item in found.items()}
    if isinstance(found, list):
        return [typed_like(one, item) for one, item in zip(said, found, strict=True)]
    return said


@pytest.mark.parametrize("record", RECORDS)
def test_a_golden_event_is_read_as_its_class_with_what_its_sample_says(record: str) -> None:
    event = CODEC.decode(topic(record), golden(record))
    assert type(event) is CATALOGUE.by_record(record).event_class
    found = as_said(event)
    assert found == typed_like(sample(record), found)


@pytest.mark.parametrize("record", RECORDS)
def test_a_golden_event_is_written_with_the_very_same_bytes(record: str) -> None:
    plain = CODEC.decode_fields(topic(record), golden(record))
    assert CODEC.encode(CATALOGUE.by_record(record), plain) == golden(record)


def test_plain_fields_are_what_sinks_take_without_a_detour() -> None:
    plain = CODEC.decode_fields(topic("Candle"), golden("Candle"))
    assert plain["open_time"] == 1_746_372_780_000_000
    assert plain["close"] == (95_502_7 * 10**17).to_bytes(10, "big")
    assert plain["run_mode"] == "PAPER"


def decimals(places: int = 18) -> st.SearchStrategy[Decimal]:
    return st.integers(1, 10**30).map(lambda unscaled: Decimal((0, tuple(map(int, str(unscaled))), -places)))


TEXT = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=30)
RATIO = st.floats(0, 1)
TIME = st.integers(1_300_000_000_000_000, NOW_US).map(lambda us: datetime(1970, 1, 1, tzinfo=UTC) + timedelta(0, 0, us))


@st.composite
def candles(draw: st.DrawFn) -> Candle:
    low, middle, high = sorted(draw(st.lists(decimals(), min_size=3, max_size=3)))
    opened = draw(TIME)
    return Candle(
        venue="binance", symbol="BTCUSDT", timeframe="1m", open_time=opened, close_time=opened + timedelta(minutes=1),
        open=low, high=high, low=low, close=middle, volume=draw(decimals()), quote_volume=draw(st.none() | decimals()),
        trade_count=draw(st.none() | st.integers(0, 2**63 - 1)), is_final=True, source=draw(st.none() | TEXT),
        tags=draw(st.dictionaries(TEXT, TEXT, max_size=3)),
    )  # fmt: skip


@given(candles())
def test_every_candle_comes_back_as_it_was_stamped(candle: Candle) -> None:
    stamped, read = through(candle)
    assert read == stamped
    assert (candle.close, candle.open_time, candle.tags) == (read.close, read.open_time, read.tags)  # type: ignore[attr-defined]


@st.composite
def signals(draw: st.DrawFn) -> TradeSignal:
    profits = st.builds(TakeProfit, price=decimals(), close_ratio=RATIO)
    legs = st.builds(
        Leg, leg_index=st.integers(0, 9), trigger_price=st.none() | decimals(), deviation_ratio=st.none() | RATIO
    )
    return TradeSignal(
        venue="binance", symbol="BTCUSDT", event_time=draw(TIME), strategy_id=draw(TEXT), timeframe="1h",
        action=draw(st.sampled_from(Action)), direction=draw(st.sampled_from(Direction)),
        order_type=draw(st.sampled_from(OrderType)), confidence=draw(st.none() | RATIO),
        score=draw(st.none() | st.floats(allow_nan=False, allow_infinity=False)),
        reference_price=draw(st.none() | decimals()), take_profits=draw(st.lists(profits, max_size=3)),
        trailing_stop=draw(st.none() | st.builds(TrailingStop, activation_price=decimals(), delta_ratio=RATIO)),
        legs=draw(st.lists(legs, max_size=3)), reasons=draw(st.lists(TEXT, max_size=3)),
        indicators=draw(st.dictionaries(st.from_regex(r"[a-z][a-z0-9_]{0,9}", fullmatch=True), RATIO, max_size=3)),
    )  # fmt: skip


@given(signals())
def test_every_signal_comes_back_with_its_nested_parts(signal: TradeSignal) -> None:
    stamped, read = through(signal)
    assert read == stamped
    assert isinstance(read, TradeSignal)
    assert (read.action, list(read.legs), read.trailing_stop) == (
        signal.action,
        list(signal.legs),
        signal.trailing_stop,
    )


@given(price=decimals(), fee=st.none() | decimals(), side=st.sampled_from(Side), liquidity=st.sampled_from(Liquidity))
def test_every_fill_comes_back_to_the_last_digit(
    price: Decimal, fee: Decimal | None, side: Side, liquidity: Liquidity
) -> None:
    fill = Fill(
        venue="binance", symbol="BTCUSDT", event_time=NOW, venue_order_id="1", venue_trade_id="2", side=side, price=price,
        quantity="0.000000000000000001", amount_quote=price, fee=fee, liquidity=liquidity,
    )  # fmt: skip
    stamped, read = through(fill)
    assert read == stamped
    assert isinstance(read, Fill)
    assert (read.price, read.quantity, read.fee) == (price, Decimal("1E-18"), fee)


# -- the frame ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("record", RECORDS)
def test_the_frame_is_a_zero_byte_and_the_schemas_id_big_endian(record: str) -> None:
    payload = golden(record)
    event_type = CATALOGUE.by_record(record)
    assert payload[0] == 0
    assert int.from_bytes(payload[1:5], "big") == event_type.schema_id
    assert event_type.schema_id >= 2**30


def test_no_two_records_share_an_id() -> None:
    assert len({event_type.schema_id for event_type in CATALOGUE}) == len(RECORDS)


# -- what is refused ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("nothing", [None, b""])
def test_a_record_without_a_value_is_refused(nothing: bytes | None) -> None:
    assert refused(nothing) == "empty"


@pytest.mark.parametrize("first", [1, 2, 0x7B, 0xFF])
def test_a_wrong_magic_byte_is_refused(first: int) -> None:
    assert refused(bytes([first]) + golden("Candle")[1:]) == "bad_magic"


@pytest.mark.parametrize("text", [b"{", b'{"a": 1}', b"plain text that is long enough"])
def test_what_is_not_framed_at_all_is_a_wrong_magic_byte(text: bytes) -> None:
    assert refused(text) == "bad_magic"


@pytest.mark.parametrize("schema_id", [0, 1, 2**30, 2**32 - 1])
def test_an_unknown_schema_id_is_refused(schema_id: int) -> None:
    assert refused(b"\0" + schema_id.to_bytes(4, "big") + golden("Candle")[5:]) == "unknown_schema_id"


@pytest.mark.parametrize("record", [record for record in RECORDS if record != "Candle"])
def test_a_schema_of_another_topic_is_refused_and_never_decoded(record: str) -> None:
    assert refused(golden(record)) == "foreign_schema_id"


@pytest.mark.parametrize("record", RECORDS)
def test_a_payload_that_ends_too_early_is_refused_wherever_it_ends(record: str) -> None:
    payload = golden(record)
    assert {refused(payload[:length], record) for length in range(1, len(payload))} == {"truncated"}


@pytest.mark.parametrize("record", RECORDS)
@pytest.mark.parametrize("more", [b"\0", b"rubbish", b"\0" * 1000])
def test_bytes_after_the_end_are_refused(record: str, more: bytes) -> None:
    assert refused(golden(record) + more, record) == "trailing_bytes"


def test_a_payload_larger_than_a_topic_takes_is_refused_before_it_is_decoded() -> None:
    assert refused(b"\0" * (MAX_EVENT_BYTES + 1)) == "oversized"
    assert refused(golden("Candle") + b"\0" * (MAX_EVENT_BYTES - len(golden("Candle")))) == "trailing_bytes"
    assert MAX_EVENT_BYTES == 256 * 1024


@pytest.mark.parametrize(
    ("change", "detail"),
    [
        ({"event_id": "not-a-uuid"}, "event_id is not a UUID"),
        ({"event_time": 1_746_372_780_000}, "looks like milliseconds taken for microseconds"),
        ({"event_time": 2**62}, "event_time"),
        ({"open_time": 2**62}, "Candle"),
    ],
)
def test_a_payload_that_cannot_be_true_is_refused(change: dict[str, Any], detail: str) -> None:
    plain = CODEC.decode_fields(topic("Candle"), golden("Candle")) | change
    payload = CODEC.encode(CATALOGUE.by_record("Candle"), plain)
    with pytest.raises(DecodeError, match=detail) as error:
        CODEC.decode(topic("Candle"), payload)
    assert error.value.reason == "invalid_value"


def test_an_enum_index_that_the_schema_does_not_have_is_refused() -> None:
    payload = golden("Candle")
    # The enum stands behind the producer's run, its number as one zigzag byte, and before the correlation's 36 letters.
    place = payload.index(sample("Candle")["producer_run_id"].encode()) + 36 + 1
    assert payload[place] == 2 * 2  # PAPER is the third symbol
    assert refused(payload[:place] + bytes([2 * 9]) + payload[place + 1 :]) == "invalid_value"


def test_text_that_is_not_utf_8_is_refused() -> None:
    assert refused(golden("Candle").replace(b"BTCUSDT", b"BTC\xff\xfeDT")) == "invalid_value"


@given(st.sampled_from(RECORDS), st.data())
def test_whatever_the_bytes_a_reader_gets_an_event_or_a_reason(record: str, data: st.DataObject) -> None:
    payload = bytearray(golden(record))
    for _ in range(data.draw(st.integers(1, 3))):
        payload[data.draw(st.integers(5, len(payload) - 1))] = data.draw(st.integers(0, 255))
    try:
        event = CODEC.decode(topic(record), bytes(payload))
    except DecodeError as error:
        event = None
        reason = error.reason
    if event is None:
        assert reason in {"truncated", "trailing_bytes", "invalid_value"}
    else:
        assert type(event) is CATALOGUE.by_record(record).event_class


def test_an_event_larger_than_a_topic_takes_is_refused_before_it_is_sent() -> None:
    plain = CODEC.decode_fields(topic("Candle"), golden("Candle"))
    plain["tags"] = {"note": "x" * MAX_EVENT_BYTES}
    with pytest.raises(EventError, match=f"more than the {MAX_EVENT_BYTES} that a topic takes"):
        CODEC.encode(CATALOGUE.by_record("Candle"), plain)


def test_an_unknown_topic_is_an_error_of_the_caller() -> None:
    with pytest.raises(tradetape.schemas.CatalogueError, match="no topic 'nowhere'"):
        CODEC.decode("nowhere", golden("Candle"))


# -- versions ----------------------------------------------------------------------------------------------------


def written_by(schema: Schema, plain: dict[str, Any]) -> bytes:
    """The framed bytes of an event as a program with another version of the schema writes them."""
    out = BytesIO(b"\0" + avro_schema.content_id(schema).to_bytes(4, "big"))
    out.seek(5)
    fastavro.schemaless_writer(out, fastavro.parse_schema(avro_schema.without_logical_types(schema)), plain)
    return out.getvalue()


@pytest.fixture
def other_version(monkeypatch: pytest.MonkeyPatch) -> Schema:
    """A released version of Candle that lacks a field of the head, and has a field and a symbol more."""
    schema = avro_schema.load("Candle")
    schema["fields"] = [field for field in schema["fields"] if field["name"] != "source"]
    schema["fields"].append({"name": "vwap", "type": "double", "default": 0.0, "doc": "x"})
    next(field for field in schema["fields"] if field["name"] == "run_mode")["type"]["symbols"].append("SHADOW")
    monkeypatch.setattr(codec_module, "released_schemas", lambda record: (schema,) if record == "Candle" else ())
    return schema


def test_an_event_of_another_version_is_read_with_defaults_and_unknown(other_version: Schema) -> None:
    plain = CODEC.decode_fields(topic("Candle"), golden("Candle")) | {"vwap": 1.5, "run_mode": "SHADOW"}
    event = Codec(CATALOGUE).decode(topic("Candle"), written_by(other_version, plain))
    assert isinstance(event, Candle)
    assert event.source is None
    assert event.run_mode is RunMode.UNKNOWN
    assert event.close == Decimal("95502.7")
    assert not hasattr(event, "vwap")


def test_a_version_that_was_never_released_is_unknown(other_version: Schema) -> None:
    other_version["fields"].pop()
    plain = CODEC.decode_fields(topic("Candle"), golden("Candle"))
    assert refused(written_by(other_version, plain)) == "unknown_schema_id"


def test_topics_go_by_the_catalogues_prefix() -> None:
    codec = Codec(CATALOGUE.with_prefix("desk7."))
    event = codec.decode("desk7.candles", golden("Candle"))
    assert uuid.UUID(event.event_id).version == 5
    with pytest.raises(tradetape.schemas.CatalogueError):
        codec.decode("tradetape.candles", golden("Candle"))


# -- ids of a registry -------------------------------------------------------------------------------------------


def test_with_a_registry_events_are_written_under_its_id_and_read_under_both() -> None:
    held = {CATALOGUE.subject(one): {number: one.schema} for number, one in enumerate(CATALOGUE, start=7)}
    codec = Codec(CATALOGUE, registered=held)
    for number, event_type in enumerate(CATALOGUE, start=7):
        local = golden(event_type.record)
        where = CATALOGUE.topic_name(event_type)
        plain = codec.decode_fields(where, local)
        registered = codec.encode(event_type, plain)
        assert registered == b"\0" + number.to_bytes(4, "big") + local[5:]
        assert codec.decode_fields(where, registered) == plain


def test_an_id_that_the_registry_gave_to_another_subject_is_foreign() -> None:
    held = {CATALOGUE.subject(one): {number: one.schema} for number, one in enumerate(CATALOGUE, start=7)}
    codec = Codec(CATALOGUE, registered=held)
    event_type = CATALOGUE.by_record("Fill")
    payload = codec.encode(event_type, codec.decode_fields(topic("Fill"), golden("Fill")))
    with pytest.raises(DecodeError, match="foreign_schema_id"):
        codec.decode(topic("Candle"), payload)


def test_without_its_head_in_the_registry_there_is_no_codec() -> None:
    held = {CATALOGUE.subject(one): {1: one.schema} for one in CATALOGUE if one.record != "Fill"}
    with pytest.raises(NotRegistered, match=r"tradetape\.fills-value; run `tradetape schemas push`"):
        Codec(CATALOGUE, registered=held)


def test_what_was_written_by_a_version_that_ours_cannot_read_is_refused() -> None:
    schema = json.loads(json.dumps(CATALOGUE.by_record("Fill").schema))
    venue = next(field for field in schema["fields"] if field["name"] == "venue")
    venue["type"] = "long"
    held = {CATALOGUE.subject(one): {number: one.schema} for number, one in enumerate(CATALOGUE, start=7)}
    codec = Codec(
        CATALOGUE, registered={**held, "tradetape.fills-value": {7: CATALOGUE.by_record("Fill").schema, 99: schema}}
    )
    with pytest.raises(DecodeError, match="invalid_value: SchemaResolutionError"):
        codec.decode(topic("Fill"), b"\0" + (99).to_bytes(4, "big") + golden("Fill")[5:])
