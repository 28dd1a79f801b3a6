"""Checks of the schema registry, where one is used: does it answer, does it hold our schemas, does it guard them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING

from tradetape.console.doctor.finding import Finding, State, away, some
from tradetape.producers.settings import EXAMPLES

if TYPE_CHECKING:
    from tradetape.producers.settings import Settings

VARIABLE = "SCHEMA_REGISTRY_URL"
TIMEOUT_S = 10.0
_UP = "tradetape up --registry"
_PUSH = "tradetape schemas push"


def check(settings: Settings) -> Iterator[Finding]:
    """The findings."""
    from tradetape.producers.codecs import registry_of
    from tradetape.producers.errors import SettingsError
    from tradetape.schemas.errors import RegistryDenied, RegistryRefused, RegistryUnreachable
    from tradetape.schemas.registry import missing, read

    catalogue = settings.catalogue()
    try:
        with registry_of(settings, timeout_s=TIMEOUT_S) as registry:
            lacking = missing(read(registry, catalogue), catalogue)
            levels = {subject: registry.compatibility(subject) for subject in map(catalogue.subject, catalogue)}
    except RegistryUnreachable as error:
        yield away("registry", str(error), VARIABLE)._replace(mend=f"check {VARIABLE}; for the local stack: {_UP}")
    except RegistryDenied as error:
        yield Finding("registry", State.FAIL, str(error), "correct user, password or certificates", unreachable=True)
    except (SettingsError, RegistryRefused) as error:
        yield Finding("registry", State.FAIL, str(error), f"export {VARIABLE}={EXAMPLES[VARIABLE]}")
    else:
        yield Finding("registry", State.OK, f"{registry.address} answers")
        yield judge_schemas(lacking, len(levels))
        if not lacking:
            yield judge_compatibility(levels)


def judge_schemas(lacking: list[str], count: int) -> Finding:
    """Whether the registry holds the schemas that events are written with; `lacking` are subjects without."""
    if lacking:
        return Finding("schemas", State.FAIL, f"{len(lacking)} of {count} are not registered: {some(lacking)}", _PUSH)
    return Finding("schemas", State.OK, f"{count} are registered")


def judge_compatibility(levels: Mapping[str, str | None]) -> Finding:
    """Whether the registry refuses what would make events unreadable; levels by subject, None where none is set."""
    from tradetape.schemas.registry import COMPATIBILITY

    if lax := [subject for subject, level in levels.items() if level != COMPATIBILITY]:
        detail = f"{len(lax)} of {len(levels)} subjects are not {COMPATIBILITY}: {some(lax)}"
        return Finding("compatibility", State.WARN, detail, _PUSH)
    return Finding("compatibility", State.OK, f"{COMPATIBILITY} for all subjects")
