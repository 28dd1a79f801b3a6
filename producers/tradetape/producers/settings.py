"""The one way configuration comes in: the environment, read once, checked whole (I13).

Every variable that any process of tradetape reads is a field of `Settings`, so a mistyped TRADETAPE_* name is an error
with the nearest name, never a setting that silently does nothing. TRADETAPE_KAFKA_* passes librdkafka options through.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec

from tradetape.producers.addresses import completed
from tradetape.producers.errors import SettingsError
from tradetape.schemas import CATALOGUE, Catalogue, RunMode
from tradetape.schemas.catalogue import DEFAULT_PREFIX

PREFIX = "TRADETAPE_"
KAFKA_PREFIX = "TRADETAPE_KAFKA_"
UNPREFIXED = ("KAFKA_BOOTSTRAP_SERVERS", "SCHEMA_REGISTRY_URL", "REDIS_URL", "DATABASE_URL")
EXAMPLES = {
    "KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:19092",
    "SCHEMA_REGISTRY_URL": "http://127.0.0.1:18081/apis/ccompat/v7",
    "REDIS_URL": "redis://127.0.0.1:16379/0",
    "DATABASE_URL": "postgresql://tradetape:…@127.0.0.1:15432/tradetape",
}
_KINDS = {"REDIS_URL": "a Redis", "DATABASE_URL": "a PostgreSQL"}
_PASSWORD_FILES = {
    "REDIS_URL": "redis_password_file",
    "DATABASE_URL": "database_password_file",
    "SCHEMA_REGISTRY_URL": "schema_registry_password_file",
}


def _says(meaning: str) -> Any:
    return msgspec.Meta(description=meaning)


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """Every setting, by the lower-case name of its variable without TRADETAPE_."""

    kafka_bootstrap_servers: Annotated[str | None, _says("Kafka's addresses, host:port, comma-separated")] = None
    schema_registry_url: Annotated[
        str | None, _says("a schema registry as Confluent's; none by default: ids come from the schemas")
    ] = None
    redis_url: Annotated[str | None, _says("Redis, for current state")] = None
    database_url: Annotated[str | None, _says("PostgreSQL, for history")] = None
    topic_prefix: Annotated[str, _says("what every topic's name begins with")] = DEFAULT_PREFIX
    replication: Annotated[
        Annotated[int, msgspec.Meta(gt=0)] | None,
        _says("how many brokers keep each topic; by default as many as keep the others, else 1"),
    ] = None
    redis_prefix: Annotated[str, _says("what every Redis key begins with")] = "tradetape"
    run_mode: Annotated[str, _says("LIVE, PAPER or BACKTEST: whether real money stands behind the events")] = "LIVE"
    policy_file: Annotated[
        str | None, _says("the policy of `work approval`; by default only expired and repeated signals are refused")
    ] = None
    home: Annotated[str | None, _says("folder of the local stack; the platform's folder for state by default")] = None
    cache: Annotated[
        str | None, _says("folder of downloads and of a registry's ids; the platform's cache by default")
    ] = None
    outbox_dir: Annotated[
        str | None, _says("folder of the outboxes, one for each source; in the platform's folder for state by default")
    ] = None
    outbox_max_bytes: Annotated[
        int, _says("how much an outbox may hold before `emit` refuses decisions"), msgspec.Meta(gt=0)
    ] = 1024**3
    durability: Annotated[
        Literal["process", "power"],
        _says("what a decision survives once emitted: process or power, which waits for the disk"),
    ] = "process"
    development: Annotated[
        bool,
        _says("true lets Kafka options weaken a guarantee or skip certificate checks; never where money is at stake"),
    ] = False
    ca_file: Annotated[
        str | None,
        _says("certificates that those of Kafka, Redis, PostgreSQL and the registry must be signed by, under TLS"),
    ] = None
    redis_password_file: Annotated[str | None, _says("a file with the password of the user in REDIS_URL")] = None
    database_password_file: Annotated[str | None, _says("a file with the password of the user in DATABASE_URL")] = None
    schema_registry_password_file: Annotated[
        str | None, _says("a file with the password of the user in SCHEMA_REGISTRY_URL")
    ] = None
    webhook_secret: Annotated[str | None, _says("signs what the dispatcher posts to a webhook")] = None
    webhook_secret_file: Annotated[str | None, _says("the same, as a file that holds it")] = None
    http_port: Annotated[int | None, _says("a worker's port for /livez, /readyz and /metrics; off by default")] = None
    http_host: Annotated[str, _says("the address that it binds to")] = "127.0.0.1"
    log_format: Annotated[str | None, _says("text or json; text on a terminal, else json")] = None
    log_level: Annotated[str, _says("DEBUG, INFO, WARNING or ERROR")] = "INFO"
    kafka_options: dict[str, str] = msgspec.field(default_factory=dict)
    """librdkafka options from TRADETAPE_KAFKA_*, by librdkafka's names."""

    def __repr__(self) -> str:
        return f"Settings(topic_prefix={self.topic_prefix!r}, run_mode={self.run_mode!r}, …)"

    def required(self, variable: str) -> str:
        """The value of one of the unprefixed variables, with password and trust. Raises SettingsError where it is not set."""
        value = getattr(self, variable.lower())
        if not value:
            example = EXAMPLES[variable]
            option = " --registry" if variable == "SCHEMA_REGISTRY_URL" else ""
            raise SettingsError(
                f"{variable} is not set in the environment; set it (example: {variable}={example}), or start a local stack with `tradetape up{option}`"
            )
        if self.ca_file:
            # Here, since each of the clients would say something else about one that is missing.
            _file_content(_variable("ca_file"), self.ca_file)
        return self._completed(variable, str(value))

    def _completed(self, variable: str, address: str) -> str:
        path = _PASSWORD_FILES.get(variable) and getattr(self, _PASSWORD_FILES[variable])
        password = _file_content(_variable(_PASSWORD_FILES[variable]), path) if path else None
        try:
            return completed(address, password=password, ca_file=self.ca_file)
        except ValueError:
            raise SettingsError(
                f"{variable} holds a password, and {_variable(_PASSWORD_FILES[variable])} is set too; keep one"
            ) from None

    def secret(self, field: str) -> str | None:
        """A secret by its field, which also stands in the file that <field>_file names. Raises SettingsError."""
        given, path = getattr(self, field), getattr(self, f"{field}_file")
        if given and path:
            raise SettingsError(f"{_variable(field)} and {_variable(field)}_FILE are both set; keep one")
        return _file_content(f"{_variable(field)}_FILE", path) if path else given

    def catalogue(self, catalogue: Catalogue = CATALOGUE) -> Catalogue:
        """The catalogue on this environment's topics."""
        return catalogue.with_prefix(self.topic_prefix)

    def mode(self) -> RunMode:
        """The run mode of what this process emits. Raises SettingsError."""
        allowed = (RunMode.LIVE, RunMode.PAPER, RunMode.BACKTEST)
        if self.run_mode not in allowed:
            raise SettingsError(f"{PREFIX}RUN_MODE={self.run_mode!r} must be one of {', '.join(allowed)}")
        return RunMode(self.run_mode)


