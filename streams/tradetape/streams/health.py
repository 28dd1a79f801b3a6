"""A worker's page for its operator: /livez and /readyz for supervisors, /metrics for Prometheus (I14).

Alive means that it moves, or waits with a turning loop for a dependency that it names. Ready means that it does its work.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable, Iterable, Iterator, Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from tradetape.streams.progress import Progress

logger = logging.getLogger("tradetape.streams")

Counts = Callable[[], Mapping[str, int]]
REQUEST_TIMEOUT_S = 5.0


class WorkerMetrics(Collector):
    """The numbers of one worker. Labels are bounded: worker, topic, partition, reason, result; never a symbol."""

    def __init__(
        self,
        worker: str,
        progress: Progress,
        *,
        dead_letters: Counts,
        results: Mapping[str, Counts],
        gauges: Mapping[str, Callable[[], float]] | None = None,
    ) -> None:
        """`results` gives further counters by metric name, each counted by one label `result`; `gauges` single numbers."""
        self._worker = worker
        self._progress = progress
        self._dead_letters = dead_letters
        self._results = results
        self._gauges = gauges or {}

    def collect(self) -> Iterable[Metric]:
        """What Prometheus reads."""
        yield from self._progress_metrics()
        yield self._counter("dead_letters", "Records that could not be processed.", "reason", self._dead_letters())
        for name, counts in self._results.items():
            yield self._counter(name, "What became of events.", "result", counts())
        for name, value in self._gauges.items():
            gauge = GaugeMetricFamily(f"tradetape_{name}", name.replace("_", " ").capitalize() + ".", labels=["worker"])
            gauge.add_metric([self._worker], value())
            yield gauge

    def _progress_metrics(self) -> Iterator[Metric]:
        yield self._counter("events_processed", "Records processed.", "topic", dict(self._progress.processed))
        lag = GaugeMetricFamily(
            "tradetape_processing_lag_records", "Records still to be read.", labels=["worker", "topic", "partition"]
        )
        for one, count in list(self._progress.lag.items()):
            lag.add_metric([self._worker, one.topic, str(one.partition)], count)
        yield lag
        age = GaugeMetricFamily(
            "tradetape_event_age_seconds", "Now less emitted_at, of the last event handled.", labels=["worker"]
        )
        age.add_metric([self._worker], self._progress.last_event_age_s)
        yield age
        waiting = GaugeMetricFamily("tradetape_waiting", "1 while a dependency is away.", labels=["worker"])
        waiting.add_metric([self._worker], float(self._progress.waiting_for is not None))
        yield waiting

    def _counter(self, name: str, meaning: str, label: str, counts: Mapping[str, int]) -> CounterMetricFamily:
        metric = CounterMetricFamily(f"tradetape_{name}", meaning, labels=["worker", label])
        for value, count in list(counts.items()):
            metric.add_metric([self._worker, value], count)
        return metric


class HealthServer:
    """Serves the page from a thread of its own. Bound to the loopback address unless told otherwise."""

    def __init__(self, *, host: str, port: int, progress: Progress, metrics: Collector) -> None:
        """Raises OSError when the port is taken."""
        registry = CollectorRegistry()
        registry.register(metrics)
        self._server = ThreadingHTTPServer((host, port), _handler(progress, registry))
        self._server.daemon_threads = True
        self.port: int = self._server.server_address[1]
        self._thread = threading.Thread(target=self._server.serve_forever, name="tradetape-health", daemon=True)
        self._thread.start()

    def close(self) -> None:
        """Stop serving."""
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


def start_health_server(*, host: str, port: int | None, progress: Progress, metrics: Collector) -> HealthServer | None:
    """The server, where a port is set. A taken port is a warning: the page must not keep the work from being done."""
    if port is None:
        return None
    try:
        return HealthServer(host=host, port=port, progress=progress, metrics=metrics)
    except OSError as error:
        logger.warning("no health page on %s:%d: %s", host, port, error.strerror, extra={"action": "health"})
        return None


def _handler(progress: Progress, registry: CollectorRegistry) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        timeout = REQUEST_TIMEOUT_S

        def do_GET(self) -> None:
            if self.path == "/livez":
                self._judge(progress.trouble())
            elif self.path == "/readyz":
                self._judge(progress.unready())
            elif self.path == "/metrics":
                self._answer(200, generate_latest(registry), "text/plain; version=0.0.4; charset=utf-8")
            else:
                self._answer(404, b"/livez, /readyz, /metrics\n")

        def _judge(self, trouble: str | None) -> None:
            self._answer(503 if trouble else 200, f"{trouble or 'ok'}\n".encode())

        def _answer(self, status: int, body: bytes, kind: str = "text/plain; charset=utf-8") -> None:
            self.send_response(status)
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """A probe every second is no news."""

    return Handler
