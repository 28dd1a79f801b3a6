"""A schema registry that speaks Confluent's REST: which ids it gives our schemas, and how they come into it.

Producers and workers only read, when they start and when a record names an id that they do not know; `push` alone
registers. A version is known by its content as avro_schema tells it, not by the registry's own look-up: registries
differ in what they take for the same schema.
"""

from __future__ import annotations

import base64
import http.client
import json
import logging
import ssl
import time
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from typing import Any, NamedTuple, Self, TypeVar
from urllib.parse import SplitResult, quote, unquote, urlsplit

import msgspec

from tradetape.schemas import avro_schema, lint
from tradetape.schemas.avro_schema import FIRST_CONTENT_ID, Schema
from tradetape.schemas.catalogue import Catalogue, EventType
from tradetape.schemas.certificates import distrust
from tradetape.schemas.errors import IncompatibleSchema, RegistryDenied, RegistryRefused, RegistryUnreachable
from tradetape.schemas.released import Version, released_schemas

logger = logging.getLogger("tradetape.schemas")

COMPATIBILITY = "FULL_TRANSITIVE"
MAX_ANSWER_BYTES = 4 * 1024 * 1024
_MEDIA_TYPE = "application/vnd.schemaregistry.v1+json"
_NOT_THERE = frozenset((40401, 40402, 40403, 40408))
"""Confluent's codes for a subject, a version, a schema, a subject's compatibility that the registry does not hold."""
_DENIED = frozenset((http.client.UNAUTHORIZED, http.client.FORBIDDEN))
_LATER = frozenset((http.client.REQUEST_TIMEOUT, http.client.TOO_MANY_REQUESTS))

Registered = Mapping[str, Mapping[int, Schema]]
"""By subject: its schemas by the registry's id, oldest first."""
AnswerT = TypeVar("AnswerT")


class _Fault(msgspec.Struct):
    error_code: int = 0
    message: str = ""


class _Version(msgspec.Struct):
    id: int
    schema: str
    schema_type: str = msgspec.field(default="AVRO", name="schemaType")


class _Place(msgspec.Struct):
    subject: str
    version: int


class _Id(msgspec.Struct):
    id: int


class _Compatibility(msgspec.Struct):
    level: str = msgspec.field(name="compatibilityLevel")


