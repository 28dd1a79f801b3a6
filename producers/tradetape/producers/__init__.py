"""What trading code embeds: a producer of typed events, and nothing that would pull a service library in."""

from tradetape.producers.errors import (
    DeliveryError,
    ForkedProducer,
    ProducerClosed,
    ProducersError,
    QueueFull,
    SettingsError,
)
from tradetape.producers.producer import Health, Producer

__all__ = [
    "DeliveryError",
    "ForkedProducer",
    "Health",
    "Producer",
    "ProducerClosed",
    "ProducersError",
    "QueueFull",
    "SettingsError",
]
