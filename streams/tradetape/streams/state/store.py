"""Writes current state: each change by its script, pipelined, so that no repeat and no older event does harm (I3)."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Iterable, Sequence
from importlib import resources
from typing import Any

import redis
from redis.exceptions import NoScriptError

from tradetape.streams.state.connection import connect, mapped_errors, unavailable
from tradetape.streams.state.keys import Keys
from tradetape.streams.state.writes import Members, TradeStep, Update, Write

MAX_FIELDS = 120
MAX_VALUE_BYTES = 64
"""Beyond these Redis turns a listpack into a hash table of three times its size."""
PIPELINE_KEYS = 1_000
MARKER_EXPIRY_S = 86_400

RESULTS = {1: "applied", 0: "stale", -1: "expired", -2: "future"}
SCRIPTS = (Update.script, Members.script, TradeStep.script)


class StateStore:
    """One Redis, one prefix. `results` counts applied, stale, expired, future, and values that were unfit."""

    def __init__(self, client: redis.Redis, keys: Keys) -> None:
        self.keys = keys
        self.results: Counter[str] = Counter()
        self._client = client
        folder = resources.files("tradetape.streams.state")
        self._scripts = {name: folder.joinpath(name).read_text(encoding="utf-8") for name in SCRIPTS}
        self._shas = {
            name: hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
            for name, script in self._scripts.items()
        }

    @classmethod
    def from_url(cls, url: str, *, prefix: str) -> StateStore:
        """A store with a client of its own."""
        return cls(connect(url), Keys(prefix))

    def write(self, writes: Sequence[Write]) -> list[Write]:
        """Apply each change that is news to its key; returns those from the future, of which none was applied.

        Raises StateUnavailable; then all may be written again.
        """
        early: list[Write] = []
        for start in range(0, len(writes), PIPELINE_KEYS):
            early += self._write(writes[start : start + PIPELINE_KEYS])
        return early

    def _write(self, writes: Sequence[Write]) -> list[Write]:
        with mapped_errors():
            answers = self._evaluate(writes)
            unknown = [place for place, answer in enumerate(answers) if isinstance(answer, NoScriptError)]
            if unknown:
                # Redis forgot the scripts: a restart, a failover or SCRIPT FLUSH.
                for script in self._scripts.values():
                    self._client.script_load(script)
                for place, answer in zip(unknown, self._evaluate([writes[one] for one in unknown]), strict=True):
                    answers[place] = answer
        for answer in answers:
            if isinstance(answer, Exception):
                raise unavailable(answer) from answer
        self.results.update(RESULTS[answer] for answer in answers)
        return [one for one, answer in zip(writes, answers, strict=True) if RESULTS[answer] == "future"]

    def _evaluate(self, writes: Sequence[Write]) -> list[Any]:
        pipeline = self._client.pipeline(transaction=False)
        for one in writes:
            pipeline.evalsha(self._shas[one.script], 1, one.key, *one.arguments())
        return pipeline.execute(raise_on_error=False)

    def fitting(self, fields: Iterable[tuple[str, str]]) -> dict[str, str]:
        """The fields that keep the hash small; the others are left out and counted, and readers see them as unknown."""
        kept: dict[str, str] = {}
        for name, value in fields:
            if (
                len(kept) < MAX_FIELDS
                and (len(value) <= MAX_VALUE_BYTES // 4 or len(value.encode()) <= MAX_VALUE_BYTES)
                and len(name.encode()) <= MAX_VALUE_BYTES
            ):
                kept[name] = value
            else:
                self.results["unfit"] += 1
        return kept

    def is_filled(self) -> bool:
        """Whether this Redis was filled from the tape; not so when it is new, or was flushed. Raises StateUnavailable."""
        with mapped_errors():
            return bool(self._client.exists(self.keys.layout()))

    def mark_filled(self) -> None:
        """Say that it is filled, or is being filled from the tape's beginning. Raises StateUnavailable."""
        with mapped_errors():
            self._client.set(self.keys.layout(), "1", ex=MARKER_EXPIRY_S)

    def renew_mark(self) -> bool:
        """Keep the marker for another day; False when it is gone, and what was kept with it. Raises StateUnavailable."""
        with mapped_errors():
            return bool(self._client.set(self.keys.layout(), "1", ex=MARKER_EXPIRY_S, xx=True))

    def close(self) -> None:
        """Close the connections."""
        self._client.close()
