"""How large a run is, and where it finds data: the command line's options, as every subject gets them."""

from __future__ import annotations

from pathlib import Path
from typing import NamedTuple

SHARED = Path(__file__).resolve().parents[2] / "shared"


class Options(NamedTuple):
    """`quick` cuts counts and rounds, to see that everything runs; its figures are not for quoting."""

    quick: bool = False
    full: bool = False
    legacy: Path = SHARED / "tools" / "legacy_redis.py"
    data: Path = SHARED / "data"

    @property
    def rounds(self) -> int:
        """How often each side is measured, in turn."""
        return 1 if self.quick else 3
