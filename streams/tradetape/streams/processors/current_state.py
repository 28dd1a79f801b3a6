"""Keeps the newest event of each series in Redis: what a strategy reads instead of the tape (I1, I2, I3)."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from tradetape.schemas import Catalogue, Codec, DecodeError, decimals
from tradetape.streams.dead_letters import DeadLetters
from tradetape.streams.record import Record
from tradetape.streams.state import keys as layout
from tradetape.streams.state.keys import Keys
from tradetape.streams.state.store import StateStore, Update

logger = logging.getLogger("tradetape.streams")

RECORDS = ("Candle", "IndicatorUpdate", "MarketCondition", "TradeSignal")
MARK_INTERVAL_US = 60 * 1_000_000
_EMPTIED = {"action": "rebuild"}

Plain = Mapping[str, Any]
Fields = Iterator[tuple[str, str]]


class CurrentState:
    """Processor from the topics of candles, indicators, market conditions and signals to hashes in Redis.

    `may_mark` says that this Redis is filled, or will be: that it is read from the tape's beginning.
    """

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        store: StateStore,
        dead_letters: DeadLetters,
        codec: Codec | None = None,
        name: str = "state",
        may_mark: bool = True,
    ) -> None:
        self.name = name
        self._may_mark = may_mark
        self.store = store
        self._dead_letters = dead_letters
        self._codec = codec or Codec(catalogue)
        self._projections = {
            catalogue.topic_name(catalogue.by_record(record)): _PROJECTIONS[record] for record in RECORDS
        }
        self.topics = tuple(self._projections)
        self._marked_at_us: int | None = None

    def process(self, batch: Sequence[Record]) -> None:
        """Write the newest event of each key in the batch. Raises StateUnavailable."""
        newest: dict[str, Update] = {}
        refused: list[tuple[Record, DecodeError]] = []
        for record in batch:
            try:
                plain = self._codec.decode_fields(record.topic, record.value)
                update = self._update(record, plain)
            except DecodeError as error:
                refused.append((record, error))
                continue
            held = newest.get(update.key)
            if held is None or held.order < update.order:
                newest[update.key] = update
        if newest:
            self.store.write(list(newest.values()))
        # Last: while Redis is away the batch comes again and again, and each time would repeat its dead letters.
        for record, why in refused:
            self._dead_letters.send(record, why.reason, why, stage="VALUE_CONVERTER")

    def tick(self, now_us: int) -> None:
        """Keep the marker alive that says that this Redis is filled."""
        if self._marked_at_us is None and self._may_mark:
            self.store.mark_filled()
        elif self._marked_at_us is not None and now_us - self._marked_at_us <= MARK_INTERVAL_US:
            return
        elif not self.store.renew_mark():
            # A new marker would say that this Redis is filled, and the next start would not fill it.
            logger.error(
                "Redis was emptied: stop all workers of the group and start them again, to fill it from the tape",
                extra=_EMPTIED,
            )
        self._marked_at_us = now_us

    def _update(self, record: Record, plain: Plain) -> Update:
        key_of, horizon_us, fields_of = self._projections[record.topic]
        key = key_of(self.store.keys, plain)
        event_time_us = plain["event_time"]
        return Update(
            key=key,
            event_time_us=event_time_us,
            partition=record.partition,
            offset=record.offset,
            expires_at_ms=layout.expires_at_ms(key, event_time_us, horizon_us(plain)),
            fields=self.store.fitting([("_id", plain["event_id"]), *fields_of(plain)]),
        )


def text_of(value: Any) -> str:
    """A plain value as a field's text: decimals canonical, doubles by their shortest text, booleans 1 and 0."""
    if isinstance(value, bytes):
        return decimals.to_text(value)
    if isinstance(value, bool):
        return "1" if value else "0"
    return repr(value) if isinstance(value, float) else str(value)


def _given(plain: Plain, fields: Sequence[str]) -> Fields:
    for name in fields:
        if (value := plain[name]) is not None:
            yield name, text_of(value)


_CANDLE = ("open", "high", "low", "close", "volume", "quote_volume", "taker_buy_volume", "trade_count")
_SIGNAL = (
    "timeframe", "action", "direction", "order_type", "strategy_version", "confidence", "score", "magnitude_ratio",
    "weight", "multiplier", "reference_price", "entry_price", "stop_loss_price", "quantity", "amount_quote", "leverage",
    "position_ref",
)  # fmt: skip
"""A signal's lists and maps stay in the history, by its id."""


def _candle_fields(plain: Plain) -> Fields:
    yield from _given(plain, _CANDLE)


def _indicator_fields(plain: Plain) -> Fields:
    if plain["close"] is not None:
        yield "_c", text_of(plain["close"])
    for name, value in plain["values"].items():
        yield name, repr(value)


def _market_fields(plain: Plain) -> Fields:
    yield from _given(plain, ("condition", "score"))
    yield from _valid_until(plain)
    for name, value in plain["values"].items():
        yield f"v.{name}", repr(value)


def _signal_fields(plain: Plain) -> Fields:
    yield from _given(plain, _SIGNAL)
    yield from _valid_until(plain)


def _valid_until(plain: Plain) -> Fields:
    """Not the key's expiry: an older signal that may live longer would come back after it."""
    if plain["valid_until"] is not None:
        yield "_x", str(plain["valid_until"])


def _bar_horizon_us(plain: Plain) -> int:
    return layout.bar_horizon_us(plain["timeframe"])


def _daily_horizon_us(_: Plain) -> int:
    return layout.DAILY_HORIZON_US


def _candle_key(keys: Keys, plain: Plain) -> str:
    return keys.candle(plain["venue"], plain["symbol"], plain["timeframe"], is_final=plain["is_final"])


def _indicators_key(keys: Keys, plain: Plain) -> str:
    return keys.indicators(
        plain["venue"], plain["symbol"], plain["timeframe"], plain["indicator_set"], is_final=plain["is_final"]
    )


def _market_key(keys: Keys, plain: Plain) -> str:
    return keys.market(plain["scope"], plain["venue"], plain["symbol"])


def _signal_key(keys: Keys, plain: Plain) -> str:
    return keys.signal(plain["venue"], plain["symbol"], plain["strategy_id"])


_Projection = tuple[Callable[[Keys, Plain], str], Callable[[Plain], int], Callable[[Plain], Fields]]
_PROJECTIONS: dict[str, _Projection] = {
    "Candle": (_candle_key, _bar_horizon_us, _candle_fields),
    "IndicatorUpdate": (_indicators_key, _bar_horizon_us, _indicator_fields),
    "MarketCondition": (_market_key, _daily_horizon_us, _market_fields),
    "TradeSignal": (_signal_key, _daily_horizon_us, _signal_fields),
}
"""For each record: its key, how long it is current, and the fields of its hash."""
