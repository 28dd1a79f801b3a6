"""The `tradetape` command: as a user runs it, in a process of its own with an environment of its own, or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

from tradetape.console import cli

COMMAND = Path(sys.executable).with_name("tradetape")
TIMEOUT_S = 120


def clean_environment(home: Path, **variables: str) -> dict[str, str]:
    """Ours without anything that names a service or a setting, with a home of the test's own."""
    kept = {
        name: value for name, value in os.environ.items() if name in ("PATH", "HOME", "LANG", "TZ", "TRADETAPE_CACHE")
    }
    return {**kept, "TRADETAPE_HOME": str(home), **variables}


def tradetape(*words: str, environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Run a command to its end."""
    return subprocess.run(
        [str(COMMAND), *words], env=environment, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
    )


def run_command(*words: str) -> int:
    """Run a command in this process; its exit code. What it raises is raised, and not turned into a sentence."""
    args = cli._parser().parse_args(words)
    return int(args.run(args))