class Registry:
    """One conversation with a registry: all of its answers have to come within `timeout_s` together.

    `url` may hold user and password, which no message and no log repeats. Every method raises RegistryUnreachable when
    the registry is away or has a fault of its own, RegistryDenied when it does not let us in or is not trusted, and
    RegistryRefused when it will not do what it is asked.
    """

    def __init__(self, url: str, *, timeout_s: float, ca_file: str | None = None) -> None:
        """Connects to nothing yet. Raises ValueError for what is no address of a registry, OSError for an unfit `ca_file`.

        A certificate of an https:// address must be signed by one in `ca_file`, else by one that the system trusts.
        """
        parts, self._connection = _connection(url, ca_file)
        self.address = parts._replace(netloc=parts.netloc.rpartition("@")[2]).geturl().rstrip("/")
        self._timeout_s = timeout_s
        self._deadline = time.monotonic() + timeout_s
        self._path = parts.path.rstrip("/")
        self._headers = {"Accept": _MEDIA_TYPE, "Content-Type": _MEDIA_TYPE, **_authorization(parts)}

    def versions(self, subject: str) -> dict[int, Schema]:
        """The Avro schemas of a subject by id, oldest first; empty for a subject that the registry does not hold."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        found: dict[int, Schema] = {}
        for number in self._ask("GET", path, list[int]) or ():
            version = self._ask("GET", f"{path}/{number}", _Version)
            if version is not None and version.schema_type == "AVRO":
                schema = _record_schema(version)
                if schema is None:
                    what = f"{subject} holds under id {version.id} what is no record's schema"
                    raise RegistryRefused(f"{self.address}: {what}")
                found[version.id] = schema
        return found

    def find(self, subject: str, schema_id: int) -> Schema | None:
        """The Avro schema of a record that has this id and is a version of this subject; None for none."""
        for place in self._ask("GET", f"/schemas/ids/{schema_id}/versions", list[_Place]) or ():
            if place.subject == subject:
                path = f"/subjects/{quote(subject, safe='')}/versions/{place.version}"
                version = self._ask("GET", path, _Version)
                if version is not None and version.schema_type == "AVRO":
                    return _record_schema(version)
        return None

    def register(self, subject: str, schema: Schema) -> int:
        """Make a schema a version of a subject; its id. Raises IncompatibleSchema."""
        path = f"/subjects/{quote(subject, safe='')}/versions"
        answer = self._ask("POST", path, _Id, {"schema": json.dumps(schema)}, subject=subject)
        if answer is None:
            raise RegistryRefused(f"{self.address} does not take the subject {subject}")
        return answer.id

    def compatibility(self, subject: str) -> str | None:
        """The compatibility that is set for a subject itself, None for none."""
        answer = self._ask("GET", f"/config/{quote(subject, safe='')}", _Compatibility)
        return answer.level if answer else None

    def set_compatibility(self, subject: str, level: str) -> None:
        """Set the compatibility of a subject, which need not exist yet."""
        self._ask("PUT", f"/config/{quote(subject, safe='')}", dict[str, Any], {"compatibility": level})

    def _ask(
        self, method: str, path: str, kind: type[AnswerT], body: object = None, *, subject: str = ""
    ) -> AnswerT | None:
        """The answer; None where the registry does not hold what was asked for."""
        status, content = self._exchange(method, path, None if body is None else json.dumps(body))
        if status == http.client.OK:
            try:
                return msgspec.json.decode(content, type=kind)
            except msgspec.DecodeError as error:
                raise RegistryRefused(f"{self.address} does not answer as a schema registry does: {error}") from error
        fault = _fault(content)
        reason = fault.message or http.client.responses.get(status, "")
        if status >= http.client.INTERNAL_SERVER_ERROR or status in _LATER:
            raise RegistryUnreachable(f"the schema registry {self.address} answers {status}: {reason}")
        if status == http.client.CONFLICT:
            raise IncompatibleSchema(subject, reason)
        if status in _DENIED:
            raise RegistryDenied(
                f"the schema registry {self.address} does not let us in: {status} {reason}; check the user in "
                "SCHEMA_REGISTRY_URL and its password"
            )
        if status == http.client.NOT_FOUND and fault.error_code in _NOT_THERE:
            return None
        if status == http.client.NOT_FOUND and not fault.error_code:
            raise RegistryRefused(f"there is no schema registry at {self.address}: it answers {status} to {path}")
        raise RegistryRefused(f"the schema registry {self.address} refuses {method} {path}: {status} {reason}")

    def _exchange(self, method: str, path: str, body: str | None) -> tuple[int, bytes]:
        left_s = self._deadline - time.monotonic()
        try:
            if left_s <= 0:
                raise TimeoutError(f"not all of its answers came within {self._timeout_s:g} s")
            self._connection.timeout = left_s
            if self._connection.sock is not None:
                self._connection.sock.settimeout(left_s)
            self._connection.request(method, self._path + path, body=body, headers=self._headers)
            response = self._connection.getresponse()
            content = response.read(MAX_ANSWER_BYTES + 1)
        except (OSError, http.client.HTTPException, UnicodeError) as error:
            self._connection.close()
            if (why := distrust(error)) is not None:
                raise RegistryDenied(
                    f"the schema registry {self.address} is not trusted: {why}; check TRADETAPE_CA_FILE"
                ) from error
            reason = str(error) or type(error).__name__
            raise RegistryUnreachable(f"the schema registry {self.address} cannot be reached: {reason}") from error
        if len(content) > MAX_ANSWER_BYTES:
            raise RegistryRefused(f"{self.address} answers with more than {MAX_ANSWER_BYTES} bytes to {path}")
        return response.status, content

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _record_schema(version: _Version) -> Schema | None:
    try:
        schema = json.loads(version.schema)
    except ValueError:
        return None
    return schema if isinstance(schema, dict) else None


def _fault(content: bytes) -> _Fault:
    try:
        return msgspec.json.decode(content, type=_Fault)
    except msgspec.DecodeError:
        return _Fault()


def _connection(url: str, ca_file: str | None) -> tuple[SplitResult, http.client.HTTPConnection]:
    """The parts of an address, and a connection to it that is not open yet. Raises ValueError, OSError."""

    def https(host: str, port: int | None) -> http.client.HTTPConnection:
        return http.client.HTTPSConnection(host, port, context=ssl.create_default_context(cafile=ca_file))

    kinds = {"http": http.client.HTTPConnection, "https": https}
    # Whatever is wrong with it, the text of the error may hold the password.
    with suppress(ValueError, KeyError, http.client.InvalidURL):
        parts = urlsplit(url)
        if parts.hostname:
            return parts, kinds[parts.scheme](parts.hostname, parts.port)
    raise ValueError("must be an address such as http://host:8081 or https://user:password@host")


def _authorization(parts: SplitResult) -> dict[str, str]:
    if parts.username is None:
        return {}
    credentials = f"{unquote(parts.username)}:{unquote(parts.password or '')}"
    return {"Authorization": f"Basic {base64.b64encode(credentials.encode()).decode()}"}


def read(registry: Registry, catalogue: Catalogue) -> dict[str, dict[int, Schema]]:
    """What a registry holds for the topics of a catalogue."""
    return {subject: registry.versions(subject) for subject in map(catalogue.subject, catalogue)}


def missing(found: Registered, catalogue: Catalogue) -> list[str]:
    """The subjects that lack the schema which events are written with."""
    return [
        catalogue.subject(one) for one in catalogue if one.schema_id not in _ids(found.get(catalogue.subject(one), {}))
    ]


def trusted(found: Registered, catalogue: Catalogue) -> dict[str, dict[int, Schema]]:
    """What of it events are read with: versions of this package, and others that keep our rules.

    A registry may hold what somebody else put there, and a schema can crash fastavro.
    """
    return {
        catalogue.subject(one): {
            schema_id: schema
            for schema_id, schema in found.get(catalogue.subject(one), {}).items()
            if is_trusted(one, catalogue.subject(one), schema_id, schema)
        }
        for one in catalogue
    }


def is_trusted(event_type: EventType, subject: str, schema_id: int, schema: Schema) -> bool:
    """Whether events under this id are read; says why where they are not."""
    rule = next(_broken_rules(event_type, schema_id, schema), None)
    if rule is not None:
        logger.warning("events under id %d of %s will not be read: %s", schema_id, subject, rule)
    return rule is None


def _broken_rules(event_type: EventType, schema_id: int, schema: Schema) -> Iterator[str]:
    content_id = avro_schema.content_id(schema)
    if schema_id >= FIRST_CONTENT_ID and schema_id != content_id:
        yield f"ids from {FIRST_CONTENT_ID} on come from a schema's content"
    known = (*released_schemas(event_type.record), event_type.schema)
    if content_id not in map(avro_schema.content_id, known):
        yield from lint.problems(event_type.record, schema)
        # Asked only after the problems were none: it takes a schema's structure for sound.
        yield from lint.changes(event_type.schema, schema)


class Pushed(NamedTuple):
    """One released version beside the registry. The id is None for one that a dry run left out."""

    number: int
    schema_id: int | None
    was_there: bool


def guard(registry: Registry, subject: str, *, dry_run: bool = False) -> str | None:
    """Set a subject's compatibility to FULL_TRANSITIVE; what it was, None where it was that already."""
    level = registry.compatibility(subject)
    if level == COMPATIBILITY:
        return None
    if not dry_run:
        registry.set_compatibility(subject, COMPATIBILITY)
    return level or "the registry's default"


