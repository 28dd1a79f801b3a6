"""What trading code embeds: a producer of typed events, and nothing that would pull a service library in."""

from tradetape.producers.errors import (
    ForkedProducer,
    OutboxError,
    OutboxFull,
    OutboxInUse,
    OutboxUnavailable,
    ProducerClosed,
    ProducersError,
    QueueFull,
    SettingsError,
)
from tradetape.producers.hooks import Delivered, Dropped
from tradetape.producers.producer import Health, OutboxHealth, Producer

__all__ = [
    "Delivered",
    "Dropped",
    "ForkedProducer",
    "Health",
    "OutboxError",
    "OutboxFull",
    "OutboxHealth",
    "OutboxInUse",
    "OutboxUnavailable",
    "Producer",
    "ProducerClosed",
    "ProducersError",
    "QueueFull",
    "SettingsError",
]
