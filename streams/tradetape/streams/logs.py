"""Logs of worker processes: text for people on a terminal, one JSON object a line for everything else.

Only a worker's own process calls this; as a library tradetape never touches the root logger.
"""

from __future__ import annotations

import logging
import sys
from datetime import UTC, datetime

import msgspec

FIELDS = ("action", "topic", "partition", "offset", "key", "schema_id", "event_id")
"""What a line about a record carries beside its sentence."""


class JsonFormatter(logging.Formatter):
    """One JSON object for each line."""

    def format(self, record: logging.LogRecord) -> str:
        """time, level, logger, message, the fields that are set, and the traceback where there is one."""
        line = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **{name: value for name in FIELDS if (value := getattr(record, name, None)) is not None},
        }
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return msgspec.json.encode(line).decode()


def configure(*, level: str, style: str | None) -> None:
    """Send all logs to stderr; `style` is "text", "json", or None for what fits stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if (style or ("text" if sys.stderr.isatty() else "json")) == "json":
        handler.setFormatter(JsonFormatter())
    else:
        handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)-7s %(name)s: %(message)s"))
    logging.basicConfig(level=level.upper(), handlers=[handler], force=True)
    for noisy in ("faust", "mode", "aiokafka"):
        logging.getLogger(noisy).setLevel(max(logging.WARNING, logging.getLevelName(level.upper())))
