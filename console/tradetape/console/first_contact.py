"""Does a service let us in? Asked when a worker starts, and when a command could not reach Kafka, to say why in one line.

A wrong password, a right that is missing or a certificate that is not trusted is nothing that waiting mends: who starts
with one ends with exit code 3. A service that is merely away is waited for, by whoever needs it.
"""

from __future__ import annotations

import socket
import ssl
import struct
import time
from collections.abc import Callable, Iterable

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import AdminClient

from tradetape.producers.addresses import place_of
from tradetape.producers.connection import KafkaSettings, denial
from tradetape.producers.errors import SettingsError
from tradetape.producers.settings import Settings
from tradetape.schemas.certificates import distrust
from tradetape.streams.errors import BrokersDenied, Denied, Transient

TIMEOUT_S = 5.0
ASK_INTERVAL_S = 0.25
_POSTGRES_TLS = struct.pack(">ii", 8, 80_877_103)
"""What a client of PostgreSQL sends before TLS begins; one byte is the answer."""


def let_in(settings: Settings, variables: Iterable[str]) -> None:
    """Ask Kafka, and the services of these variables. Raises Denied, SettingsError; one that is away is passed over."""
    ask: dict[str, Callable[[Settings], None]] = {"REDIS_URL": _ask_redis, "DATABASE_URL": _ask_postgres}
    if (why := kafka_denial(KafkaSettings.of(settings))) is not None:
        raise BrokersDenied(why)
    for variable in variables:
        try:
            ask[variable](settings)
        except Denied:
            raise
        except Transient:
            # The worker waits for it, and says so.
            continue


def kafka_denial(kafka: KafkaSettings, *, timeout_s: float = TIMEOUT_S) -> str | None:
    """Why Kafka keeps us out; None where it lets us in, or does not answer, or is not asked for anything of the kind."""
    if kafka.options.get("security.protocol", "plaintext").lower() == "plaintext":
        return None
    heard: list[KafkaError] = []
    config = kafka.client_config({}) | {"error_cb": heard.append, "log_level": 0}
    try:
        admin = AdminClient(config)
    except KafkaException as error:
        raise SettingsError(f"a TRADETAPE_KAFKA_* option: {error.args[0].str()}") from None
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            admin.list_topics(timeout=ASK_INTERVAL_S)
            return None
        except KafkaException:
            admin.poll(0)
        for one in heard:
            if (why := denial(one)) is not None:
                return _with_reason(why, kafka) if one.code() == KafkaError._SSL else why
    return None


def _with_reason(why: str, kafka: KafkaSettings) -> str:
    """librdkafka does not tell what is wrong with a certificate: look at it ourselves."""
    address = kafka.bootstrap_servers.split(",")[0].strip().rpartition("://")[2]
    host, _, port = address.rpartition(":")
    return _refined(why, host.strip("[]"), int(port), kafka.options.get("ssl.ca.location"))


def _ask_redis(settings: Settings) -> None:
    from tradetape.streams.state.connection import connect, mapped_errors

    client = connect(settings.required("REDIS_URL"))
    try:
        with mapped_errors():
            client.ping()
    finally:
        client.close()


def _ask_postgres(settings: Settings) -> None:
    from tradetape.sinks.errors import DatabaseDenied
    from tradetape.sinks.history.connection import connect

    address = settings.required("DATABASE_URL")
    try:
        connect(address, application="tradetape-start").close()
    except DatabaseDenied as error:
        # libpq says no more of a certificate than that it is not trusted.
        host, _, port = place_of(address).partition(":")
        raise DatabaseDenied(
            _refined(str(error), host, int(port or 5432), settings.ca_file, opening=_POSTGRES_TLS)
        ) from error


def _refined(why: str, host: str, port: int, ca_file: str | None, *, opening: bytes = b"") -> str:
    """The sentence, with what is wrong with the certificate in the place of `is not trusted`."""
    try:
        found = _look(host, port, ca_file, opening)
    except OSError:
        return why
    return why.replace("is not trusted", f"is not trusted: {found}") if found else why


def _look(host: str, port: int, ca_file: str | None, opening: bytes) -> str | None:
    context = ssl.create_default_context(cafile=ca_file)
    with socket.create_connection((host, port), timeout=TIMEOUT_S) as plain:
        if opening:
            plain.sendall(opening)
            plain.recv(1)
        try:
            context.wrap_socket(plain, server_hostname=host).close()
        except ssl.SSLCertVerificationError as error:
            return distrust(error)
    return None
