"""What every worker process is made of, and how it runs: one job, so that the workers' own files say only what differs."""

from __future__ import annotations

import argparse
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tradetape.streams.processor import Processor
    from tradetape.streams.worker import Engine

REGISTRY_TIMEOUT_S = 20.0
"""A worker has more time than a bot: a registry that has just started answers slowly, and all workers ask it at once."""

Counts = Mapping[str, Callable[[], Mapping[str, int]]]
Gauges = Mapping[str, Callable[[], float]]


class WorkerParts:
    """Settings, codec, dead letters and progress of the worker `name`. Logging is set up on the way.

    Raises SettingsError for an unusable setting.
    """

    def __init__(self, name: str) -> None:
        from tradetape.console.environment import settings as effective_settings
        from tradetape.producers.codecs import codec_of
        from tradetape.producers.connection import KafkaSettings
        from tradetape.streams import logs
        from tradetape.streams.dead_letters import KafkaDeadLetters
        from tradetape.streams.patience import awaited
        from tradetape.streams.progress import Progress

        self.name = name
        self.settings = effective_settings()
        logs.configure(level=self.settings.log_level, style=self.settings.log_format)
        self.kafka = KafkaSettings.of(self.settings)
        self.codec = awaited(lambda: codec_of(self.settings, answer_timeout_s=REGISTRY_TIMEOUT_S))
        self.catalogue = self.codec.catalogue
        self.progress = Progress()
        self.dead_letters = KafkaDeadLetters(worker=name, topic=self.catalogue.dead_letters_topic, kafka=self.kafka)

    def engine(
        self, processor: Processor, *, group: str, kind: str = "kafka", batch_records: int | None = None
    ) -> Engine:
        """The engine of that kind, `faust` or `kafka`, which feeds the processor; the plain one in batches."""
        if kind == "faust":
            from tradetape.streams.engines.faust import FaustEngine

            return FaustEngine(
                processor=processor,
                kafka=self.kafka,
                group=group,
                dead_letters=self.dead_letters,
                progress=self.progress,
            )
        from tradetape.streams.engines.kafka import KafkaEngine, Limits

        return KafkaEngine(
            processor=processor, kafka=self.kafka, group=group, dead_letters=self.dead_letters, progress=self.progress,
            limits=Limits() if batch_records is None else Limits(max_batch_records=batch_records),
        )  # fmt: skip

    def run(
        self, engine: Engine, *, closing: list[Callable[[], None]], counts: Counts, gauges: Gauges | None = None
    ) -> int:
        """Run until TERM or Ctrl-C, with a health page where a port is set; then close, in that order. The exit code."""
        from tradetape.streams.health import WorkerMetrics, start_health_server
        from tradetape.streams.worker import run_worker

        metrics = WorkerMetrics(
            self.name, self.progress, dead_letters=lambda: self.dead_letters.refused, results=counts, gauges=gauges
        )
        page = start_health_server(
            host=self.settings.http_host, port=self.settings.http_port, progress=self.progress, metrics=metrics
        )

        def close() -> None:
            for one in [page.close, *closing] if page else closing:
                one()

        return run_worker(engine, name=self.name, close=close)


def add_group(parser: argparse.ArgumentParser, name: str) -> None:
    """The option that names the consumer group."""
    parser.add_argument("--group", default=f"tradetape-{name}", help="consumer group (default: %(default)s)")


def add_engine(parser: argparse.ArgumentParser, *, default: str) -> None:
    """The option that chooses the engine."""
    parser.add_argument(
        "--engine",
        choices=("faust", "kafka"),
        default=default,
        help="what feeds it (default: %(default)s; kafka above about 3,000 events/s)",
    )
