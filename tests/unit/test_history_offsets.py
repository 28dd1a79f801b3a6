"""What a sink holds: offsets belong to one topic, not to its name, and a session outlives what it waits for (I6)."""

from __future__ import annotations

import pytest

from tradetape.sinks.history.connection import GUARDS
from tradetape.sinks.history.offsets import Holding, Offsets
from tradetape.streams.dead_letters import ACKNOWLEDGE_TIMEOUT_S, PURGE_TIMEOUT_S
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


def test_no_guard_ends_a_session_whose_rows_wait_for_their_dead_letters() -> None:
    longest_s = float(GUARDS["idle_in_transaction_session_timeout"].removesuffix("s"))
    assert longest_s > ACKNOWLEDGE_TIMEOUT_S + PURGE_TIMEOUT_S
