"""Under `pytest --secure`: whatever connects to Kafka from within a test, and says nothing of security, logs in as the suite.

Most tests name a broker and no more. What is tested stays what runs: the options reach librdkafka and Faust by the way that
a user's options take. Processes that a test starts get theirs from the environment.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

LOGIN: dict[str, str] = {}
"""librdkafka's options; none until the services run."""
PROTOCOL = "security.protocol"


def install() -> None:
    """Before anything imports a client."""
    import confluent_kafka
    from confluent_kafka.admin import AdminClient

    for name in ("Producer", "Consumer"):
        setattr(confluent_kafka, name, _logging_in(getattr(confluent_kafka, name)))
    # In place: by its name it finds the class that it is derived from.
    AdminClient.__init__ = _logging_in(AdminClient).__init__  # type: ignore[method-assign]
    from tradetape.producers.connection import KafkaSettings

    plain = KafkaSettings.client_config

    def client_config(self: KafkaSettings, defaults: Mapping[str, Any], **more: Any) -> dict[str, Any]:
        return {**({} if PROTOCOL in self.options else LOGIN), **plain(self, defaults, **more)}

    KafkaSettings.client_config = client_config  # type: ignore[method-assign]


def log_in(options: Mapping[str, str], environment: Mapping[str, str]) -> None:
    """From now on, here and in the processes that are started."""
    LOGIN.update(options)
    os.environ.update({name: value for name, value in environment.items() if name.startswith("TRADETAPE_KAFKA_")})


def _logging_in(kind: Any) -> Any:
    make = kind.__init__

    class LoggingIn(kind):  # type: ignore[misc]
        def __init__(self, config: Mapping[str, Any], **more: Any) -> None:
            make(self, {**({} if PROTOCOL in config else LOGIN), **config}, **more)

    LoggingIn.__name__ = kind.__name__
    return LoggingIn
