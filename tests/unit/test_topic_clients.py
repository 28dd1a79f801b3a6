"""A client that is only asked now and then is heard as well: what it has to say must not pile up inside of it (I13)."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka import KafkaError
from confluent_kafka.admin import AdminClient

from tradetape.producers.connection import KafkaSettings
from tradetape.streams import groups, topic_reader
from tradetape.streams.errors import BrokersUnreachable

NOBODY = KafkaSettings(bootstrap_servers="127.0.0.1:1")
QUESTIONS = 3
Ask = Callable[[str], object]


@pytest.fixture
def said(monkeypatch: pytest.MonkeyPatch) -> list[KafkaError]:
    """What the clients report of their connections."""
    found: list[KafkaError] = []
    for module in (groups, topic_reader):
        monkeypatch.setattr(module, "on_error", lambda: found.append)
    monkeypatch.setattr(groups, "TIMEOUT_S", 0.3)
    for patience in ("QUESTION_TIMEOUT_S", "CONNECT_TIMEOUT_S"):
        monkeypatch.setattr(topic_reader, patience, 0.3)
    return found


def topic_ids() -> Ask:
    return groups.TopicIds(NOBODY)


def reader() -> Ask:
    made = topic_reader.TopicReader(NOBODY)
    return lambda topic: made.partitions([topic])


@pytest.mark.parametrize("made", [topic_ids, reader])
def test_what_a_client_says_of_a_broker_that_is_away_is_taken_with_every_question(
    said: list[KafkaError], made: Callable[[], Ask]
) -> None:
    ask = made()
    for _ in range(QUESTIONS):
        with pytest.raises(BrokersUnreachable):
            ask("candles")
    assert said


def test_whoever_asks_for_a_topics_id_begins_with_another_client_after_a_failure(
    said: list[KafkaError], monkeypatch: pytest.MonkeyPatch
) -> None:
    # The old one goes on waiting for the controller that it knows, which three brokers have replaced by then.
    clients: list[AdminClient] = []
    make = groups._admin

    def noted(kafka: KafkaSettings) -> AdminClient:
        clients.append(make(kafka))
        return clients[-1]

    monkeypatch.setattr(groups, "_admin", noted)
    ask = topic_ids()
    for _ in range(QUESTIONS):
        with pytest.raises(BrokersUnreachable):
            ask("candles")
    assert len(clients) == 1 + QUESTIONS
