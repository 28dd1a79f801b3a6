"""How every part of tradetape connects to Kafka: one place for safe defaults, pass-through options and quiet logs.

librdkafka writes to stderr unless told otherwise, and repeats itself every second while a broker is away. Inside of a
trading bot neither is acceptable: its lines go to our logger, one a minute for each cause.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Mapping
from typing import Any

import msgspec
from confluent_kafka import KafkaError

from tradetape.producers.errors import SettingsError
from tradetape.producers.settings import Settings, kafka_variable

SAME_CAUSE_INTERVAL_S = 60.0
CAUSES_REMEMBERED = 256
ALIASES = {
    "request.required.acks": "acks",
    "metadata.broker.list": "bootstrap.servers",
    "delivery.timeout.ms": "message.timeout.ms",
    "max.in.flight": "max.in.flight.requests.per.connection",
}
"""librdkafka's second names of options that may not be changed."""
UNCHECKED = {
    "enable.ssl.certificate.verification": ("false", "0", "f"),
    "ssl.endpoint.identification.algorithm": ("none",),
}
"""Options that let anybody pass for the broker, and the values that do."""
NOT_OURS = frozenset(("transactional.id",))
"""What our clients do not work with."""
WEAKENABLE = frozenset((*UNCHECKED, "acks", "enable.idempotence", "max.in.flight.requests.per.connection"))
"""What a named development mode may weaken."""
EXPECTED = ("property enable.gapless.guarantee is experimental", "Purged in flight")
"""Lines that are no news: one at each start of a producer, though it holds (tests), and a batch that we gave up ourselves,
which librdkafka calls critical; the outbox still has it."""

# Without a handler Python prints warnings of any logger to stderr: a library must not.
logging.getLogger("tradetape").addHandler(logging.NullHandler())
logger = logging.getLogger("tradetape.kafka")

Config = dict[str, Any]


class KafkaSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Where the brokers are, and the librdkafka options that every client of this process gets."""

    bootstrap_servers: str
    options: dict[str, str] = msgspec.field(default_factory=dict)
    is_development: bool = False
    """Whether options may weaken a guarantee."""

    def __repr__(self) -> str:
        return f"KafkaSettings(bootstrap_servers={self.bootstrap_servers!r}, …)"

    @classmethod
    def of(cls, settings: Settings) -> KafkaSettings:
        """From the environment's settings. Raises SettingsError."""
        return cls(
            bootstrap_servers=settings.required("KAFKA_BOOTSTRAP_SERVERS"),
            options=settings.kafka_options,
            is_development=settings.development,
        )

    def client_config(self, defaults: Mapping[str, Any], *, fixed: Mapping[str, Any] | None = None) -> Config:
        """A client's options: `defaults`, which the environment may tune, then `fixed`, which carry a promise.

        Raises SettingsError when the environment would break a promise.
        """
        fixed = fixed or {}
        allowed: dict[str, Any] = {}
        for option, given in self.options.items():
            name = ALIASES.get(option, option)
            if name == "bootstrap.servers":
                raise SettingsError(f"{kafka_variable(option)} is not read; set KAFKA_BOOTSTRAP_SERVERS")
            if self._is_weaker(name, given, fixed):
                if not (self.is_development and name in WEAKENABLE):
                    raise SettingsError(_refusal(option, name, given, fixed))
                logger.warning("DEVELOPMENT [%s=%s weakens a guarantee]", kafka_variable(option), given)
                allowed[name] = given
        return {
            **defaults,
            **self.options,
            **fixed,
            **allowed,
            "bootstrap.servers": self.bootstrap_servers,
        }

    def _is_weaker(self, name: str, given: str, fixed: Mapping[str, Any]) -> bool:
        if name in NOT_OURS:
            return True
        if name in UNCHECKED:
            return given.lower() in UNCHECKED[name]
        return name in fixed and given.lower() != str(fixed[name]).lower()


def _refusal(option: str, name: str, given: str, fixed: Mapping[str, Any]) -> str:
    kept = f"leave it at {fixed[name]}" if name in fixed else "leave it out"
    mode = "; only TRADETAPE_DEVELOPMENT=true allows it" if name in WEAKENABLE else ""
    return f"{kafka_variable(option)}={given} would break a guarantee; {kept}{mode}"


class OncePerCause(logging.Filter):
    """Lets one line a minute through for each cause; a cause is librdkafka's facility, such as FAIL or REQTMOUT."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__()
        self._clock = clock
        self._last: dict[str, float] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether this line is news."""
        cause = record.getMessage().split("[", 1)[0].strip()[:64]
        now = self._clock()
        with self._lock:
            if now - self._last.get(cause, -SAME_CAUSE_INTERVAL_S) < SAME_CAUSE_INTERVAL_S:
                return False
            if len(self._last) >= CAUSES_REMEMBERED:
                self._last.clear()
            self._last[cause] = now
        return True


# First, or such a line would take the minute of one that is news.
logger.addFilter(lambda record: not any(one in record.getMessage() for one in EXPECTED))
logger.addFilter(OncePerCause())


def denial(error: KafkaError) -> str | None:
    """What keeps us out of Kafka until somebody mends it, as a sentence without secrets; None for any other error."""
    if error.code() == KafkaError._AUTHENTICATION:
        where = error.str().partition(": ")[0].rpartition("://")[2].partition("/")[0]
        return (
            f"Kafka at {where} does not let us in: wrong user or password; check {kafka_variable('sasl.username')} and "
            f"{kafka_variable('sasl.password')}_FILE"
        )
    if error.code() == KafkaError._SSL and "certificate verify failed" in error.str():
        return "Kafka is not trusted; check TRADETAPE_CA_FILE and the hosts in KAFKA_BOOTSTRAP_SERVERS"
    return None


def on_error(report: Callable[[KafkaError], None] | None = None) -> Callable[[KafkaError], None]:
    """An error callback that logs quietly and passes on; it cannot raise into librdkafka."""

    def called(error: KafkaError) -> None:
        logger.warning("%s [%s]", error.name(), error.str())
        if report is not None:
            report(error)

    return called
