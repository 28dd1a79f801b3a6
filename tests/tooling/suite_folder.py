"""One folder for all that a run of the tests makes, so that nothing is left behind, however the run ends.

Who is interrupted clears up through its fixtures. A worker of pytest-xdist that is ended while a service starts has
no time for that: what still runs in the folder then is ended here, by whoever started the workers.
"""

from __future__ import annotations

import os
import shutil
import signal
import tempfile
from contextlib import suppress
from pathlib import Path

import psutil

END_TIMEOUT_S = 10.0
VARIABLE = "TMPDIR"


def make() -> Path:
    """A new folder; temporary files of this process and of those it starts go there."""
    folder = Path(tempfile.mkdtemp(prefix="tradetape-suite-"))
    # PostgreSQL runs as somebody else where we are root.
    folder.chmod(0o711)
    os.environ[VARIABLE] = str(folder)
    tempfile.tempdir = str(folder)
    return folder


def clear(folder: Path) -> None:
    """End what still runs in the folder, and remove it."""
    left = [one for one in psutil.process_iter() if one.pid != os.getpid() and _works_in(one, folder)]
    for one in left:
        _signal(one, signal.SIGTERM)
    for one in psutil.wait_procs(left, timeout=END_TIMEOUT_S)[1]:
        _signal(one, signal.SIGKILL)
    shutil.rmtree(folder, ignore_errors=True)


def _works_in(process: psutil.Process, folder: Path) -> bool:
    try:
        return process.environ().get(VARIABLE) == str(folder) or any(str(folder) in one for one in process.cmdline())
    except psutil.Error:
        return False


def _signal(process: psutil.Process, number: signal.Signals) -> None:
    with suppress(psutil.NoSuchProcess):
        process.send_signal(number)
