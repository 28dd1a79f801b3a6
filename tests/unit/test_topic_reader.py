"""Where topics begin and end, asked of a broker on which a partition has no leader yet."""

from __future__ import annotations

import threading
from contextlib import closing

import pytest

from scripted_broker import END, LEADERLESS, LED, TOPIC, scripted_broker
from tradetape.producers.connection import KafkaSettings
from tradetape.streams import topic_reader
from tradetape.streams.errors import BrokersUnreachable
from tradetape.streams.processor import Partition
from tradetape.streams.topic_reader import TopicReader

LEADERLESS_S = 0.7
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


def test_where_a_leader_is_away_the_next_one_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    # The client goes on waiting for the leader that it knows.
    monkeypatch.setattr(topic_reader, "QUESTION_TIMEOUT_S", 0.5)
    with (
        scripted_broker() as broker,
        closing(TopicReader(KafkaSettings(bootstrap_servers=broker.address))) as reader,
    ):
        broker.leader_is_away = True
        assert reader.partitions([TOPIC]) == PARTITIONS
        comes = threading.Timer(LEADERLESS_S, lambda: setattr(broker, "leader_is_away", False))
        comes.start()
        assert reader.ends(PARTITIONS) == dict.fromkeys(PARTITIONS, END)
        comes.join()


def test_a_partition_without_a_leader_is_an_error_that_names_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(topic_reader, "STALL_TIMEOUT_S", 0.5)
    with (
        scripted_broker(leaderless_answers=1_000_000) as broker,
        closing(TopicReader(KafkaSettings(bootstrap_servers=broker.address))) as reader,
    ):
        reader.partitions([TOPIC])
        with pytest.raises(BrokersUnreachable, match=rf"{TOPIC}\[{LEADERLESS}\].*Leader not available"):
            reader.begins(PARTITIONS)
