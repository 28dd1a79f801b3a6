"""Kafka of the local stack: one KRaft node, real durability and order, on the Java that comes as a Python package."""

from __future__ import annotations

import base64
import os
import shutil
import signal
import uuid
from collections.abc import Mapping, Sequence
from importlib import resources
from pathlib import Path

from tradetape.console.local import jars, ports, process
from tradetape.console.local.java import SMALL, find_java
from tradetape.console.local.places import fresh_folder
from tradetape.console.local.service import Service

JAVA_OPTIONS = (
    "-Xms128m", "-Xmx384m", *SMALL, "-Dorg.slf4j.simpleLogger.showDateTime=true",
    "-Dorg.slf4j.simpleLogger.dateTimeFormat=yyyy-MM-dd'T'HH:mm:ss.SSSXXX",
)  # fmt: skip
OLDEST_JAVA = 17
ANSWER_TIMEOUT_S = 1.0


class Kafka(Service):
    """The broker."""

    name = "kafka"
    preferred_port = 19092
    wipe_signal = signal.SIGKILL

    @property
    def marker(self) -> str:
        return str(self._folder / "server.properties")

    @property
    def _folder(self) -> Path:
        return self.places.home / "kafka"

    def prepare(self, port: int) -> None:
        self._folder.mkdir(exist_ok=True)
        self._jars()
        controller = self.ports.choose("kafka-controller", None)
        data = self._folder / "data"
        if not data.exists():
            self._format(data, port, controller)
        Path(self.marker).write_text(self.properties(port, controller, data), encoding="utf-8")

    def _format(self, data: Path, port: int, controller: int) -> None:
        """Format into a folder aside and move it into place, so that a killed format leaves nothing half-made."""
        aside = fresh_folder(self._folder, "new.")
        settings = aside / "format.properties"
        settings.write_text(self.properties(port, controller, aside / "data"), encoding="utf-8")
        # In one word: one id in 64 begins with a dash and would be taken for an option.
        options = [f"--cluster-id={self.cluster_id()}", "--config", str(settings)]
        command = [*self._java(), "kafka.tools.StorageTool", "format", *options]
        process.run(command, what="formatting Kafka's storage")
        (aside / "data").rename(data)
        shutil.rmtree(aside)

    def cluster_id(self) -> str:
        """The id that its storage is formatted with."""
        return new_cluster_id()

    def properties(self, port: int, controller: int, data: Path) -> str:
        """Its configuration."""
        template = resources.files("tradetape.console.local").joinpath("server.properties").read_text(encoding="utf-8")
        return template.format(port=port, controller=controller, data=data)

    def command(self, port: int) -> Sequence[str]:
        return [*self._java(), "kafka.Kafka", self.marker]

    def _java(self) -> list[str]:
        return [
            str(find_java(oldest=OLDEST_JAVA, what="Kafka")),
            *JAVA_OPTIONS,
            "-cp",
            os.pathsep.join(map(str, self._jars())),
        ]

    def _jars(self) -> list[Path]:
        return jars.ensure(self.places.cache / "maven", jars.listed("kafka"))

    def answers(self, port: int) -> bool:
        from confluent_kafka import KafkaException
        from confluent_kafka.admin import AdminClient

        if ports.is_free(port):
            return False
        # Its log lines would go to stderr: a broker that is only starting is no news.
        admin = AdminClient({**self.client_options(port), "log_level": 0})
        try:
            return bool(admin.list_topics(timeout=ANSWER_TIMEOUT_S).brokers)
        except KafkaException:
            return False

    def variables(self, port: int) -> Mapping[str, str]:
        return {"KAFKA_BOOTSTRAP_SERVERS": f"{ports.LOOPBACK}:{port}"}

    def client_options(self, port: int) -> Mapping[str, str]:
        """librdkafka's options of a client that asks whether the broker is there."""
        return {"bootstrap.servers": f"{ports.LOOPBACK}:{port}"}

    def wipe(self) -> None:
        shutil.rmtree(self._folder, ignore_errors=True)


def new_cluster_id() -> str:
    """An id as Kafka makes them."""
    return base64.urlsafe_b64encode(uuid.uuid4().bytes).decode().rstrip("=")
