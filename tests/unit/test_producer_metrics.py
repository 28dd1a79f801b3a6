"""A producer's numbers for Prometheus: those of health(), for every producer of the process, never going back."""

from __future__ import annotations

import gc
import logging
import os
import socket
import subprocess
import sys
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tradetape.producers import Health, Producer, metrics
from tradetape.producers.metrics import ProducerMetrics
from tradetape.schemas import Action, Direction, IndicatorUpdate, TradeSignal
from waiting import eventually

LAST_HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


@pytest.fixture
def closed_port() -> Iterator[str]:
    """An address where nobody listens, and nobody else can."""
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        yield f"127.0.0.1:{held.getsockname()[1]}"


@pytest.fixture
def registry() -> CollectorRegistry:
    made = CollectorRegistry()
    metrics.expose(made)
    return made


@pytest.fixture
def source(request: pytest.FixtureRequest) -> str:
    """Counts are for the process: each test has a source of its own."""
    return str(request.node.name)


def signal(number: int) -> TradeSignal:
    return TradeSignal(
        strategy_id="s", venue="v", symbol="BTCUSDT", timeframe="1m", bar_close_time=LAST_HOUR - timedelta(minutes=number),
        action=Action.ENTER, direction=Direction.LONG,
    )  # fmt: skip


def update(number: int) -> IndicatorUpdate:
    return IndicatorUpdate(
        venue="v", symbol="BTCUSDT", timeframe="1m", bar_close_time=LAST_HOUR - timedelta(minutes=number), values={"a": 1}
    )  # fmt: skip


def scraped(registry: CollectorRegistry, source: str) -> dict[str, float]:
    """What Prometheus would have of a source; the reason stands behind the name."""
    found: dict[str, float] = {}
    for family in text_string_to_metric_families(generate_latest(registry).decode()):
        for sample in family.samples:
            if sample.labels["source"] == source:
                name = " ".join([sample.name, *(sample.labels[one] for one in sample.labels if one != "source")])
                assert name not in found, "Prometheus refuses a page that has a sample twice"
                found[name] = sample.value
    return found


def test_metrics_are_what_health_tells(registry: CollectorRegistry, closed_port: str, source: str) -> None:
    with Producer(bootstrap_servers=closed_port, source=source, buffer_events=5) as tape:
        for number in range(3):
            tape.emit(signal(number))
        eventually("the first error", lambda: tape.health().last_error is not None)
        found, health = scraped(registry, source), tape.health()
        age_s = found.pop("tradetape_outbox_oldest_age_seconds")
        assert 0 < age_s <= (health.outbox.oldest_age_s or 0)
        assert found.pop("tradetape_producer_connected") == 0
        assert found == {
            "tradetape_events_produced_total": 3,
            "tradetape_events_delivered_total": 0,
            "tradetape_hooks_missed_total": 0,
            "tradetape_producer_queued_events": 0,
            "tradetape_outbox_events": 3,
            "tradetape_outbox_bytes": health.outbox.bytes,
            "tradetape_outbox_parked_events": 0,
            "tradetape_topics_held": 0,
        }
        tape.emit(update(0))
        assert scraped(registry, source)["tradetape_producer_queued_events"] == 1
        tape.close(0.0)
    assert scraped(registry, source)["tradetape_events_discarded_total closed"] == 1


def test_counts_of_a_source_go_on_where_its_closed_producer_ended(
    registry: CollectorRegistry, closed_port: str, source: str
) -> None:
    for run in range(1, 4):
        with Producer(bootstrap_servers=closed_port, source=source) as tape:
            tape.emit(update(run))
            tape.emit(signal(run))
            assert scraped(registry, source)["tradetape_events_produced_total"] == 2 * run
            tape.close(0.0)
        found = scraped(registry, source)
        assert found == {
            "tradetape_events_produced_total": 2 * run,
            "tradetape_events_delivered_total": 0,
            "tradetape_hooks_missed_total": 0,
            "tradetape_events_discarded_total closed": run,
        }, "what is only now is not shown of a producer that is closed"


