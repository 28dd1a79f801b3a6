"""What trading code gives becomes an event of the tape, or is refused with record, field, value and rule."""

from __future__ import annotations

import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import pytest

from tradetape.schemas import (
    CATALOGUE,
    Candle,
    CatalogueError,
    Codec,
    Delivery,
    Event,
    EventError,
    EventType,
    Fill,
    IndicatorUpdate,
    Leg,
    MarketCondition,
    RunMode,
    SignalDecision,
    TakeProfit,
    Trade,
    TradeClosed,
    TradeDispatch,
    TradeSignal,
    avro_schema,
)
from tradetape.schemas.event_classes import COMMON_FIELDS
from tradetape.schemas.stamping import Stamped, Stamper

NOW = datetime(2025, 5, 4, 15, 34, 0, 412_000, tzinfo=UTC)
OPEN = datetime(2025, 5, 4, 15, 33, tzinfo=UTC)
CLOSE = datetime(2025, 5, 4, 15, 34, tzinfo=UTC)
NOW_US, CLOSE_US = 1_746_372_840_412_000, 1_746_372_840_000_000
MARKET = {"venue": "binance", "symbol": "BTCUSDT"}
NAIVE = CLOSE.replace(tzinfo=None)

GIVEN: dict[type[Event], dict[str, Any]] = {
    Candle: {
        "timeframe": "1m", "open_time": OPEN, "close_time": CLOSE, "open": "2", "high": "3", "low": "1", "close": "2",
        "volume": "5", "is_final": True,
    },
    IndicatorUpdate: {"timeframe": "1m", "bar_close_time": CLOSE, "values": {"rsi_14": 28.5}},
    MarketCondition: {"event_time": CLOSE, "scope": "btc", "condition": "bullish"},
    TradeSignal: {
        "strategy_id": "dip", "timeframe": "1m", "bar_close_time": CLOSE, "action": "ENTER", "direction": "LONG",
    },
    SignalDecision: {"event_time": CLOSE, "signal_id": "s1", "stage": "risk", "outcome": "PASSED"},
    Trade: {
        "event_time": CLOSE, "signal_id": "s1", "strategy_id": "dip", "action": "ENTER", "direction": "LONG",
        "approved_at": NOW, "approved_by": "policy", "idempotency_key": "k1",
    },
    TradeDispatch: {
        "event_time": NOW, "trade_id": "t1", "leg_index": 0, "attempt": 1, "outcome": "INTENDED", "executor": "paper",
    },
    Fill: {
        "event_time": NOW, "venue_order_id": "o1", "venue_trade_id": "v1", "side": "BUY", "price": "2", "quantity": "1",
        "amount_quote": "2",
    },
    TradeClosed: {
        "trade_id": "t1", "strategy_id": "dip", "direction": "LONG", "closed_at": NOW, "quantity": "1",
        "entry_cost_quote": "2", "exit_value_quote": "3", "fees_quote": "0.1", "pnl_quote": "0.9", "legs_filled": 1,
        "legs_max": 1, "close_status": "COMPLETED",
    },
}  # fmt: skip
CODEC = Codec(CATALOGUE)
BARS: tuple[type[Event], ...] = (Candle, IndicatorUpdate, TradeSignal)


def made(of: type[Event], **changes: Any) -> Event:
    return of(**{**MARKET, **GIVEN[of], **changes})


def stamper(clock: Callable[[], int] = lambda: NOW_US, run_mode: RunMode = RunMode.PAPER) -> Stamper:
    return Stamper(codec=CODEC, source="rsi-bot", run_mode=run_mode, run_id="run-1", clock=clock)


def plain_of(given: Event) -> dict[str, Any]:
    """The plain fields of an event as they are on the tape."""
    event_type, _, payload, _ = stamper().stamp(given)
    return CODEC.decode_fields(CATALOGUE.topic_name(event_type), payload)


def stamped(of: type[Event], **changes: Any) -> Any:
    return stamper().stamp(made(of, **changes))[1]


