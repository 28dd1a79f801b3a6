"""The environment that quixstreams runs in: made once by pip, as the caller's pip is set up, and kept in the cache.

It is told from others by what is pinned and by the Python that made it; one whose making was cut short is made anew.
"""

from __future__ import annotations

import hashlib
import subprocess
import sys
from pathlib import Path

from bench.errors import BenchFailed
from bench.progress import say
from tradetape.console.local.places import default_cache

REQUIREMENTS = Path(__file__).with_name("requirements.txt")
INSTALL_TIMEOUT_S = 600.0
ERROR_LINES = 5


def interpreter() -> Path:
    """The Python of that environment. Raises BenchFailed where it cannot be installed."""
    pinned = hashlib.sha256(REQUIREMENTS.read_bytes()).hexdigest()[:12]
    folder = default_cache() / "bench" / f"peers-{pinned}-{sys.implementation.cache_tag}"
    python, is_made = folder / "bin" / "python", folder / "is-made"
    if not is_made.exists():
        say(f"peers: installing {REQUIREMENTS.name} into an environment of its own, once")
        _run(sys.executable, "-m", "venv", "--clear", str(folder))
        _run(str(python), "-m", "pip", "install", "--quiet", "--requirement", str(REQUIREMENTS))
        is_made.touch()
    return python


def _run(*command: str) -> None:
    done = subprocess.run(command, capture_output=True, text=True, timeout=INSTALL_TIMEOUT_S, check=False)
    if done.returncode != 0:
        last = "\n".join(done.stderr.splitlines()[-ERROR_LINES:])
        raise BenchFailed(f"the peers' environment cannot be installed: {last}")
