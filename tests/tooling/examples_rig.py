"""A test's own tape and history, and a recipe that runs on them as a process of its own.

Ids are derived here from the natural keys, by RFC 9562 and json alone, as any other language would.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import uuid
from collections import Counter, defaultdict
from datetime import datetime
from pathlib import Path

from history_rig import HistoryRig
from tradetape.schemas import Codec, Event, IndicatorUpdate, TradeSignal, times

EXAMPLES = Path(__file__).resolve().parents[2] / "producers" / "examples"
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "events.tradetape")
DEADLINE_S = 240.0

Ids = dict[tuple[str, str], list[str]]
"""Event ids in order, by the name of the record and the symbol."""


def event_id(record: str, *parts: str | datetime) -> str:
    """The id of a natural key."""
    plain = [times.from_datetime(part) if isinstance(part, datetime) else part for part in parts]
    return str(uuid.uuid5(NAMESPACE, json.dumps([record, *plain], separators=(",", ":"))))


def update_id(venue: str, symbol: str, timeframe: str, closed_at: datetime, source: str) -> str:
    """The id of a finished bar's indicator update."""
    return event_id("IndicatorUpdate", venue, symbol, timeframe, "default", closed_at, source, "is_final")


def signal_id(strategy: str, venue: str, symbol: str, timeframe: str, closed_at: datetime, action: str) -> str:
    """The id of a signal that a bar triggered, for a long position."""
    return event_id("TradeSignal", strategy, venue, symbol, timeframe, closed_at, action, "LONG")


def run(rig: HistoryRig, *command: str | Path, python: Path | None = None) -> subprocess.CompletedProcess[str]:  # fmt: skip
    """Run Python with these arguments on the rig's topics, and wait for its end."""
    environment = {
        **os.environ,
        "KAFKA_BOOTSTRAP_SERVERS": rig.kafka.bootstrap_servers,
        "TRADETAPE_TOPIC_PREFIX": rig.catalogue.prefix,
    }
    return subprocess.run(
        [python or sys.executable, *command],
        env=environment, capture_output=True, text=True, timeout=DEADLINE_S, check=False,
    )  # fmt: skip


def emitted(rig: HistoryRig) -> list[Event]:
    """Every event, as it was emitted; the tape has it, in that order for each key, and the history has it once.

    A decision takes the inputs along that the broker is slow to confirm: those may lie on the tape twice, and early.
    """
    codec = Codec(rig.catalogue)
    found = [codec.decode(record.topic, record.value) for record in rig.tape()]
    copies = Counter(event.event_id for event in found)
    inputs = {one for event in found if isinstance(event, TradeSignal) for one in event.input_event_ids}
    assert {one for one, count in copies.items() if count > 1} <= inputs
    for in_order in _by_key([event for event in found if copies[event.event_id] == 1]).values():
        assert in_order == sorted(in_order, key=_when)
    rig.store()
    stored = Counter(str(row["event_id"]) for one in rig.catalogue for row in rig.table(one))
    assert stored == dict.fromkeys(copies, 1)
    return sorted({event.event_id: event for event in found}.values(), key=_when)


def _when(event: Event) -> tuple[datetime, int]:
    return event.emitted_at, event.producer_seq


def _by_key(events: list[Event]) -> dict[tuple[str, str], list[Event]]:
    found = defaultdict(list)
    for event in events:
        found[type(event).__name__, event.symbol].append(event)
    return found


def ids(events: list[Event]) -> Ids:
    """Their ids, in order."""
    return {key: [event.event_id for event in of_key] for key, of_key in _by_key(events).items()}


def assert_signals_rest_on_their_bars(events: list[Event]) -> None:
    """Each signal names the update of its own bar, as its cause and as its input."""
    updates = {(one.symbol, one.bar_close_time): one for one in events if isinstance(one, IndicatorUpdate)}
    for signal in (one for one in events if isinstance(one, TradeSignal)):
        assert signal.bar_close_time is not None
        update = updates[signal.symbol, signal.bar_close_time]
        assert (signal.causation_id, signal.input_event_ids) == (update.event_id, (update.event_id,))
        assert signal.run_mode is update.run_mode
