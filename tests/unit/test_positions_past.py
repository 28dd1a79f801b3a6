"""What is read back of the tape: all that can be decoded, and nothing that kills whoever decodes it."""

from __future__ import annotations

import os
import signal
from typing import Any

import pytest

from positions_rig import Story
from tradetape.schemas import CATALOGUE, Codec
from tradetape.streams.engines.memory import MemoryReader
from tradetape.streams.positions import past
from tradetape.streams.positions.past import Past
from tradetape.streams.processor import Partition

TOPIC = "tradetape.trades"


class DeadlyCodec(Codec):
    """A codec that dies of some values, as one in C may."""

    def decode_fields(self, topic: str, payload: bytes | None) -> dict[str, Any]:
        if payload == b"deadly":
            os.kill(os.getpid(), signal.SIGKILL)
        return super().decode_fields(topic, payload)


@pytest.mark.parametrize("chunk", [2, 3, 100])
def test_what_kills_a_reader_and_what_nobody_can_read_is_passed_over(
    chunk: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(past, "EXAMINED_RECORDS", chunk)
    story = Story()
    trades = []
    for value in (b"deadly", None, b"rubbish", None, b"deadly", b"deadly", None):
        if value is None:
            trades.append(story.trade().trade_id)
        else:
            story.put(TOPIC, b"binance:BTCUSDT", value)
    reading = Past(reader=MemoryReader(story.records), codec=DeadlyCodec(CATALOGUE))
    place = Partition(TOPIC, 0)
    found = list(reading.read(place, reading.begin(place), reading.end(place)))
    assert [one.plain["trade_id"] for one in found] == trades
    assert [one.record.offset for one in found] == [1, 3, 6]


def test_a_stretch_ends_before_its_end_and_begins_with_its_start() -> None:
    story = Story()
    ids = [story.trade().trade_id for _ in range(5)]
    place = Partition(TOPIC, 0)
    reading = Past(reader=MemoryReader(story.records), codec=story.codec)
    assert [one.plain["trade_id"] for one in reading.read(place, 1, 4)] == ids[1:4]
    assert list(reading.read(place, 5, 5)) == []
    assert (reading.holds_any(place, 0, 1), reading.holds_any(place, 5, 9)) == (True, False)
