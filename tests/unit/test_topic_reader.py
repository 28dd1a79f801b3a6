"""Where topics begin and end, asked of a broker on which a partition has no leader yet."""

from __future__ import annotations

from contextlib import closing

import pytest

from scripted_broker import END, LEADERLESS, LED, TOPIC, scripted_broker
from tradetape.producers.connection import KafkaSettings
from tradetape.streams import topic_reader
from tradetape.streams.errors import BrokersUnreachable
from tradetape.streams.processor import Partition
from tradetape.streams.topic_reader import TopicReader

PARTITIONS = [Partition(TOPIC, LED), Partition(TOPIC, LEADERLESS)]


def test_a_partition_ends_where_it_ends_however_late_its_leader_appears() -> None:
    # The client answers at once for those that have a leader, and leaves -1 for the others: to it that is "the end".
    with (
        scripted_broker(leaderless_answers=8) as broker,
        closing(TopicReader(KafkaSettings(bootstrap_servers=broker.address))) as reader,
    ):
        assert reader.partitions([TOPIC]) == PARTITIONS
        assert reader.ends(PARTITIONS) == dict.fromkeys(PARTITIONS, END)


def test_a_broker_that_hangs_up_is_asked_again() -> None:
    with (
        scripted_broker(hang_ups=4) as broker,
        closing(TopicReader(KafkaSettings(bootstrap_servers=broker.address))) as reader,
    ):
        assert reader.ends(PARTITIONS) == dict.fromkeys(PARTITIONS, END)


def test_a_partition_without_a_leader_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_reader, "STALL_TIMEOUT_S", 0.5)
    with (
        scripted_broker(leaderless_answers=1_000_000) as broker,
        closing(TopicReader(KafkaSettings(bootstrap_servers=broker.address))) as reader,
    ):
        reader.partitions([TOPIC])
        with pytest.raises(BrokersUnreachable, match=rf"{TOPIC}\[{LEADERLESS}\].*Leader not available"):
            reader.begins(PARTITIONS)
