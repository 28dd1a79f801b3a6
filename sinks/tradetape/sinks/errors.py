"""What can go wrong where events come to rest.

SinksError (StreamsError)
├── DatabaseUnavailable   PostgreSQL cannot be reached or cannot write now      (Transient)
├── DatabaseDenied        PostgreSQL does not let us in, or is not trusted      (Denied)
├── Fenced                another sink owns the partition; nothing was written  (Terminal)
├── WentBack              the database is older than what was written to it     (Terminal)
├── SchemaBehind          the tables are not those of this version              (Terminal)
├── MigrationError        a migration is damaged or could not be applied        (Terminal)
├── ReportUnknown         the history has no view, query or column of that name (Terminal)
├── RetentionRefused      months of that table are not to be dropped            (Terminal)
├── RolesRefused          the connecting user may not make the roles            (Terminal)
├── PromotionRefused      that indicator cannot have a column of its own        (Terminal)
├── SchemaNameRefused     a name that no schema of a history can have           (Terminal)
├── ExecutorUnusable      no executor of that name, or not one for this run mode (Terminal)
├── NotInDoubt            there is nothing to resolve about that order          (Terminal)
├── ExecutorBusy          the executor did not take an order now                (Transient)
├── ReplayRefused         a replay that would harm what is live, or cannot be   (Terminal)
└── ReplayStopped         a replay was asked to stop before it had come through
"""

from __future__ import annotations

from tradetape.streams.errors import Denied, StreamsError, Terminal, Transient


class SinksError(StreamsError):
    """An event could not be brought to rest."""


class DatabaseUnavailable(SinksError, Transient):
    """PostgreSQL cannot be reached or cannot write now."""


class DatabaseDenied(DatabaseUnavailable, Denied):
    """PostgreSQL does not let us in, or is not trusted."""


class Fenced(SinksError, Terminal):
    """Another sink owns the partition; nothing was written."""


class WentBack(SinksError, Terminal):
    """The database is older than what was written to it; start again, and the tape fills the gap."""


class SchemaBehind(SinksError, Terminal):
    """The tables are not those of this version; run `tradetape history migrate`."""


class MigrationError(SinksError, Terminal):
    """A migration is damaged or could not be applied."""


class ReportUnknown(SinksError, Terminal):
    """The history has no view, query or column of that name."""


class RetentionRefused(SinksError, Terminal):
    """Months of that table are not to be dropped."""


class RolesRefused(SinksError, Terminal):
    """The connecting user may not make the roles."""


class PromotionRefused(SinksError, Terminal):
    """That indicator cannot have a column of its own."""


class SchemaNameRefused(SinksError, Terminal):
    """A name that no schema of a history can have."""


class ExecutorUnusable(SinksError, Terminal):
    """There is no executor of that name, or it lacks what it needs."""


class NotInDoubt(SinksError, Terminal):
    """There is nothing to resolve about that order."""


class ExecutorBusy(SinksError, Transient):
    """The executor did not take an order now; it is sent again after `retry_after_s`."""

    def __init__(self, why: str, *, retry_after_s: float = 0.0) -> None:
        super().__init__(why)
        self.retry_after_s = retry_after_s


class ReplayRefused(SinksError, Terminal):
    """A replay that would harm what is live, or cannot be carried out as asked."""


class ReplayStopped(SinksError):
    """A replay was asked to stop before it had come through; it can be resumed."""
