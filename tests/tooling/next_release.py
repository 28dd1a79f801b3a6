"""The next release of this package, made as a developer makes one: three records with a field more, released by our commands.

Its sources are copies beside ours, and a process runs it when they come first on its path.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("schemas", "sinks")
DECIMAL = {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18}
ADDED: Mapping[str, dict[str, Any]] = {
    "Candle": {"name": "open_interest", "type": ["null", DECIMAL], "default": None, "doc": "In base; null when unknown."},
    "TradeSignal": {"name": "desk", "type": "string", "default": "", "doc": "Whose signal it is; empty for none."},
    "Trade": {"name": "risk_note", "type": ["null", "string"], "default": None, "doc": "What risk said of it, if anything."},
}  # fmt: skip
MIGRATION = """\
ALTER TABLE tradetape.candles ADD COLUMN open_interest numeric(38,18);
ALTER TABLE tradetape.trade_signals ADD COLUMN desk text NOT NULL DEFAULT '';
ALTER TABLE tradetape.trades ADD COLUMN risk_note text;
"""


class NextRelease:
    """A folder with the next release. `environment` is what makes a process run it."""

    def __init__(self, folder: Path) -> None:
        for room in ROOMS:
            shutil.copytree(ROOT / room, folder / room, ignore=shutil.ignore_patterns("__pycache__"))
        self.environment = {"PYTHONPATH": os.pathsep.join(str(folder / room) for room in ROOMS)}
        self._schemas = folder / "schemas" / "tradetape" / "schemas"
        for record, field in ADDED.items():
            self._add(record, field)
        migrations = folder / "sinks" / "tradetape" / "sinks" / "history" / "migrations"
        (migrations / "0900_next_release.sql").write_text(MIGRATION, encoding="utf-8")
        for action in ("freeze", "stubs", "check"):
            self._run("schemas", action)

    def _add(self, record: str, field: Mapping[str, Any]) -> None:
        path = self._schemas / "avro" / f"{record}.avsc"
        schema = json.loads(path.read_text(encoding="utf-8"))
        schema["fields"].append(dict(field))
        path.write_text(json.dumps(schema, indent=2), encoding="utf-8")

    def _run(self, *words: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", "tradetape.console", *words], env={**os.environ, **self.environment},
            capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, f"{words}: {done.stdout}{done.stderr}"