class Variable(msgspec.Struct, frozen=True):
    """One documented variable."""

    name: str
    default: str
    meaning: str


def variables() -> tuple[Variable, ...]:
    """Every documented variable, in the order of the README's table."""
    fields = [field for field in msgspec.structs.fields(Settings) if field.name != "kafka_options"]
    return tuple(
        Variable(_variable(field.name), "" if field.default is None else str(field.default), _meaning(field.type))
        for field in fields
    )


def _variable(field: str) -> str:
    upper = field.upper()
    return upper if upper in UNPREFIXED else PREFIX + upper


def _meaning(annotated: Any) -> str:
    for part in getattr(annotated, "__metadata__", ()):
        if isinstance(part, msgspec.Meta):
            return part.description or ""
    return ""


def load(environ: Mapping[str, str] | None = None) -> Settings:
    """The settings of this process. Raises SettingsError."""
    environ = os.environ if environ is None else environ
    known = {_variable(field): field for field in Settings.__struct_fields__ if field != "kafka_options"}
    given: dict[str, Any] = {field: environ[name] for name, field in known.items() if environ.get(name)}
    options: dict[str, str] = {}
    for name, value in environ.items():
        if name.startswith(KAFKA_PREFIX):
            option, read = _kafka_option(name, value)
            if option in options:
                raise SettingsError(
                    f"{kafka_variable(option)} and {kafka_variable(option)}_FILE are both set; keep one"
                )
            options[option] = read
        elif name.startswith(PREFIX) and name not in known:
            raise SettingsError(_unknown(name, known))
    if given.get("ca_file") and "ssl" in options.get("security.protocol", "").lower():
        options.setdefault("ssl.ca.location", given["ca_file"])
    try:
        return msgspec.convert({**given, "kafka_options": options}, Settings, strict=False)
    except msgspec.ValidationError as error:
        raise SettingsError(_wrong(str(error))) from None


def _kafka_option(name: str, value: str) -> tuple[str, str]:
    if name.endswith("_FILE"):
        return _dotted(name.removesuffix("_FILE")), _file_content(name, value)
    return _dotted(name), value


def _file_content(name: str, path: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8").strip()
    except OSError as error:
        raise SettingsError(f"{name} names {path}, which cannot be read: {error.strerror}") from None
    except UnicodeDecodeError:
        raise SettingsError(f"{name} names {path}, which is not UTF-8 text") from None


def _dotted(name: str) -> str:
    return name.removeprefix(KAFKA_PREFIX).lower().replace("_", ".")


def kafka_variable(option: str) -> str:
    """The variable that passes a librdkafka option through."""
    return KAFKA_PREFIX + option.upper().replace(".", "_")


def _unknown(name: str, known: Mapping[str, str]) -> str:
    close = difflib.get_close_matches(name, known, n=1)
    hint = f"did you mean {close[0]}?" if close else f"known are {', '.join(sorted(set(known) - set(UNPREFIXED)))}"
    return f"{name} is set, but no part of tradetape reads it; {hint}"


def _wrong(text: str) -> str:
    """msgspec names the field as `$.http_port`; people know the variable."""
    rule, _, path = text.partition(" - at `$.")
    field = path.rstrip("`")
    return f"{_variable(field)}: {rule}" if field else text


def unreadable(variable: str) -> SettingsError:
    """The error of an address that its client cannot read; it does not hold the address."""
    return SettingsError(
        f"{variable} is no address of {_KINDS[variable]}, such as {EXAMPLES[variable]}; in its password, write a space as "
        f"%20, @ as %40, or put it into {_variable(_PASSWORD_FILES[variable])}"
    )
