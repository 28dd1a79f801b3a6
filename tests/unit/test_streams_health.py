"""The health page says what Progress says, on the loopback address alone, in a form that Prometheus reads."""

from __future__ import annotations

import http.client
import logging
import socket
from collections import Counter
from collections.abc import Iterator

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tradetape.streams.health import HealthServer, WorkerMetrics, start_health_server
from tradetape.streams.processor import Partition
from tradetape.streams.progress import Progress
from tradetape.streams.record import Record

PLACE = Partition("tradetape.candles", 2)


@pytest.fixture
def progress() -> Progress:
    return Progress(clock=lambda: 0.0)


@pytest.fixture
def metrics(progress: Progress) -> WorkerMetrics:
    results = {"state_writes": lambda: Counter({"applied": 5, "stale": 1})}
    return WorkerMetrics("state", progress, dead_letters=lambda: Counter({"bad_magic": 2}), results=results)


@pytest.fixture
def server(progress: Progress, metrics: WorkerMetrics) -> Iterator[HealthServer]:
    made = HealthServer(host="127.0.0.1", port=0, progress=progress, metrics=metrics)
    yield made
    made.close()


def get(server: HealthServer, path: str) -> tuple[int, str]:
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=10)
    try:
        connection.request("GET", path)
        answer = connection.getresponse()
        return answer.status, answer.read().decode()
    finally:
        connection.close()


def test_livez_and_readyz_say_why_they_are_503(server: HealthServer, progress: Progress) -> None:
    assert get(server, "/livez") == (200, "ok\n")
    assert get(server, "/readyz") == (503, "no partitions are assigned yet\n")
    progress.assigned([PLACE])
    assert get(server, "/readyz") == (200, "ok\n")
    progress.waits("Redis: away")
    assert get(server, "/livez") == (200, "ok\n")
    assert get(server, "/readyz") == (503, "waits: Redis: away\n")


def test_a_stuck_worker_is_503_on_livez(metrics: WorkerMetrics) -> None:
    times = iter([0.0, *[100.0] * 10])
    stuck = Progress(clock=lambda: next(times))
    server = HealthServer(host="127.0.0.1", port=0, progress=stuck, metrics=metrics)
    try:
        assert get(server, "/livez") == (503, "the loop has not turned for 100 s\n")
    finally:
        server.close()


def test_metrics_read_by_prometheus_own_parser_hold_the_workers_numbers(
    server: HealthServer, progress: Progress
) -> None:
    progress.assigned([PLACE])
    progress.behind({PLACE: 12})
    progress.moved([Record(PLACE.topic, 2, 0, None, b"", (), 0)] * 3)
    status, text = get(server, "/metrics")
    assert status == 200
    found = {
        (sample.name, *sorted(sample.labels.items())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    worker = ("worker", "state")
    assert found["tradetape_events_processed_total", ("topic", PLACE.topic), worker] == 3
    assert found["tradetape_processing_lag_records", ("partition", "2"), ("topic", PLACE.topic), worker] == 12
    assert found["tradetape_dead_letters_total", ("reason", "bad_magic"), worker] == 2
    assert found["tradetape_state_writes_total", ("result", "applied"), worker] == 5
    assert found["tradetape_waiting", worker] == 0
    assert ("tradetape_event_age_seconds", worker) in found


def test_another_path_is_404(server: HealthServer) -> None:
    assert get(server, "/")[0] == 404
    assert get(server, "/admin")[0] == 404


def test_the_page_is_bound_to_the_given_address_alone(server: HealthServer) -> None:
    with socket.socket() as other, pytest.raises(ConnectionRefusedError):
        # Another loopback address stands for every other address of this machine.
        other.connect(("127.0.0.2", server.port))


def test_a_taken_port_is_a_warning_and_no_port_is_no_page(
    server: HealthServer, progress: Progress, metrics: WorkerMetrics, caplog: pytest.LogCaptureFixture
) -> None:
    assert start_health_server(host="127.0.0.1", port=None, progress=progress, metrics=metrics) is None
    with caplog.at_level(logging.WARNING):
        assert start_health_server(host="127.0.0.1", port=server.port, progress=progress, metrics=metrics) is None
    assert str(server.port) in caplog.text