def test_two_producers_of_one_name_are_one_line(
    registry: CollectorRegistry, closed_port: str, source: str, tmp_path: Path
) -> None:
    with (
        Producer(bootstrap_servers=closed_port, source=source, outbox_dir=tmp_path / "one") as one,
        Producer(bootstrap_servers=closed_port, source=source, outbox_dir=tmp_path / "two") as two,
    ):
        one.emit(signal(1))
        two.emit(signal(2))
        assert scraped(registry, source)["tradetape_outbox_events"] == 2
        for tape in (one, two):
            tape.close(0.0)


def test_a_producer_that_cannot_be_asked_costs_the_page_only_its_own_lines(
    registry: CollectorRegistry,
    closed_port: str,
    source: str,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def unwell() -> Health:
        raise OSError("the host's disk is gone")

    with (
        Producer(bootstrap_servers=closed_port, source=source) as sick,
        Producer(bootstrap_servers=closed_port, source=f"{source}-sound") as sound,
    ):
        sick.emit(signal(1))
        sound.emit(signal(1))
        assert scraped(registry, source)["tradetape_events_produced_total"] == 1
        monkeypatch.setattr(sick, "health", unwell)
        with caplog.at_level(logging.WARNING):
            found = scraped(registry, source)
        assert found["tradetape_events_produced_total"] == 1, "it never goes back"
        assert "tradetape_outbox_events" not in found
        assert f"the metrics of {source} are missing this time" in caplog.text
        assert scraped(registry, f"{source}-sound")["tradetape_outbox_events"] == 1
        for tape in (sick, sound):
            tape.close(0.0)


def test_to_expose_twice_shows_once_and_a_taken_name_is_an_error(registry: CollectorRegistry) -> None:
    metrics.expose(registry)
    with pytest.raises(ValueError, match="Duplicated"):
        registry.register(ProducerMetrics())


SHOWN = """
import sys
{first}
from tradetape.producers import Producer
with Producer(bootstrap_servers="127.0.0.1:9", source="bot", outbox_dir=__import__("pathlib").Path(sys.argv[1])) as tape:
    import prometheus_client
    shown = prometheus_client.generate_latest().decode()
    tape.close(0.0)
print('tradetape_outbox_events{{source="bot"}} 0.0' in shown)
"""


@pytest.mark.parametrize(
    ("first", "expected"),
    [
        ("import prometheus_client", "True"),
        ("", "False"),
        ("import prometheus_client; prometheus_client.Gauge('tradetape_outbox_events', 'the host has its own')", "False"),
    ],
    ids=["the host uses it", "it does not", "a name is taken"],
)  # fmt: skip
def test_a_producer_shows_its_metrics_where_the_host_uses_prometheus(tmp_path: Path, first: str, expected: str) -> None:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", SHOWN.format(first=first), str(tmp_path)],
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert (run.returncode, run.stdout, run.stderr) == (0, f"{expected}\n", "")


FORKED = """
import os, sys
from pathlib import Path
import prometheus_client
from tradetape.producers import Producer
parents = Producer(bootstrap_servers="127.0.0.1:9", source="bot", outbox_dir=Path(sys.argv[1]))
prometheus_client.generate_latest()
child = os.fork()
if child:
    _, status = os.waitpid(child, 0)
    parents.close(0.0)
    sys.exit(os.waitstatus_to_exitcode(status))
shown = prometheus_client.generate_latest().decode()
os._exit('source="bot"' in shown)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork")
def test_a_forked_child_does_not_show_its_parents_numbers(tmp_path: Path) -> None:
    run = subprocess.run(
        [sys.executable, "-c", FORKED, str(tmp_path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert (run.returncode, run.stderr) == (0, "")


def test_a_closed_producer_is_not_kept_alive(closed_port: str, source: str) -> None:
    tape = Producer(bootstrap_servers=closed_port, source=source)
    tape.close(0.0)
    del tape
    gc.collect()
    assert not [one for one in gc.get_objects() if isinstance(one, Producer) and one.source == source]
