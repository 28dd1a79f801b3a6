"""Each run gets a venue of its own."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from tradetape.console.demo.venue import claim, log_of


def test_runs_are_numbered_from_one(tmp_path: Path) -> None:
    assert [claim(tmp_path, used=()) for _ in range(3)] == ["demo1", "demo2", "demo3"]


def test_a_venue_that_the_history_knows_is_never_taken_again(tmp_path: Path) -> None:
    assert claim(tmp_path, used=["demo9", "demo10", "binance", "demo-old", "mydemo99"]) == "demo11"


def test_a_run_that_ended_before_it_stored_anything_keeps_its_venue(tmp_path: Path) -> None:
    log_of(tmp_path, "demo4", "bot").touch()
    assert claim(tmp_path, used=["demo2"]) == "demo5"


def test_two_runs_at_once_get_two_venues(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        claimed = list(pool.map(lambda _: claim(tmp_path, used=()), range(40)))
    assert len(set(claimed)) == 40
