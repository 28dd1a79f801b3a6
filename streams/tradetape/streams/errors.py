"""What can go wrong while the tape is read.

StreamsError
├── BadRecord                one record cannot be processed: it goes to the dead letters
├── BrokersUnreachable       no broker answered for too long                       (Transient)
├── DeadLettersRefused       a dead letter was not acknowledged                    (Transient)
├── EffectsRefused           what a processor emitted was not acknowledged         (Transient)
├── StateUnavailable         Redis cannot take or give state now                   (Transient)
├── StillReading             the past is long, and is being read                   (Transient)
├── SharedStateError         what trading code asked of shared state is not to be had
│   ├── DeclarationRefused   a name, a time or a number that cannot be shared under
│   ├── NotDeclared          what was asked for is not what was declared
│   ├── LimitReached         the call would be one too many
│   ├── LockBusy             somebody else holds the lock
│   └── LockLost             the lock expired while it was held
└── Terminal                 nothing that waiting would mend: the worker ends
    ├── HistoryLost          records were deleted before they were read
    ├── KafkaRefused         Kafka refuses this client or its group
    ├── TopicMissing         a topic is not on the broker
    ├── ProcessorBroken      the processor does not keep its side of the contract
    ├── KillsEverything      record after record kills the process that decodes it
    └── EngineUnfit          this engine cannot run this processor, or with these settings

`Transient` (a dependency is away: the same batch is tried again) and `Terminal` are what engines look at: whether to try
again is a question of type. A schema registry that is away is Transient too.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tradetape.schemas.errors import Transient as Transient

if TYPE_CHECKING:
    from tradetape.streams.record import Record


class StreamsError(Exception):
    """The tape could not be read on."""


class BadRecord(StreamsError):
    """One record cannot be processed, now or ever; `reason` is a slug fit for a metric's label."""

    def __init__(self, record: Record, reason: str, detail: str) -> None:
        super().__init__(f"{record.place}: {reason}: {detail}")
        self.record = record
        self.reason = reason
        self.detail = detail


class BrokersUnreachable(StreamsError, Transient):
    """No broker answered for too long."""


class DeadLettersRefused(StreamsError, Transient):
    """A dead letter was not acknowledged, so the offset may not move past its record."""


class EffectsRefused(StreamsError, Transient):
    """What a processor emitted was not acknowledged, so the offset may not move past what led to it."""


class StateUnavailable(StreamsError, Transient):
    """Redis cannot take or give state now."""


class StillReading(StreamsError, Transient):
    """The past is long, and is being read; what was read is kept."""


class SharedStateError(StreamsError):
    """What trading code asked of shared state is not to be had."""


class DeclarationRefused(SharedStateError):
    """A name, a time or a number that cannot be shared under."""


class NotDeclared(SharedStateError):
    """What was asked for is not what was declared."""


class LimitReached(SharedStateError):
    """The call would be one too many; `retry_after_s` is how long to wait before asking again."""

    def __init__(self, name: str, retry_after_s: float) -> None:
        super().__init__(f"{name} is reached; the next call may be made in {retry_after_s:.3f} s")
        self.retry_after_s = retry_after_s


class LockBusy(SharedStateError):
    """Somebody else holds the lock, for longer than it was waited for."""


class LockLost(SharedStateError):
    """The lock expired while it was held: somebody else may hold it."""


class Terminal(StreamsError):
    """Something is wrong that waiting does not mend; the worker ends."""


class HistoryLost(Terminal):
    """Records were deleted by retention before they were read."""


class KafkaRefused(Terminal):
    """Kafka refuses this client or its group."""


class TopicMissing(Terminal):
    """A topic is not on the broker."""


class ProcessorBroken(Terminal):
    """The processor does not keep its side of the contract."""


class KillsEverything(Terminal):
    """Record after record kills the process that decodes it: that is no poison, but a broken installation."""


class EngineUnfit(Terminal):
    """This engine cannot run this processor, or with these settings."""
