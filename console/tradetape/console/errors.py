"""What can go wrong at the console.

ConsoleError
├── StackError            the local stack cannot be started, stopped or found
│   ├── DownloadFailed    a file of a service could not be fetched or is not what it should be
│   └── ServiceFailed     a service did not start; its last log lines are in the message
├── CredentialsError      the folder of credentials cannot be read or written
├── AccessError           a service does not take the rights that are declared
├── UsageError            an argument has no meaning
└── DemoFailed            the demo could not be carried through
"""

from __future__ import annotations


class ConsoleError(Exception):
    """A command could not be carried out."""


class StackError(ConsoleError):
    """The local stack cannot be started, stopped or found."""


class DownloadFailed(StackError):
    """A file of a service could not be fetched or is not what it should be."""


class ServiceFailed(StackError):
    """A service of the local stack did not start."""


class CredentialsError(ConsoleError):
    """The folder of credentials cannot be read or written."""


class AccessError(ConsoleError):
    """A service does not take the rights that are declared."""


class UsageError(ConsoleError):
    """An argument has no meaning."""


class DemoFailed(ConsoleError):
    """The demo could not be carried through."""
