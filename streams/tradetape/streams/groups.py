"""What a worker asks of Kafka's administration: a topic's own id, and a group's fresh start."""

from __future__ import annotations

import logging
import time

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import AdminClient

from tradetape.producers.connection import KafkaSettings, on_error
from tradetape.producers.connection import logger as kafka_logger
from tradetape.streams.backoff import Backoff
from tradetape.streams.errors import BrokersUnreachable, Terminal

logger = logging.getLogger("tradetape.streams")

TIMEOUT_S = 15.0
_NO_GROUP = (KafkaError.GROUP_ID_NOT_FOUND,)
_IN_USE = (KafkaError.NON_EMPTY_GROUP,)
NOT_YET = (
    KafkaError.NOT_COORDINATOR,
    KafkaError.COORDINATOR_NOT_AVAILABLE,
    KafkaError.COORDINATOR_LOAD_IN_PROGRESS,
)
"""What a broker answers that has just started and is still loading its groups."""


def _admin(kafka: KafkaSettings) -> AdminClient:
    return AdminClient(kafka.client_config({}) | {"error_cb": on_error()}, logger=kafka_logger)


class TopicIds:
    """The UUID that Kafka gave a topic when it was made (KIP-516): a topic made anew under the same name has another."""

    def __init__(self, kafka: KafkaSettings) -> None:
        self._kafka = kafka
        self._admin = _admin(kafka)

    def __call__(self, topic: str) -> str:
        """The UUID of a topic, asked anew each time. Raises BrokersUnreachable, Terminal for a topic that is not there."""
        try:
            described = self._admin.describe_topics(TopicCollection([topic]), request_timeout=TIMEOUT_S)
            return str(described[topic].result().topic_id)
        except KafkaException as error:
            if error.args[0].code() == KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise Terminal(f"there is no topic {topic}; run `tradetape topics apply`") from error
            self._begin_anew()
            raise BrokersUnreachable(f"Kafka: {error.args[0].str()}") from error
        finally:
            # What it has to say lies in its queue until somebody takes it, and a worker keeps it for as long as it lives.
            self._admin.poll(0)

    def _begin_anew(self) -> None:
        """A client waits for the controller that it knows, for minutes and at full speed, also where another broker is it now."""
        self._admin.poll(0)
        self._admin = _admin(self._kafka)


def forget_offsets(kafka: KafkaSettings, group: str) -> bool:
    """Let a group start again from the beginning; False where other members are at work, who keep what they have.

    Raises BrokersUnreachable.
    """
    # Kept by name: a client that is let go of takes the answers with it, and nobody would ever wake the waiting.
    admin, backoff, deadline = _admin(kafka), Backoff(), time.monotonic() + TIMEOUT_S
    while True:
        try:
            for future in admin.delete_consumer_groups([group], request_timeout=TIMEOUT_S).values():
                future.result()
        except KafkaException as error:
            code = error.args[0].code()
            if code in NOT_YET and time.monotonic() < deadline:
                time.sleep(backoff.next_s())
                continue
            if code in _IN_USE:
                logger.warning(
                    "the group %s is in use and goes on from where it is", group, extra={"action": "rebuild"}
                )
                return False
            if code not in _NO_GROUP:
                raise BrokersUnreachable(f"Kafka: {error.args[0].str()}") from error
        return True
