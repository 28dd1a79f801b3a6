"""What can go wrong between trading code and the tape.

ProducersError
├── SettingsError     a setting is missing, unknown or wrong
├── QueueFull         an event found no room, and may not be dropped
├── DeliveryError     decisions were emitted and are not on the tape
├── ProducerClosed    emit after close
└── ForkedProducer    a producer was used in a process that was forked from its own
"""

from __future__ import annotations


class ProducersError(Exception):
    """An event could not be brought to the tape."""


class SettingsError(ProducersError):
    """A setting is missing, unknown or wrong."""


class QueueFull(ProducersError):
    """An event found no room in the queue to the broker, and may not be dropped."""


class DeliveryError(ProducersError):
    """Decisions were emitted and are not on the tape."""


class ProducerClosed(ProducersError):
    """The producer is closed; make another one."""


class ForkedProducer(ProducersError):
    """The producer belongs to the process that this one was forked from; make one of its own after the fork."""
