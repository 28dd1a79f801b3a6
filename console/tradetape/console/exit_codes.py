"""What a command's exit code says; the README's table is about these."""

OK = 0
FAILED = 1
"""It could not be done; the message says why."""
USAGE = 2
"""Wrong arguments or settings."""
UNREACHABLE = 3
"""A service cannot be reached."""
BAD_DATA = 4
"""The data is wrong: an incompatible schema, a difference found by reconciliation."""
INTERRUPTED = 130
"""Ended by Ctrl-C (128 + SIGINT)."""
TERMINATED = 143
"""Ended by SIGTERM (128 + SIGTERM)."""
