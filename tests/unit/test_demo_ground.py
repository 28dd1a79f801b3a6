"""On services of others the demo starts and prepares nothing, plays on paper only, and waits for whoever is at work there."""

from __future__ import annotations

from pathlib import Path

import pytest

from tradetape.console import cli
from tradetape.console.demo import given_ground
from tradetape.console.demo.gauges import Rest, Snapshot, WorkerGauge
from tradetape.console.demo.given_ground import GivenGround
from tradetape.console.errors import DemoFailed
from tradetape.producers.settings import Settings, load

GIVEN = {"KAFKA_BOOTSTRAP_SERVERS": "kafka:9092", "TRADETAPE_RUN_MODE": "PAPER"}


@pytest.fixture
def ground(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> GivenGround:
    monkeypatch.setenv("TRADETAPE_HOME", str(tmp_path))
    return GivenGround()


@pytest.fixture
def settings() -> Settings:
    return load(GIVEN)


def at_work(monkeypatch: pytest.MonkeyPatch, *groups: str) -> None:
    monkeypatch.setattr(given_ground, "_with_members", lambda _, asked: set(groups) & set(asked))


@pytest.mark.parametrize("mode", ["LIVE", "BACKTEST"])
def test_it_refuses_to_play_where_it_is_not_on_paper(ground: GivenGround, mode: str) -> None:
    with pytest.raises(DemoFailed, match=f"plays on paper, and TRADETAPE_RUN_MODE is {mode}"):
        ground.prepare(load({**GIVEN, "TRADETAPE_RUN_MODE": mode}))


def test_the_environment_is_taken_as_it_is(ground: GivenGround, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", "kafka:9092")
    assert ground.environment()["KAFKA_BOOTSTRAP_SERVERS"] == "kafka:9092"
    assert ground.logs.is_dir()
    assert Path(ground.environment()["TRADETAPE_OUTBOX_DIR"]).parent == ground.logs.parent


def test_whoever_is_at_work_is_waited_for_and_nobody_else(
    ground: GivenGround, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    at_work(monkeypatch, "tradetape-state", "tradetape-history", "tradetape-dispatch", "somebody-else")
    assert [role.name for role in ground.roles(settings)] == ["state", "history", "dispatch"]


@pytest.mark.parametrize("missing", ["state", "history"])
def test_without_the_workers_that_it_proves_it_says_what_to_start(
    ground: GivenGround, settings: Settings, monkeypatch: pytest.MonkeyPatch, missing: str
) -> None:
    at_work(monkeypatch, *{"tradetape-state", "tradetape-history", "tradetape-approval"} - {f"tradetape-{missing}"})
    with pytest.raises(DemoFailed, match=f"start `tradetape work {missing}`"):
        ground.roles(settings)


@pytest.mark.parametrize("option", [["--down"], ["--engine", "kafka"]])
def test_options_of_a_local_stack_are_refused(option: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["demo", "--services", "environment", *option]) == 2
    assert "somebody else's" in capsys.readouterr().err


class Clock:
    def __init__(self) -> None:
        self.now = 10.0

    def __call__(self) -> float:
        return self.now


def seen(*, on_tape: int, lag: int = 0) -> Snapshot:
    gauge = WorkerGauge(lag=lag, per_second=0.0)
    return Snapshot(
        minutes=1, of_minutes=1, emitted=1, emitted_per_second=0.0, workers={"state": gauge}, latencies_s={},
        on_tape=on_tape,
    )  # fmt: skip


def test_all_has_come_through_when_the_tape_has_lain_still_for_so_long_and_nobody_is_behind() -> None:
    clock = Clock()
    rest = Rest(3.0, clock)
    assert not rest.look(seen(on_tape=5))
    clock.now += 2.9
    assert not rest.look(seen(on_tape=5))
    assert not rest.look(seen(on_tape=6)), "a worker has put something onto it"
    clock.now += 2.9
    assert not rest.look(seen(on_tape=6, lag=1))
    clock.now += 2.9
    assert not rest.look(seen(on_tape=6))
    clock.now += 0.2
    assert rest.look(seen(on_tape=6))


def test_where_nobody_makes_anything_of_it_no_lag_is_enough() -> None:
    rest = Rest(0.0, Clock())
    assert not rest.look(seen(on_tape=5, lag=1))
    assert rest.look(seen(on_tape=5))
