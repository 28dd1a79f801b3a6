"""Kafka's TLS and SASL settings, as librdkafka names them, for Faust: one environment leads both engines in."""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from typing import Any

from faust.auth import Credentials, SASLCredentials, SSLCredentials

from tradetape.producers.connection import UNCHECKED
from tradetape.producers.errors import SettingsError
from tradetape.producers.settings import kafka_variable

PROTOCOL = "security.protocol"
MECHANISMS = ("PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512")
CARRIED = frozenset((
    PROTOCOL, "sasl.mechanism", "sasl.mechanisms", "sasl.username", "sasl.password", "ssl.ca.location",
    "ssl.certificate.location", "ssl.key.location", "ssl.key.password", *UNCHECKED,
))  # fmt: skip


def credentials_of(options: Mapping[str, Any]) -> Credentials | None:
    """How Faust logs in; None for a broker that asks for nothing. Raises SettingsError for what Faust cannot carry."""
    protocol = str(options.get(PROTOCOL, "plaintext")).lower()
    for option in options:
        if option.startswith(("ssl.", "sasl.")) and option not in CARRIED:
            raise SettingsError(f"the Faust engine does not carry {kafka_variable(option)}; use the engine `kafka`")
    context = _context(options) if "ssl" in protocol else None
    if protocol.startswith("sasl"):
        mechanism = options.get("sasl.mechanism") or options.get("sasl.mechanisms") or "GSSAPI"
        if mechanism not in MECHANISMS:
            raise SettingsError(
                f"the Faust engine does not carry {kafka_variable('sasl.mechanism')}={mechanism}; use the engine `kafka`"
            )
        return SASLCredentials(
            username=options.get("sasl.username"), password=options.get("sasl.password"), ssl_context=context,
            mechanism=mechanism,
        )  # fmt: skip
    return SSLCredentials(context) if context is not None else None


def _context(options: Mapping[str, Any]) -> ssl.SSLContext:
    try:
        context = ssl.create_default_context(cafile=options.get("ssl.ca.location"))
        if "ssl.certificate.location" in options:
            context.load_cert_chain(
                options["ssl.certificate.location"], options.get("ssl.key.location"), options.get("ssl.key.password")
            )
    except OSError as error:
        raise SettingsError(f"Kafka's certificates or keys cannot be read: {error}") from None
    # Only a named development mode lets these through (producers/connection.py).
    if _is_off(options, "ssl.endpoint.identification.algorithm"):
        context.check_hostname = False
    if _is_off(options, "enable.ssl.certificate.verification"):
        context.check_hostname = False
        context.verify_mode = ssl.CERT_NONE
    return context


def _is_off(options: Mapping[str, Any], option: str) -> bool:
    return str(options.get(option, "")).lower() in UNCHECKED[option]
