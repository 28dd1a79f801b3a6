"""`python -m bench.empty_loop SECONDS TURN_S CALLS`: a paced loop of calls that do nothing, timed; prints Percentiles as JSON.

What the tail of these calls shows is the machine's own: whoever measures beside it subtracts it.
"""

from __future__ import annotations

import json
import sys
import time
from array import array

from bench.timing import percentiles

CALL_NS = 50_000
"""About as long as a call that is measured beside it."""


def main() -> None:
    """Turn after turn, so many calls in each."""
    seconds, turn_s, calls = float(sys.argv[1]), float(sys.argv[2]), int(sys.argv[3])
    clock = time.perf_counter_ns
    spent = array("q")
    began = time.perf_counter()
    for turn in range(int(seconds / turn_s)):
        for _ in range(calls):
            start = clock()
            while clock() < start + CALL_NS:
                pass
            spent.append(clock() - start)
        time.sleep(max(began + (turn + 1) * turn_s - time.perf_counter(), 0))
    print(json.dumps(list(percentiles([one - CALL_NS for one in spent]))))


if __name__ == "__main__":
    main()
