"""The catalogue says what the design says of topics, retention, delivery and keys, and refuses two of one name."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from tradetape.schemas import CATALOGUE, Candle, Catalogue, CatalogueError, Delivery, EventType, avro_schema
from tradetape.schemas.event_classes import COMMON_FIELDS, RECORDS

DAYS_30, DAYS_90, FOREVER = 2_592_000_000, 7_776_000_000, -1

# record: topic, retention in ms, delivery — the tables of the design.
DESIGN = {
    "Candle": ("tradetape.candles", DAYS_30, Delivery.MARKET),
    "IndicatorUpdate": ("tradetape.indicator-updates", DAYS_30, Delivery.MARKET),
    "MarketCondition": ("tradetape.market-conditions", DAYS_90, Delivery.MARKET),
    "TradeSignal": ("tradetape.trade-signals", FOREVER, Delivery.DECISION),
    "SignalDecision": ("tradetape.signal-decisions", FOREVER, Delivery.DECISION),
    "Trade": ("tradetape.trades", FOREVER, Delivery.DECISION),
    "TradeDispatch": ("tradetape.trade-dispatches", FOREVER, Delivery.DECISION),
    "Fill": ("tradetape.fills", FOREVER, Delivery.DECISION),
    "TradeClosed": ("tradetape.trades-closed", FOREVER, Delivery.DECISION),
}
SERIES = {
    "Candle": {"venue", "symbol", "timeframe", "is_final"},
    "IndicatorUpdate": {"venue", "symbol", "timeframe", "is_final", "indicator_set"},
    "MarketCondition": {"scope", "venue", "symbol"},
    "TradeSignal": {"venue", "symbol", "strategy_id"},
}


def quote(**changes: Any) -> EventType:
    """An event type that a user adds."""
    common = [field for field in avro_schema.load("Candle")["fields"] if field["name"] in COMMON_FIELDS]
    schema = {
        "type": "record", "name": "Quote", "namespace": "tradetape.events", "doc": "Best prices.",
        "fields": [*common, {"name": "bid", "type": "double", "doc": "Best bid in quote currency."}],
    }  # fmt: skip
    given: dict[str, Any] = {
        "record": "Quote", "topic": "quotes", "table": "quotes", "delivery": Delivery.MARKET, "schema": schema,
        "natural_key": ("venue", "symbol", "event_time"),
    }  # fmt: skip
    return EventType(**{**given, **changes})


@pytest.mark.parametrize("record", RECORDS)
def test_each_record_has_the_topic_retention_and_delivery_of_the_design(record: str) -> None:
    event_type = CATALOGUE.by_record(record)
    assert (CATALOGUE.topic_name(event_type), event_type.retention_ms, event_type.delivery) == DESIGN[record]


@pytest.mark.parametrize("record", RECORDS)
def test_each_record_has_the_series_key_of_the_design(record: str) -> None:
    assert set(CATALOGUE.by_record(record).series_key) == SERIES.get(record, set())


@pytest.mark.parametrize("record", RECORDS)
def test_keys_name_fields_of_the_record(record: str) -> None:
    event_type = CATALOGUE.by_record(record)
    fields = {field["name"] for field in event_type.schema["fields"]}
    named = {name for part in event_type.natural_key for name in part.split("|")}
    assert event_type.natural_key
    assert named | set(event_type.series_key) <= fields
    assert event_type.event_time_from is None or event_type.event_time_from in fields


def test_only_bars_have_a_byte_guard() -> None:
    guarded = {event_type.record for event_type in CATALOGUE if event_type.retention_bytes != -1}
    assert guarded == {"Candle", "IndicatorUpdate"}


def test_the_broker_gets_every_topic_and_that_of_dead_letters() -> None:
    topics = {topic.name: topic for topic in CATALOGUE.topics()}
    assert set(topics) == {name for name, _, _ in DESIGN.values()} | {"tradetape.dead-letters"}
    assert topics["tradetape.dead-letters"].retention_ms == DAYS_90


@pytest.mark.parametrize("topic", CATALOGUE.topics(), ids=lambda topic: topic.name)
def test_no_topic_is_compacted_or_stamped_by_the_broker(topic: Any) -> None:
    config = topic.config()
    assert config["cleanup.policy"] == "delete"
    assert config["message.timestamp.type"] == "CreateTime"
    assert config["retention.ms"] == str(topic.retention_ms)
    assert int(config["max.message.bytes"]) >= 256 * 1024
    assert all(isinstance(value, str) for value in config.values())


def test_an_event_type_is_found_by_record_class_and_topic() -> None:
    found = CATALOGUE.by_record("Candle")
    assert found.event_class is Candle
    assert CATALOGUE.by_class(Candle) is found
    assert CATALOGUE.by_topic("tradetape.candles") is found
    assert [event_type.record for event_type in CATALOGUE] == list(RECORDS)


def test_another_prefix_gives_other_topics_and_leaves_the_catalogue_as_it_was() -> None:
    other = CATALOGUE.with_prefix("desk7.")
    assert other.by_topic("desk7.candles").record == "Candle"
    assert other.dead_letters_topic == "desk7.dead-letters"
    with pytest.raises(CatalogueError, match=r"no topic 'tradetape.candles' in this catalogue; it has desk7.candles"):
        other.by_topic("tradetape.candles")
    assert CATALOGUE.by_topic("tradetape.candles").record == "Candle"


def test_what_the_catalogue_does_not_hold_is_refused_with_what_it_has() -> None:
    with pytest.raises(CatalogueError, match="no event type 'Quote' in this catalogue; it has Candle"):
        CATALOGUE.by_record("Quote")
    with pytest.raises(CatalogueError, match="int is not an event of this catalogue; it has Candle"):
        CATALOGUE.by_class(int)


def test_an_event_type_is_added_without_changing_the_catalogue() -> None:
    added = quote()
    catalogue = CATALOGUE.with_event(added)
    assert catalogue.by_topic("tradetape.quotes") is added
    assert catalogue.by_class(added.event_class) is added
    assert added.schema_id >= 2**30
    assert "Quote" not in {event_type.record for event_type in CATALOGUE}


@pytest.mark.parametrize("changes", [{"topic": "candles"}, {"record": "Candle"}])
def test_two_event_types_of_one_topic_or_record_are_refused(changes: dict[str, str]) -> None:
    with pytest.raises(CatalogueError, match="two event types share a record, a class or a topic"):
        CATALOGUE.with_event(quote(**changes))


def test_no_event_type_travels_among_the_dead_letters() -> None:
    with pytest.raises(CatalogueError, match="is the topic of dead letters"):
        Catalogue((quote(topic="dead-letters"),))


def test_an_event_type_without_the_common_fields_is_refused() -> None:
    schema = quote().schema
    with pytest.raises(CatalogueError, match="Quote: its first fields must be event_id, event_time"):
        quote(schema={**schema, "fields": schema["fields"][1:]})


def test_an_event_type_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        CATALOGUE.by_record("Candle").topic = "elsewhere"  # type: ignore[misc]
