"""What can go wrong between trading code and the tape.

ProducersError
├── SettingsError          a setting is missing, unknown or wrong
├── OutboxError            the outbox did not take a decision
│   ├── OutboxFull         it holds as much as it may, or its disk is full
│   ├── OutboxInUse        another producer owns it
│   └── OutboxUnavailable  it cannot be read or written
├── QueueFull              a market update found no room in time, and was to wait for it
├── ProducerClosed         emit after close
└── ForkedProducer         a producer was used in a process that was forked from its own
"""

from __future__ import annotations


class ProducersError(Exception):
    """An event could not be brought to the tape."""


class SettingsError(ProducersError):
    """A setting is missing, unknown or wrong."""


class OutboxError(ProducersError):
    """The outbox did not take a decision; the event is not accepted."""


class OutboxFull(OutboxError):
    """The outbox holds as much as it may, or its disk is full."""


class OutboxInUse(OutboxError):
    """The outbox belongs to another producer."""


class OutboxUnavailable(OutboxError):
    """The outbox cannot be read or written."""


class QueueFull(ProducersError):
    """A market update that was to wait for room found none in time."""


class ProducerClosed(ProducersError):
    """The producer is closed; make another one."""


class ForkedProducer(ProducersError):
    """The producer belongs to the process that this one was forked from; make one of its own after the fork."""
