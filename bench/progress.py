"""What is going on, for whoever waits: on stderr, since stdout carries the results alone."""

from __future__ import annotations

import sys


def say(text: str) -> None:
    """One line."""
    print(text, file=sys.stderr, flush=True)