def number_of(stamped: Stamped) -> int | None:
    """The producer_seq, which the event and its bytes have."""
    event_type, event, payload, _ = stamped
    assert CODEC.decode(CATALOGUE.topic_name(event_type), payload) == event
    return event.producer_seq


def refusal(of: type[Event], **changes: Any) -> EventError:
    with pytest.raises(EventError) as refused:
        stamped(of, **changes)
    error = refused.value
    assert error.record == of.__name__
    assert str(error).startswith(f"{of.__name__}.{error.field} = ")
    assert str(error).endswith(f": {error.rule}")
    return error


# -- what the producer stamps ------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", GIVEN)
def test_every_event_says_who_sent_it_when_and_as_which_of_its_run(of: type[Event]) -> None:
    event = stamped(of)
    assert (event.producer, event.producer_run_id, event.producer_seq) == ("rsi-bot", "run-1", 1)
    assert (event.emitted_at, event.run_mode) == (NOW, RunMode.PAPER)
    assert uuid.UUID(event.event_id).version == 5


@pytest.mark.parametrize("of", GIVEN)
def test_what_goes_onto_the_tape_is_the_event_in_another_form(of: type[Event]) -> None:
    event_type, event, payload, emitted_at_us = stamper().stamp(made(of))
    plain = CODEC.decode_fields(CATALOGUE.topic_name(event_type), payload)
    assert emitted_at_us == plain["emitted_at"] == NOW_US
    restored = {plan.name: plan.converter.restore(plain[plan.name]) for plan in event_type.plans}
    assert event == event_type.event_class(**restored)
    assert payload == CODEC.encode(event_type, plain)
    assert event_type.derive_id is not None
    assert event_type.derive_id(plain) == plain["event_id"]


def test_a_number_is_taken_only_when_the_event_is_handed_over() -> None:
    one = stamper()
    numbers = []
    for handed_over in (True, False, False, True, True):
        numbers.append(number_of(one.stamp(made(Candle))))
        if handed_over:
            one.keep()
    assert numbers == [1, 2, 2, 2, 3]


def test_a_refused_event_takes_no_number() -> None:
    one = stamper()
    with pytest.raises(EventError):
        one.stamp(made(Candle, close="99"))
    assert number_of(one.stamp(made(Candle))) == 1


def test_those_ahead_of_an_event_have_the_numbers_before_its_own() -> None:
    one = stamper()
    assert [number_of(one.stamp(made(Candle), ahead=ahead)) for ahead in range(3)] == [1, 2, 3]


def test_each_run_has_an_id_of_its_own() -> None:
    runs = {Stamper(codec=CODEC, source="s", run_mode=RunMode.LIVE).run_id for _ in range(3)}
    assert len({uuid.UUID(run) for run in runs}) == 3


def test_a_derived_event_keeps_the_run_mode_of_its_cause() -> None:
    assert stamped(MarketCondition, run_mode=RunMode.REPLAY).run_mode is RunMode.REPLAY


def test_a_run_mode_may_be_given_as_text() -> None:
    assert stamped(MarketCondition, run_mode="LIVE").run_mode is RunMode.LIVE
    assert plain_of(made(MarketCondition, run_mode="LIVE"))["run_mode"] == "LIVE"


def test_what_the_user_claims_to_have_stamped_is_stamped_anew() -> None:
    claims = {
        "producer": "someone",
        "producer_run_id": "run-0",
        "producer_seq": 77,
        "emitted_at": CLOSE,
        "event_id": "mine",
    }
    event, plain = stamped(Candle, **claims), plain_of(made(Candle, **claims))
    assert (event.producer, event.producer_run_id, event.producer_seq, event.emitted_at) == ("rsi-bot", "run-1", 1, NOW)
    assert (plain["producer"], plain["producer_run_id"], plain["producer_seq"], plain["emitted_at"]) == (
        "rsi-bot",
        "run-1",
        1,
        NOW_US,
    )
    assert uuid.UUID(event.event_id).version == 5
    assert plain["event_id"] == event.event_id


# -- chains ------------------------------------------------------------------------------------------------------


