"""Which extras of tradetape are installed whole. A bot needs none of them, so one that is missing is a warning."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from importlib import metadata, util

from tradetape.console.doctor.finding import Finding, State
from tradetape.console.extras import EXTRA_OF


def _is_installed(package: str) -> bool:
    # One that is loaded may have no spec any more: faust puts itself in the place of its own module.
    return package in sys.modules or util.find_spec(package) is not None


def check(is_installed: Callable[[str], bool] = _is_installed) -> Iterator[Finding]:
    """One finding for each extra that lacks packages, or one for all."""
    lacking: dict[str, list[str]] = {}
    for package, extra in EXTRA_OF.items():
        if not is_installed(package):
            lacking.setdefault(extra, []).append(package)
    for extra, packages in lacking.items():
        detail = f"the extra {extra} lacks {', '.join(packages)}"
        yield Finding("packages", State.WARN, detail, f"pip install 'tradetape[{extra}]'")
    if not lacking:
        extras = ", ".join(dict.fromkeys(EXTRA_OF.values()))
        yield Finding("packages", State.OK, f"tradetape {metadata.version('tradetape')} with {extras}")
