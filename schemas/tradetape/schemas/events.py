"""The event classes: one frozen struct for each record, with the enums and structs they use.

What the producer stamps (event_id, emitted_at, producer, producer_run_id, producer_seq, run_mode, correlation_id) is
None until the event is emitted; `emit` returns the event as stamped. Type checkers read events.pyi.
"""

from __future__ import annotations

from tradetape.schemas.event_classes import CLASSES, NAMED_CLASSES
from tradetape.schemas.event_classes import Event as Event

globals().update(CLASSES)
globals().update(NAMED_CLASSES)
__all__ = sorted(["Event", *CLASSES, *NAMED_CLASSES])