def test_a_signal_begins_a_chain_that_what_follows_from_it_belongs_to() -> None:
    signal = stamped(TradeSignal)
    assert signal.correlation_id == signal.signal_id == signal.event_id
    decision = stamped(SignalDecision, signal_id=signal.signal_id, causation_id=signal.event_id)
    assert (decision.correlation_id, decision.causation_id) == (signal.event_id, signal.event_id)
    trade = stamped(Trade, signal_id=signal.signal_id)
    assert trade.correlation_id == signal.event_id
    assert trade.trade_id == trade.event_id != signal.event_id


def test_a_user_may_name_the_chain() -> None:
    assert stamped(TradeDispatch, correlation_id="chain-7").correlation_id == "chain-7"


def test_an_event_on_its_own_is_its_own_chain() -> None:
    event = stamped(Candle)
    assert event.correlation_id == event.event_id
    assert event.causation_id is None


@pytest.mark.parametrize(("of", "own_id"), [(TradeSignal, "signal_id"), (Trade, "trade_id"), (Fill, "fill_id")])
def test_an_own_id_is_the_event_id_and_no_other(of: type[Event], own_id: str) -> None:
    event_id = stamped(of).event_id
    assert getattr(stamped(of, **{own_id: event_id}), own_id) == event_id
    error = refusal(of, **{own_id: "mine"})
    assert (error.field, error.value) == (own_id, "mine")
    assert error.rule == f"must be left out: it is the event_id, {event_id}"


@pytest.fixture
def notes() -> EventType:
    """An event type that has no natural key."""
    common = [field for field in avro_schema.load("Candle")["fields"] if field["name"] in COMMON_FIELDS]
    schema = {"type": "record", "name": "Note", "namespace": "tradetape.events", "doc": "A note.", "fields": common}
    return EventType(record="Note", topic="notes", table="notes", delivery=Delivery.DECISION, schema=schema)


def note(notes: EventType, **given: Any) -> Event:
    event_class: Any = notes.event_class
    codec = Codec(CATALOGUE.with_event(notes))
    one = Stamper(codec=codec, source="s", run_mode=RunMode.LIVE, clock=lambda: NOW_US)
    return one.stamp(event_class(**MARKET, event_time=CLOSE, **given))[1]


def test_an_event_without_a_natural_key_is_new_each_time_unless_it_brings_its_id(notes: EventType) -> None:
    first, second = note(notes), note(notes)
    assert first.event_id != second.event_id
    assert uuid.UUID(first.event_id).version == 7
    assert note(notes, event_id=first.event_id).event_id == first.event_id


def test_an_id_of_ones_own_must_be_a_uuid(notes: EventType) -> None:
    with pytest.raises(EventError, match=r"Note\.event_id = 'mine': must be a UUID, or be left out"):
        note(notes, event_id="mine")


def test_a_field_of_ones_own_may_be_called_as_a_word_of_python(notes: EventType) -> None:
    own = {"name": "class", "type": "string", "doc": "What kind of note it is."}
    schema = {**notes.schema, "name": "Remark", "fields": [*notes.schema["fields"], own]}
    remarks = EventType(record="Remark", topic="remarks", table="remarks", delivery=Delivery.DECISION, schema=schema)
    assert getattr(note(remarks, **{"class": "urgent"}), "class") == "urgent"
    with pytest.raises(EventError, match=r"Remark\.class = 5: must be text, not int"):
        note(remarks, **{"class": 5})


# -- event_time --------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("of", BARS)
def test_an_event_of_a_finished_bar_is_true_at_its_close(of: type[Event]) -> None:
    assert stamped(of).event_time == CLOSE
    assert stamped(of, event_time=CLOSE).event_time == CLOSE
    error = refusal(of, event_time=NOW)
    assert (error.field, error.value) == ("event_time", NOW)
    assert "must equal" in error.rule


def test_a_closed_trade_is_true_when_it_closed() -> None:
    assert stamped(TradeClosed).event_time == NOW
    assert refusal(TradeClosed, event_time=CLOSE).rule == "must equal closed_at or be left out"


