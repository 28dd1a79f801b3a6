"""The released schemas of this package beside a schema registry: what it lacks, and how that comes into it."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from tradetape.producers.codecs import registry_of
from tradetape.producers.settings import Settings
from tradetape.schemas import EventType, avro_schema
from tradetape.schemas.errors import IncompatibleSchema
from tradetape.schemas.registry import Pushed, guard, push
from tradetape.schemas.released import Archive, Version, folder

PUSH_TIMEOUT_S = 60.0


class Registration(NamedTuple):
    """One subject: its versions as they now are in the registry, or why they cannot come into it."""

    subject: str
    pushed: list[Pushed]
    refusal: str | None = None
    guarded_before: str | None = None
    """Which compatibility it had before it was set to FULL_TRANSITIVE, None where it was that already."""


def register_all(settings: Settings, *, dry_run: bool = False) -> Iterator[Registration]:
    """Bring every released version to the registry of the settings; a refused subject does not stop the others.

    Raises SettingsError, RegistryUnreachable, RegistryRefused.
    """
    catalogue = settings.catalogue()
    with registry_of(settings, timeout_s=PUSH_TIMEOUT_S) as registry:
        for event_type in catalogue:
            subject, versions = catalogue.subject(event_type), Archive(folder()).versions(event_type.record)
            if _is_unreleased(event_type, versions):
                refusal = f"{event_type.record} differs from its last released version; run `tradetape schemas freeze`"
                yield Registration(subject, [], refusal)
                continue
            before = guard(registry, subject, dry_run=dry_run)
            try:
                pushed = push(registry, subject, versions, dry_run=dry_run)
                yield Registration(subject, pushed, guarded_before=before)
            except IncompatibleSchema as error:
                yield Registration(subject, [], str(error), guarded_before=before)


def _is_unreleased(event_type: EventType, versions: tuple[Version, ...]) -> bool:
    return not versions or versions[-1].schema_id != avro_schema.content_id(event_type.schema)
