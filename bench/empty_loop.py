"""`python -m bench.empty_loop SECONDS TURN_S CALLSxNS…`: a paced loop of calls that do nothing, timed.

Each turn has so many calls of each kind, each of which takes so long of a processor; prints for each kind, as JSON, by
how many nanoseconds each call took longer than that. What their tail shows is the machine's own, and the longer a call,
the likelier it is to be interrupted: whoever measures beside it subtracts that of a kind of its own length. It goes on in
the middle of the turns of whoever measures, so as not to be in the way itself.
"""

from __future__ import annotations

import json
import sys
import time
from array import array
from typing import NamedTuple

from bench.timing import paced

PHASE = 0.5


class Kind(NamedTuple):
    """How many calls a turn has of a kind, and how long each takes of a processor."""

    calls: int
    length_ns: int

    def __str__(self) -> str:
        return f"{self.calls}x{self.length_ns}"

    @classmethod
    def read(cls, text: str) -> Kind:
        """The kind as `str` shows it."""
        calls, length_ns = map(int, text.split("x"))
        return cls(calls, length_ns)


def main() -> None:
    """Turn after turn, so many calls in each."""
    seconds, turn_s, kinds = float(sys.argv[1]), float(sys.argv[2]), [Kind.read(one) for one in sys.argv[3:]]
    late = [array("q") for _ in kinds]
    for _ in paced(int(seconds / turn_s), turn_s, phase=PHASE):
        for kind, found in zip(kinds, late, strict=True):
            for _ in range(kind.calls):
                found.append(_call(kind.length_ns))
    print(json.dumps([list(one) for one in late]))


def _call(length_ns: int) -> int:
    """Compute for so long; how much later than that it was over."""
    began, used = time.perf_counter_ns(), time.thread_time_ns()
    while time.thread_time_ns() < used + length_ns:
        pass
    return time.perf_counter_ns() - began - length_ns


if __name__ == "__main__":
    main()
