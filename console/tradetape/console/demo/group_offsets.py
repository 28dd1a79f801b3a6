"""Where the workers' consumer groups stand, asked as an operator would."""

from __future__ import annotations

from collections.abc import Sequence

from confluent_kafka import Consumer, KafkaException, TopicPartition

from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.streams.errors import BrokersUnreachable
from tradetape.streams.groups import NOT_YET
from tradetape.streams.processor import Partition

ANSWER_TIMEOUT_S = 15.0


class GroupOffsets:
    """Where one group stands. It asks in the group's name without joining it."""

    def __init__(self, kafka: KafkaSettings, group: str) -> None:
        fixed = {"group.id": group, "enable.auto.commit": False}
        self._consumer = Consumer({**kafka.client_config({}, fixed=fixed), "error_cb": on_error()}, logger=logger)

    def close(self) -> None:
        """Let go of the connection."""
        self._consumer.close()

    def committed(self, partitions: Sequence[Partition]) -> dict[Partition, int]:
        """The group's committed offset of each partition, 0 where there is none. Raises BrokersUnreachable."""
        asked = [TopicPartition(one.topic, one.partition) for one in partitions]
        try:
            found = self._consumer.committed(asked, timeout=ANSWER_TIMEOUT_S)
        except KafkaException as error:
            if error.args[0].code() in NOT_YET:
                return dict.fromkeys(partitions, 0)
            raise BrokersUnreachable(f"Kafka does not say how far its groups are: {error.args[0].str()}") from error
        return {Partition(one.topic, one.partition): max(one.offset, 0) for one in found}
