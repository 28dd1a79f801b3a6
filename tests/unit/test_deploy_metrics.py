"""Alarms and dashboards ask for nothing that no worker tells: names, labels and results are those of the real workers."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from tradetape.console import cli
from tradetape.streams import health, worker
from tradetape.streams.processor import Partition
from tradetape.streams.progress import Progress
from tradetape.streams.state.store import StateStore

DEPLOY = Path(__file__).resolve().parents[2] / "deploy"
WORKERS = {
    "state": ["--engine", "kafka"], "approval": ["--engine", "kafka"], "history": [], "positions": [], "staleness": [],
    "dispatch": ["--executor", "paper"],
}  # fmt: skip
NAME = re.compile(r"\btradetape_\w+")
MATCHED = re.compile(r"(\w+)\s*(?:=|!=|=~|!~)\s*\"([^\"]*)\"")
GROUPED = re.compile(r"\b(?:by|on|without|ignoring)\s*\(([^)]*)\)")
SHOWN = re.compile(r"\{\{\s*(?:\$labels\.)?(\w+)\s*\}\}")
OF_PROMETHEUS = {"instance", "job"}


@pytest.fixture(scope="module")
def told() -> dict[str, set[str]]:
    """Every metric that a worker's page shows, with its labels: asked of each worker as `tradetape work` composes it."""
    pages: dict[str, health.WorkerMetrics] = {}

    def kept(*, progress: Progress, metrics: health.WorkerMetrics, **_: object) -> None:
        progress.assigned([Partition("tradetape.candles", 0)])
        pages[metrics._worker] = metrics

    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
        patch.setenv("REDIS_URL", "redis://127.0.0.1:1/0")
        patch.setenv("DATABASE_URL", "postgresql://127.0.0.1:1/none")
        patch.setenv("TRADETAPE_RUN_MODE", "PAPER")
        patch.setattr(StateStore, "is_filled", lambda _: True)
        patch.setattr(health, "start_health_server", kept)
        patch.setattr(worker, "run_worker", lambda _, *, name, close: close() or 0)
        for name, options in WORKERS.items():
            assert cli.main(["work", name, *options]) == 0
    assert pages.keys() == WORKERS.keys()
    return dict(_metrics(pages.values()))


def _metrics(pages: object) -> Iterator[tuple[str, set[str]]]:
    found: dict[str, set[str]] = {}
    for page in pages:  # type: ignore[attr-defined]
        for family in page.collect():
            name = f"{family.name}_total" if family.type == "counter" else family.name
            found.setdefault(name, set()).update(family._labelnames)
    yield from found.items()


def expressions() -> dict[str, str]:
    """What Prometheus and Grafana ask, by where it stands, with the texts that name labels of the answer."""
    alarms = yaml.safe_load((DEPLOY / "prometheus" / "alarms.yml").read_text())
    asked = {
        rule["alert"]: f"{rule['expr']} {rule['annotations']['summary']} {rule['annotations']['description']}"
        for group in alarms["groups"]
        for rule in group["rules"]
    }
    board = json.loads((DEPLOY / "grafana" / "dashboards" / "tradetape.json").read_text())
    for panel in board["panels"]:
        for target in panel["targets"]:
            asked[f"{panel['title']} {target['refId']}"] = f"{target['expr']} {target['legendFormat']}"
    return asked


def test_what_is_asked_is_told_by_a_worker(told: dict[str, set[str]]) -> None:
    asked = {name for text in expressions().values() for name in NAME.findall(text)}
    assert len(asked) > 8
    assert asked - told.keys() == set()


@pytest.mark.parametrize("place", expressions())
def test_every_label_that_is_asked_for_belongs_to_what_is_asked(told: dict[str, set[str]], place: str) -> None:
    text = expressions()[place]
    labels = set.union(*(told[name] for name in NAME.findall(text))) | OF_PROMETHEUS
    used = {label for label, _ in MATCHED.findall(text)}
    used |= {label.strip() for group in GROUPED.findall(text) for label in group.split(",")}
    used |= {label for label in SHOWN.findall(text) if label != "value"}
    assert used - labels == set()


def test_an_alarm_names_only_workers_and_results_that_there_are() -> None:
    sources = "\n".join(path.read_text() for path in (DEPLOY.parent / "streams").rglob("*.py"))
    for text in expressions().values():
        for label, value in MATCHED.findall(text):
            assert label in ("worker", "result"), label
            assert value in WORKERS if label == "worker" else f'"{value}"' in sources


def test_prometheus_asks_every_worker() -> None:
    scraped = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text())
    (job,) = scraped["scrape_configs"]
    (names,) = job["dns_sd_configs"]
    assert set(names["names"]) == WORKERS.keys()


def test_a_page_is_what_prometheus_reads(told: dict[str, set[str]]) -> None:
    registry = CollectorRegistry()
    registry.register(health.WorkerMetrics("state", Progress(), dead_letters=dict, results={"state_writes": dict}))
    names = {one.name for one in text_string_to_metric_families(generate_latest(registry).decode())}
    assert {name.removesuffix("_total") for name in told} >= names
