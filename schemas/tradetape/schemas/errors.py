"""Everything that can be wrong with an event, a name, a payload or a schema registry.

SchemasError
├── EventError        an event that may not go onto the tape
├── NameRefused       a symbol, timeframe, venue or indicator name that cannot be understood
├── DecodeError       bytes from the tape that are not an event of their topic
├── CatalogueError    an event type or topic that the catalogue does not hold, or a wrong declaration
└── RegistryError               the schema registry cannot be used
    ├── RegistryUnreachable     it does not answer, or has a fault of its own: waiting may mend it  (Transient)
    ├── RegistryRefused         it will not do what it is asked, or is no schema registry
    ├── NotRegistered           it does not hold a schema of ours
    └── IncompatibleSchema      it holds versions that a schema of ours does not agree with

`Transient` marks what waiting may mend, here and in the rooms above: whether to try again is a question of type.
"""

from __future__ import annotations


class Transient(Exception):
    """Something is away; whoever can wait tries the same again."""


class SchemasError(Exception):
    """Something is wrong with an event, its schema or its encoding."""


class EventError(SchemasError):
    """An event breaks a rule of its record; nothing of it was queued.

    Attributes: `record` (such as "Candle"), `field` (dotted path inside of it), `value` (what was
    given) and `rule` (what it has to be).
    """

    def __init__(self, record: str, field: str, value: object, rule: str) -> None:
        super().__init__(f"{record}.{field} = {_shown(value)}: {rule}")
        self.record = record
        self.field = field
        self.value = value
        self.rule = rule


class NameRefused(SchemasError):
    """A symbol, timeframe, venue or indicator name has no single meaning; `rule` says what is accepted."""

    def __init__(self, value: object, rule: str) -> None:
        super().__init__(f"{_shown(value)}: {rule}")
        self.value = value
        self.rule = rule


class DecodeError(SchemasError):
    """Bytes from a topic are not an event of that topic.

    `reason` is one of a closed set of slugs, fit for a metric's label: empty, oversized, bad_magic,
    truncated, unknown_schema_id, foreign_schema_id, trailing_bytes, invalid_value. `detail` is for people.
    """

    def __init__(self, reason: str, detail: str) -> None:
        super().__init__(f"{reason}: {detail}")
        self.reason = reason
        self.detail = detail


class CatalogueError(SchemasError):
    """The catalogue does not hold this event type or topic, or a declaration in it is wrong."""


class RegistryError(SchemasError):
    """The schema registry cannot be used."""


class RegistryUnreachable(RegistryError, Transient):
    """The schema registry does not answer, or has a fault of its own; waiting may mend it."""


class RegistryRefused(RegistryError):
    """The schema registry will not do what it is asked, or is none."""


class NotRegistered(RegistryError):
    """The registry does not hold a schema that events are to be written with."""

    def __init__(self, subject: str) -> None:
        super().__init__(f"the schema registry does not hold our schema of {subject}; run `tradetape schemas push`")
        self.subject = subject


class IncompatibleSchema(RegistryError):
    """The registry refuses a version of `subject` that its other versions do not agree with; `reason` is its own."""

    def __init__(self, subject: str, reason: str) -> None:
        super().__init__(f"the schema registry refuses our schema of {subject} as incompatible: {reason}")
        self.subject = subject
        self.reason = reason


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else f"{text[:77]}..."