@pytest.mark.parametrize(
    ("of", "change"),
    [
        (Candle, {"is_final": False}),
        (IndicatorUpdate, {"is_final": False}),
        (TradeSignal, {"bar_close_time": None}),
        (MarketCondition, {"event_time": None}),
        (Fill, {"event_time": None}),
    ],
)
def test_event_time_must_be_given_where_no_finished_bar_says_it(of: type[Event], change: dict[str, Any]) -> None:
    error = refusal(of, **change)
    assert (error.field, error.value) == ("event_time", None)
    assert error.rule.startswith("must be given")


def test_an_event_may_be_received_before_it_happened() -> None:
    assert stamped(MarketCondition, event_time=NOW + timedelta(milliseconds=76)).emitted_at == NOW


def test_an_event_time_may_lie_a_day_ahead_and_no_further() -> None:
    day = timedelta(days=1)
    assert stamped(MarketCondition, event_time=NOW + day).event_time == NOW + day
    error = refusal(MarketCondition, event_time=NOW + day + timedelta(microseconds=1))
    assert error.field == "event_time"
    assert error.rule == "must not be after 2025-05-05T15:34:00.412000Z (a day ahead of this clock)"


def test_milliseconds_taken_for_microseconds_are_recognised() -> None:
    wrong = datetime(1970, 1, 1, tzinfo=UTC) + timedelta(microseconds=1_746_372_840_000)
    error = refusal(MarketCondition, event_time=wrong)
    assert (error.field, error.value) == ("event_time", wrong)
    assert error.rule == "must not be before 2009-01-03; it looks like milliseconds taken for microseconds"


@pytest.mark.parametrize("of", [MarketCondition, SignalDecision, Trade, TradeDispatch, Fill])
def test_a_naive_event_time_is_refused(of: type[Event]) -> None:
    error = refusal(of, event_time=NAIVE)
    assert (error.field, error.value) == ("event_time", NAIVE)
    assert error.rule == "must be an aware datetime: give it a tzinfo, such as datetime.now(UTC)"


@pytest.mark.parametrize(("of", "field"), [(Candle, "open_time"), (Trade, "approved_at"), (TradeClosed, "opened_at")])
def test_a_naive_time_of_any_field_is_refused(of: type[Event], field: str) -> None:
    assert refusal(of, **{field: NAIVE}).field == field


def test_times_of_other_zones_are_the_same_instants() -> None:
    from zoneinfo import ZoneInfo

    event = stamped(MarketCondition, event_time=CLOSE.astimezone(ZoneInfo("Asia/Kathmandu")))
    assert event.event_time == CLOSE
    assert event.event_time.tzinfo is UTC
    assert event.event_id == stamped(MarketCondition).event_id


# -- values ------------------------------------------------------------------------------------------------------


def test_prices_may_be_given_as_decimal_int_text_or_float() -> None:
    event = stamped(Candle, open=Decimal("0.30"), high=1, low="0.1", close=0.3, volume=1e-8)
    assert (event.open, event.high, event.low, event.close, event.volume) == tuple(
        map(Decimal, ("0.3", "1", "0.1", "0.3", "0.00000001"))
    )


