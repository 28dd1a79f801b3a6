"""Schemas that came into the registry after a process had started, looked up when the first record names them.

A newer producer may be there before its consumers are. While the registry is away such a record waits: a dead letter is
only one whose id the registry does not know.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from tradetape.schemas.avro_schema import FIRST_CONTENT_ID, Schema
from tradetape.schemas.catalogue import EventType
from tradetape.schemas.errors import RegistryDenied, RegistryRefused, RegistryUnreachable
from tradetape.schemas.registry import Registry, is_trusted

logger = logging.getLogger("tradetape.schemas")

ASK_AGAIN_S = 1.0
"""How long a registry that was away is left alone."""
UNKNOWN_S = 60.0
"""How long an id that the registry did not know is taken for unknown without asking."""
MAX_UNKNOWN = 10_000
MAX_ASKING_S = 30.0
"""After so long with questions it is as if the registry were away, once, so that an engine polls: many unknown ids and a
slow registry must not cost a worker its partitions."""

Learned = Callable[[str, int, Schema], None]


class LateSchemas:
    """Asks one registry about single ids. Threads and forked children may share it: it holds no lock and no connection."""

    def __init__(
        self,
        open_registry: Callable[[], Registry],
        *,
        learned: Learned = lambda *_: None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        """`open_registry` begins a conversation with a time limit of its own; `learned` is told of each schema found."""
        self._open_registry = open_registry
        self._learned = learned
        self._clock = clock
        self._unknown: dict[tuple[str, int], float] = {}
        self._asking_s = 0.0
        self._failure = ""
        self._failed_at = -ASK_AGAIN_S

    def find(self, event_type: EventType, subject: str, schema_id: int) -> Schema | None:
        """The schema under an id of a subject; None where there is none, or none that is safe to read with.

        Raises RegistryUnreachable while that cannot be known, also for a registry that refuses us.
        """
        now = self._clock()
        if schema_id >= FIRST_CONTENT_ID or now - self._unknown.get((subject, schema_id), -UNKNOWN_S) < UNKNOWN_S:
            return None
        if now - self._failed_at < ASK_AGAIN_S:
            raise RegistryUnreachable(self._failure)
        if self._asking_s > MAX_ASKING_S:
            self._asking_s = 0.0
            raise RegistryUnreachable(f"the schema registry was asked about unknown ids for {MAX_ASKING_S:g} s")
        schema = self._ask(subject, schema_id)
        self._asking_s += self._clock() - now
        if schema is not None and is_trusted(event_type, subject, schema_id, schema):
            logger.info("%s has a schema that is new to us: id %d", subject, schema_id, extra={"schema_id": schema_id})
            self._learned(subject, schema_id, schema)
            return schema
        if len(self._unknown) >= MAX_UNKNOWN:
            self._unknown.clear()
        self._unknown[subject, schema_id] = now
        return None

    def _ask(self, subject: str, schema_id: int) -> Schema | None:
        try:
            with self._open_registry() as registry:
                return registry.find(subject, schema_id)
        except (RegistryUnreachable, RegistryRefused, RegistryDenied) as error:
            self._failed_at = self._clock()
            self._failure = f"a record waits for schema {schema_id} of {subject}: {error}"
            raise RegistryUnreachable(self._failure) from error
