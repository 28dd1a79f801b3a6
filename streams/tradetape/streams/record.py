"""A record as Kafka has it: nothing decoded, nothing lost. What every processor is fed with."""

from __future__ import annotations

from typing import TYPE_CHECKING

import msgspec

if TYPE_CHECKING:
    from confluent_kafka import Message

REPLAY_HEADER = "x-replay"
"""Names the replay that wrote a record, also where its bytes are as they were: what it says happened, but not now."""


class Record(msgspec.Struct, frozen=True, gc=False):
    """One record of a topic. `timestamp_ms` is when it was emitted, in milliseconds since 1970 UTC."""

    topic: str
    partition: int
    offset: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes | None], ...]
    timestamp_ms: int

    @property
    def place(self) -> str:
        """topic[partition]@offset, as log lines and errors name it."""
        return f"{self.topic}[{self.partition}]@{self.offset}"

    @property
    def is_replayed(self) -> bool:
        """Whether a replay wrote it; nothing is approved or dispatched for it."""
        return any(name == REPLAY_HEADER for name, _ in self.headers)


def from_message(message: Message) -> Record:
    """What a Kafka client received, as a record."""
    headers = message.headers()
    return Record(
        message.topic() or "",
        message.partition() or 0,
        message.offset() or 0,
        message.key(),
        message.value(),
        tuple(headers) if headers else (),  # type: ignore[arg-type]
        message.timestamp()[1],
    )