@pytest.mark.parametrize(
    ("of", "change", "field", "rule"),
    [
        (Candle, {"high": "1E+20"}, "high", "has more than 20 digits before the point"),
        (Candle, {"volume": float("nan")}, "volume", "must be finite"),
        (Candle, {"close": "Infinity"}, "close", "must be finite"),
        (Candle, {"close": 0.00031099999999999997}, "close", "has more than 18 digits after the point; round it"),
        (Candle, {"close": None}, "close", "must be a Decimal, int, str or float, not NoneType"),
        (Candle, {"trade_count": 1.9}, "trade_count", "must be an int, not float"),
        (Candle, {"trade_count": 2**63}, "trade_count", "must fit 64 bits"),
        (Candle, {"is_final": "no"}, "is_final", "must be True or False, not str"),
        (Candle, {"is_final": 1}, "is_final", "must be True or False, not int"),
        (Candle, {"symbol": "BTC_ETH"}, "symbol", "does not say which side is the quote currency"),
        (Candle, {"symbol": None}, "symbol", "must be text, not NoneType"),
        (Candle, {"venue": "Binance USDM"}, "venue", "must be 1 to 32 of a-z"),
        (Candle, {"timeframe": "1y"}, "timeframe", "must be a number and one of s, m, h, d, w, mo"),
        (Candle, {"source": "a\x00b"}, "source", "must not hold the character NUL"),
        (Candle, {"source": "\ud800"}, "source", "must be text that UTF-8 can hold"),
        (Candle, {"run_mode": "PAPERR"}, "run_mode", "must be one of UNKNOWN, LIVE, PAPER, BACKTEST, REPLAY"),
        (Candle, {"correlation_id": 5}, "correlation_id", "must be text, not int"),
        (Candle, {"correlation_id": "a\x00b"}, "correlation_id", "must not hold the character NUL"),
        (Candle, {"causation_id": 5}, "causation_id", "must be text, not int"),
        (Candle, {"tags": ["a"]}, "tags", "must be a dict, not list"),
        (Candle, {"tags": {"a": 1}}, "tags.a", "must be text, not int"),
        (Candle, {"tags": {1: "a"}}, "tags.key", "must be text, not int"),
        (TradeSignal, {"action": "BUY"}, "action", "must be one of UNKNOWN, ENTER, ADD, REDUCE, EXIT, CANCEL"),
        (TradeSignal, {"score": float("inf")}, "score", "must be finite"),
        (TradeSignal, {"score": "0.5"}, "score", "must be a float, not str"),
        (TradeSignal, {"score": True}, "score", "must be a float, not bool"),
        (TradeSignal, {"reasons": "because"}, "reasons", "must be a list, not str"),
        (TradeSignal, {"reasons": ["a", 1]}, "reasons.1", "must be text, not int"),
        (TradeSignal, {"score_components": {"a": float("nan")}}, "score_components.a", "must be finite"),
        (TradeSignal, {"take_profits": [{"price": "1"}]}, "take_profits.0", "must be a TakeProfit"),
        (
            TradeSignal,
            {"take_profits": [TakeProfit(price="1E+20", close_ratio=0.5)]},
            "take_profits.0.price",
            "has more than 20 digits before the point",
        ),
        (TradeSignal, {"legs": [Leg(leg_index=2**31)]}, "legs.0.leg_index", "must fit 32 bits"),
        (TradeSignal, {"confidence": 1.01}, "confidence", "must be a probability between 0 and 1"),
        (TradeSignal, {"reference_price": 0}, "reference_price", "must be None when unknown, never 0"),
        (Fill, {"fee": "free"}, "fee", "must be a decimal number"),
        (TradeDispatch, {"attempt": 2**31}, "attempt", "must fit 32 bits"),
    ],
)
def test_a_wrong_value_is_refused_with_field_value_and_rule(
    of: type[Event], change: dict[str, Any], field: str, rule: str
) -> None:
    error = refusal(of, **change)
    assert error.field == field
    assert error.rule.startswith(rule)
    if "." not in field:
        assert error.value is change[field] or error.value == change[field]


def test_the_message_names_record_field_value_and_rule() -> None:
    assert str(refusal(Candle, high="1E+20")) == "Candle.high = '1E+20': has more than 20 digits before the point"


def test_a_message_shows_a_long_value_cut() -> None:
    assert len(str(refusal(TradeSignal, action="x" * 100_000))) < 300


@pytest.mark.parametrize(("field", "given", "becomes"), [
    ("symbol", "btc/usdt", "BTCUSDT"), ("venue", "Binance", "binance"), ("timeframe", "60s", "1m"),
])  # fmt: skip
def test_names_are_brought_to_one_spelling(field: str, given: str, becomes: str) -> None:
    assert getattr(stamped(Candle, **{field: given}), field) == becomes


def test_60m_is_1h() -> None:
    event = stamped(Candle, timeframe="60m", close_time=OPEN + timedelta(hours=1))
    assert event.timeframe == "1h"


