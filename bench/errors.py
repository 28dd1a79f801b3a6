"""What can go wrong in a benchmark.

BenchFailed    a subject could not be carried through; the others go on
"""

from __future__ import annotations


class BenchFailed(Exception):
    """A subject could not be carried through."""