def push(registry: Registry, subject: str, versions: Iterable[Version], *, dry_run: bool = False) -> list[Pushed]:
    """Register what a subject lacks of the released versions, oldest first.

    Changes nothing where nothing is missing. Raises IncompatibleSchema, with what our own rules say of it.
    """
    held = registry.versions(subject)
    before, pushed = _ids(held), []
    for version in versions:
        schema_id = before.get(version.schema_id)
        if schema_id is None and not dry_run:
            try:
                schema_id = registry.register(subject, version.schema)
            except IncompatibleSchema as error:
                raise IncompatibleSchema(subject, "; ".join((error.reason, *_differences(held, version)))) from error
        pushed.append(Pushed(version.number, schema_id, version.schema_id in before))
    return pushed


def _differences(held: Mapping[int, Schema], version: Version) -> Iterator[str]:
    """What a version changes that it must not: registries name a place, and seldom a rule."""
    names = {field["name"] for field in version.schema["fields"]}
    for schema_id, schema in held.items():
        for rule in lint.changes(schema, version.schema):
            yield f"v{version.number} beside id {schema_id}: {rule}"
        for field in schema.get("fields", ()):
            if field["name"] not in names and "default" not in field:
                yield f"v{version.number} beside id {schema_id}: {field['name']} has no default, so it must stay"


def _ids(versions: Mapping[int, Schema]) -> dict[int, int]:
    """The registry's ids by those of the content."""
    return {avro_schema.content_id(schema): number for number, schema in versions.items()}
