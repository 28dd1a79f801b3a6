"""Where the workers' consumer groups stand, asked as an operator would."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.streams.errors import BrokersUnreachable
from tradetape.streams.groups import NOT_YET
from tradetape.streams.processor import Partition
from tradetape.streams.topic_reader import PASSING

QUESTION_TIMEOUT_S = 2.0
"""How long one look at a group waits: its coordinator may have died, and the view goes on without it."""


class GroupOffsets:
    """Where one group stands. It asks in the group's name without joining it."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        fixed = {"group.id": group, "enable.auto.commit": False}
        self._consumer = Consumer({**kafka.client_config({}, fixed=fixed), "error_cb": on_error()}, logger=logger)
        self._known: dict[Partition, int] = {}

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The group's committed offset of each partition, 0 where there is none. Raises BrokersUnreachable.

        While the group has no coordinator, as after the crash of a broker, what was last heard of it: never too much.
        """
        asked = [TopicPartition(one.topic, one.partition) for one in partitions]
        try:
            found = self._consumer.committed(asked, timeout=QUESTION_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() not in (*NOT_YET, *PASSING):
                raise BrokersUnreachable(f"Kafka does not say how far its groups are: {error.args[0].str()}") from error
        else:
            self._known |= {Partition(one.topic, one.partition): max(one.offset, 0) for one in found}
        finally:
            # What the client has to say of its connections lies in its queue until somebody takes it.
            self._consumer.poll(0)
        return {one: self._known.get(one, 0) for one in partitions}
