"""The codec of a process: with SCHEMA_REGISTRY_URL its events carry the registry's ids, else those of their content.

The registry is asked at the start, and its answer is kept on disk, so that a bot also starts while the registry is
away. What is kept is only what the registry said; it can be deleted at any time. Later it is asked only about ids that
records name and that it had not given yet at the start.
"""

from __future__ import annotations

import hashlib
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from tradetape.producers.errors import SettingsError
from tradetape.producers.settings import Settings
from tradetape.schemas import CATALOGUE, Catalogue, Codec
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.errors import RegistryUnreachable

if TYPE_CHECKING:
    from tradetape.schemas.registry import Registry

logger = logging.getLogger("tradetape.producers")

ANSWER_TIMEOUT_S = 2.5
"""For all of a registry's answers together: a bot waits no longer for one that hangs."""
FIRST_TIMEOUT_S = 20.0
"""The same where nothing was kept: there is nothing to go on with."""

_Found = dict[str, dict[int, Schema]]


class _Kept(msgspec.Struct):
    """The content of a file; the address is for people."""

    registry: str
    subjects: _Found


def codec_of(
    settings: Settings, catalogue: Catalogue = CATALOGUE, *, answer_timeout_s: float = ANSWER_TIMEOUT_S
) -> Codec:
    """The codec of the catalogue on this environment's topics; a registry has `answer_timeout_s` to tell its ids.

    Raises SettingsError for a damaged SCHEMA_REGISTRY_URL, NotRegistered when the registry lacks a schema,
    RegistryRefused, RegistryDenied, and RegistryUnreachable when it is away and was never asked from this machine.
    """
    on_topics = settings.catalogue(catalogue)
    if not settings.schema_registry_url:
        return Codec(on_topics)
    from tradetape.schemas.late_schemas import LateSchemas
    from tradetape.schemas.registry import trusted

    def open_registry() -> Registry:
        return registry_of(settings, timeout_s=answer_timeout_s)

    registry = open_registry()
    kept_at = _kept_at(registry.address, on_topics.prefix, settings.cache)
    kept = _read_kept(kept_at)
    if kept is None:
        registry = registry_of(settings, timeout_s=FIRST_TIMEOUT_S)
    found = _found(registry, on_topics, kept)
    if found is not kept:
        _keep(kept_at, _Kept(registry.address, found))

    def learned(subject: str, schema_id: int, schema: Schema) -> None:
        found.setdefault(subject, {})[schema_id] = schema
        _keep(kept_at, _Kept(registry.address, found))

    return Codec(on_topics, registered=trusted(found, on_topics), look_up=LateSchemas(open_registry, learned=learned))


def registry_of(settings: Settings, *, timeout_s: float) -> Registry:
    """The registry that the environment names; nothing is asked yet. Raises SettingsError."""
    # Here, since a bot without a registry needs none of it, and HTTP takes long to import.
    from tradetape.schemas.registry import Registry

    try:
        return Registry(settings.required("SCHEMA_REGISTRY_URL"), timeout_s=timeout_s, ca_file=settings.ca_file)
    except ValueError as error:
        raise SettingsError(f"SCHEMA_REGISTRY_URL {error}") from None
    except OSError as error:
        # Also ssl.SSLError: a file that holds no certificate.
        raise SettingsError(
            f"TRADETAPE_CA_FILE names {settings.ca_file}, which holds no certificates: {error}"
        ) from None


def _found(registry: Registry, catalogue: Catalogue, kept: _Found | None) -> _Found:
    from tradetape.schemas.registry import read

    try:
        with registry:
            return read(registry, catalogue)
    except RegistryUnreachable as error:
        if kept is None:
            raise RegistryUnreachable(f"{error}; its ids were never kept here, so it is needed once") from error
        logger.warning("%s; going on with the ids that it gave before", error)
        return kept


def _kept_at(address: str, prefix: str, cache: str | None) -> Path:
    """One file for each registry and topic prefix."""
    import platformdirs

    folder = Path(cache) if cache else platformdirs.user_cache_path("tradetape")
    return folder / "registries" / f"{hashlib.sha256(f'{address} {prefix}'.encode()).hexdigest()[:16]}.json"


def _read_kept(path: Path) -> _Found | None:
    try:
        return msgspec.json.decode(path.read_bytes(), type=_Kept).subjects
    except FileNotFoundError:
        return None
    except (OSError, msgspec.DecodeError) as error:
        logger.warning("passed over %s, which cannot be read: %s", path, error)
        return None


def _keep(path: Path, kept: _Kept) -> None:
    """Write the file in one step: whoever reads it, and whatever ends us, it is whole."""
    content = msgspec.json.encode(kept)
    try:
        if path.is_file() and path.read_bytes() == content:
            return
        path.parent.mkdir(parents=True, exist_ok=True)
        fresh = path.with_suffix(f".{os.getpid()}.new")
        fresh.write_bytes(content)
        fresh.replace(path)
    except OSError as error:
        logger.warning("cannot keep the ids of the schema registry in %s: %s", path, error)
