"""The producer for users' unit tests: the same surface, the same refusals, nothing sent."""

from __future__ import annotations

import inspect
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tradetape.producers import Producer, ProducerClosed
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import CATALOGUE, Action, Candle, Direction, EventError, IndicatorUpdate, RunMode, TradeSignal

CLOSED_AT = datetime(2024, 5, 1, 13, tzinfo=UTC)
NOW_US = 1_714_568_401_000_000
"""2024-05-01 13:00:01 UTC, as `date -u -d "2024-05-01 13:00:01" +%s` gives it."""


def update(**given: Any) -> IndicatorUpdate:
    return IndicatorUpdate(
        **{
            "venue": "binance",
            "symbol": "BTC/USDT",
            "timeframe": "60m",
            "bar_close_time": CLOSED_AT,
            "values": {"RSI14": 28.4},
            **given,
        }
    )


def public(kind: type) -> dict[str, inspect.Signature]:
    methods = inspect.getmembers(kind, inspect.isfunction)
    return {name: inspect.signature(method) for name, method in methods if not name.startswith("_")}


def recording(**given: Any) -> RecordingProducer:
    return RecordingProducer(clock=lambda: NOW_US, **given)


def test_it_has_the_methods_of_the_producer_with_the_same_parameters() -> None:
    ours, theirs = public(RecordingProducer), public(Producer)
    assert theirs.keys() <= ours.keys()
    for name, signature in theirs.items():
        assert ours[name] == signature, name


def test_it_has_the_public_attributes_of_the_producer() -> None:
    producer = Producer(bootstrap_servers="127.0.0.1:9", source="bot")
    with producer:
        theirs = {name for name in vars(producer) if not name.startswith("_")}
    assert theirs <= set(vars(RecordingProducer()))
    assert hasattr(RecordingProducer, "__enter__")
    assert hasattr(RecordingProducer, "__exit__")


def test_it_is_made_from_the_same_arguments() -> None:
    ours, theirs = inspect.signature(RecordingProducer).parameters, inspect.signature(Producer).parameters
    of_delivery = {
        "bootstrap_servers", "overflow", "kafka_options", "is_development", "outbox_dir", "outbox_max_bytes",
        "durability", "buffer_events", "buffer_bytes", "on_delivery", "on_drop", "codec",
    }  # fmt: skip
    assert set(theirs) - of_delivery == set(ours)


def test_it_keeps_what_was_emitted_in_order_as_stamped() -> None:
    tape = recording(source="rsi-bot", run_mode=RunMode.PAPER)
    emitted = [tape.emit(update(bar_close_time=CLOSED_AT + timedelta(hours=hour))) for hour in range(3)]
    assert tape.events == emitted
    assert [one.producer_seq for one in emitted] == [1, 2, 3]
    assert {one.producer for one in emitted} == {"rsi-bot"}
    assert {one.run_mode for one in emitted} == {RunMode.PAPER}
    assert {one.emitted_at for one in emitted} == {datetime(2024, 5, 1, 13, 0, 1, tzinfo=UTC)}
    assert len({one.producer_run_id for one in emitted}) == 1


def test_the_event_comes_back_normalised() -> None:
    emitted = recording().emit(update())
    assert (emitted.symbol, emitted.timeframe, emitted.values) == ("BTCUSDT", "1h", {"rsi_14": 28.4})
    assert emitted.event_time == CLOSED_AT


def test_the_event_that_was_given_is_left_as_it_was() -> None:
    given = update()
    recording().emit(given)
    assert given == update()


def test_what_is_kept_does_not_change_with_the_users_own_dict() -> None:
    values = {"rsi_14": 28.4, "ema_50": 1.5}
    tape = recording()
    emitted = tape.emit(update(values=values))
    values["rsi_14"] = -1.0
    assert emitted.values == {"rsi_14": 28.4, "ema_50": 1.5}


def test_it_refuses_what_the_producer_refuses_and_keeps_nothing_of_it() -> None:
    tape = recording()
    with pytest.raises(EventError, match=r"IndicatorUpdate\.bar_close_time"):
        tape.emit(update(bar_close_time=CLOSED_AT.replace(tzinfo=None)))
    with pytest.raises(EventError, match="more than the 262144"):
        tape.emit(update(tags={"note": "x" * 262_144}))
    assert tape.events == []
    assert tape.emit(update()).producer_seq == 1


def test_a_signal_has_its_own_id_and_heads_its_chain() -> None:
    tape = recording()
    cause = tape.emit(update())
    signal = tape.emit(
        TradeSignal(
            strategy_id="rsi-dip",
            venue="binance",
            symbol="BTCUSDT",
            timeframe="1h",
            bar_close_time=CLOSED_AT,
            action=Action.ENTER,
            direction=Direction.LONG,
            reference_price="64123.10",
            input_event_ids=[cause.event_id],
        )
    )
    assert signal.event_id == signal.signal_id == signal.correlation_id
    assert list(signal.input_event_ids) == [cause.event_id]


def test_of_gives_one_class() -> None:
    tape = recording()
    emitted = tape.emit(update())
    assert tape.of(IndicatorUpdate) == [emitted]
    assert tape.of(Candle) == []


def test_after_close_it_takes_nothing() -> None:
    with recording() as tape:
        tape.emit(update())
        assert tape.flush()
    tape.close()
    with pytest.raises(ProducerClosed):
        tape.emit(update())
    assert len(tape.events) == 1


def test_health_counts_what_was_emitted() -> None:
    tape = recording(catalogue=CATALOGUE)
    tape.emit(update())
    health = tape.health()
    assert (health.connected, health.emitted, health.delivered, health.queued) == (True, 1, 1, 0)
