"""Offsets belong to one topic, not to its name: one that was made anew is noticed (I6)."""

from __future__ import annotations

import pytest

from tradetape.sinks.history.offsets import Holding, Offsets
from tradetape.streams.errors import HistoryLost
from tradetape.streams.processor import Partition


def test_a_topic_that_was_made_anew_is_noticed_as_long_as_it_is_held() -> None:
    uuids = {"candles": "first", "fills": "other"}
    offsets = Offsets("history", uuids.__getitem__)
    offsets.held |= {
        Partition("candles", 0): Holding("first", 1, 100),
        Partition("fills", 0): Holding("other", 1, None),
    }
    offsets.check_topics()
    uuids["candles"] = "second"
    with pytest.raises(HistoryLost, match="candles was made anew"):
        offsets.check_topics()
    offsets.release([Partition("candles", 0)])
    offsets.check_topics()
