"""What people see of a replay: a bar only where somebody looks, counts in words, runs in a table."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tradetape.console import replay_view
from tradetape.sinks.replay.runs import Run
from tradetape.sinks.replay.targets.target import Difference


def test_a_bar_shows_what_goes_on_and_how_much_of_it_is_done(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("COLUMNS", "120")
    with replay_view.bar(is_wanted=True) as tell:
        tell("sorting", 10, 4_000)
        tell("sorting", 4_000, 4_000)
        tell("replaying", 1_000, 4_000)
    shown = capfd.readouterr()
    assert shown.out == ""
    assert "sorting" in shown.err
    assert "1000/4000" in shown.err


def test_without_a_terminal_nothing_is_shown(capfd: pytest.CaptureFixture[str]) -> None:
    with replay_view.bar(is_wanted=False) as tell:
        tell("replaying", 1, 2)
    assert capfd.readouterr() == ("", "")


def test_the_summary_says_what_was_read_and_what_could_not_be_replayed() -> None:
    counts = {"read": 2_000, "kept": 1_500, "outside": 497, "replayed": 1_500, "stored": 1_500, "undecodable.empty": 3}
    first, second = replay_view.lines(into="history", outcome="BAD_DATA", counts=counts, took_s=2.0)
    assert first == "bad data: 1,500 of 2,000 records read into history in 2.0 s, 1,000 records/s"
    assert second == "  outside 497, stored 1,500, undecodable.empty 3"


def test_a_comparison_and_the_runs_are_tables() -> None:
    head, row = replay_view.table([Difference("candles", 1_234, 1, 2, 3)])
    assert head.split() == ["table", "same", "missing", "extra", "different"]
    assert row.split() == ["candles", "1,234", "1", "2", "3"]
    at = datetime(2026, 1, 2, 3, 4, tzinfo=UTC)
    head, row = replay_view.listed([Run("r", at, None, "INTERRUPTED", "history", None, at, ["t"], {"replayed": 5_000})])
    assert row.split()[1:] == (
        ["2026-01-02", "03:04Z", "INTERRUPTED", "5,000", "history,", "beginning", "…", "2026-01-02", "03:04Z"]
    )