def test_only_events_of_the_catalogue_are_stamped() -> None:
    class Rumour(Event, frozen=True, kw_only=True):
        """Not on the tape."""

    rumour: Any = Rumour
    with pytest.raises(CatalogueError, match="Rumour is not an event of this catalogue"):
        stamper().stamp(rumour(**MARKET))


# -- bars --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "field", "rule"),
    [
        ({"close": "4"}, "close", "must lie between low 1 and high 3"),
        ({"open": "0.5"}, "open", "must lie between low 1 and high 3"),
        ({"low": "4"}, "open", "must lie between low 4 and high 3"),
        ({"volume": "-1"}, "volume", "must not be negative"),
        ({"close_time": CLOSE - timedelta(milliseconds=1)}, "close_time", "must be open_time + 1m"),
        ({"close_time": OPEN}, "close_time", "must be open_time + 1m"),
        ({"timeframe": "5m"}, "close_time", "must be open_time + 5m"),
        ({"timeframe": "1mo", "close_time": OPEN}, "close_time", "must be open_time + 1mo"),
    ],
)
def test_a_bar_that_cannot_be_is_refused(change: dict[str, Any], field: str, rule: str) -> None:
    error = refusal(Candle, **change)
    assert error.field == field
    assert error.rule.startswith(rule)


@pytest.mark.parametrize("days", [28, 29, 30, 31])
def test_a_month_is_as_long_as_it_is(days: int) -> None:
    opened = datetime(2025, 3, 1, tzinfo=UTC)
    assert stamped(Candle, timeframe="1M", open_time=opened, close_time=opened + timedelta(days)).timeframe == "1mo"


def test_a_bar_without_trades_is_a_bar() -> None:
    event = stamped(Candle, open="2", high="2", low="2", close="2", volume="0", trade_count=0)
    assert (event.volume, event.trade_count, event.quote_volume) == (0, 0, None)


# -- indicators --------------------------------------------------------------------------------------------------


def test_a_value_that_is_no_number_yet_is_named_and_left_out() -> None:
    values = {"EMA50": 95.5, "EMA200": float("nan"), "rsi_14": None, "MACD": float("-inf"), "qqe": 0.0}
    event = stamped(IndicatorUpdate, values=values, invalid=["ADX14"])
    assert event.values == {"ema_50": 95.5, "qqe": 0.0}
    assert list(event.invalid) == ["adx_14", "ema_200", "macd", "rsi_14"]


def test_one_indicator_under_two_names_is_one_value() -> None:
    assert stamped(IndicatorUpdate, values={"MACD_diff": 1.5, "MACD_Histogram": 1.5}).values == {"macd_hist": 1.5}


def test_one_indicator_with_two_values_is_refused() -> None:
    error = refusal(IndicatorUpdate, values={"MACD_diff": 1.5, "MACD_Histogram": 1.6})
    assert (error.field, error.value) == ("values.MACD_Histogram", 1.6)
    assert error.rule == "is macd_hist, which is already given as 1.5"


@pytest.mark.parametrize(
    ("change", "field"),
    [
        ({"values": {"RSI 14": 1.0}}, "values.RSI 14"),
        ({"values": {7: 1.0}}, "values"),
        ({"values": [1.0]}, "values"),
        ({"values": {"rsi_14": "28.5"}}, "values.rsi_14"),
        ({"invalid": ["RSI 14"]}, "invalid.RSI 14"),
    ],
)
def test_indicators_that_are_not_names_and_numbers_are_refused(change: dict[str, Any], field: str) -> None:
    assert refusal(IndicatorUpdate, **change).field == field


def test_a_signals_indicators_have_the_same_names() -> None:
    assert stamped(TradeSignal, indicators={"RSI14": 28.5}).indicators == {"rsi_14": 28.5}


def test_the_users_own_dicts_are_left_as_they_were() -> None:
    values = {"EMA50": float("nan")}
    stamped(IndicatorUpdate, values=values)
    assert list(values) == ["EMA50"]
