"""Runs a tradetape command that ends with the process which started it, however that one ends.

The starter holds the other end of this process' stdin and writes nothing. When the starter is gone, even by kill -9,
the operating system closes that end: the command is asked to stop, and is ended if it does not. This needs no help of
the operating system beyond pipes, unlike Linux' PR_SET_PDEATHSIG, which also fires when a mere thread ends.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Sequence

from tradetape.console.cli import main

STOP_GRACE_S = 12.0
"""How long a command may take to stop; workers drain within 10 s."""
STDIN = 0


def run(argv: Sequence[str]) -> int:
    """Run the command; its exit code."""
    threading.Thread(target=_end_with_the_starter, name="tether", daemon=True).start()
    return main(argv)


def _end_with_the_starter() -> None:
    while os.read(STDIN, 64):
        pass
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(STOP_GRACE_S)
    os.kill(os.getpid(), signal.SIGKILL)


if __name__ == "__main__":
    sys.exit(run(sys.argv[1:]))
