"""A place on a topic is read as people write it, or refused with what would do."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from tradetape.console.errors import UsageError
from tradetape.console.topic_tail import Place, place, topic_named
from tradetape.schemas import CATALOGUE

NOW = datetime(2026, 5, 4, 12, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("beginning", Place(offset=0)),
        ("1500", Place(offset=1500)),
        ("90s", Place(timestamp_ms=1_777_895_910_000)),
        ("2h", Place(timestamp_ms=1_777_888_800_000)),
        ("3d", Place(timestamp_ms=1_777_636_800_000)),
        ("2026-05-04T12:00Z", Place(timestamp_ms=1_777_896_000_000)),
        ("2026-05-04T14:00+02:00", Place(timestamp_ms=1_777_896_000_000)),
    ],
)
def test_a_place_is_an_offset_a_time_or_a_stretch_before_now(text: str, expected: Place) -> None:
    assert place(text, now=lambda: NOW) == expected


@pytest.mark.parametrize("text", ["yesterday", "2h30m", "-5", "2026-13-01T00:00Z", ""])
def test_what_is_no_place_is_refused_with_examples(text: str) -> None:
    with pytest.raises(UsageError, match=r"2026-01-31T12:00Z.*2h.*offset.*beginning"):
        place(text)


def test_a_time_without_a_zone_is_refused() -> None:
    with pytest.raises(UsageError, match="end it with Z"):
        place("2026-05-04T12:00")


@pytest.mark.parametrize("name", ["candles", "tradetape.candles", "Candle"])
def test_a_topic_is_found_by_any_of_its_names(name: str) -> None:
    assert topic_named(CATALOGUE, name) == "tradetape.candles"


@pytest.mark.parametrize("name", ["dead-letters", "tradetape.dead-letters"])
def test_dead_letters_are_a_topic_too(name: str) -> None:
    assert topic_named(CATALOGUE, name) == "tradetape.dead-letters"


def test_an_unknown_topic_is_refused_with_those_that_there_are() -> None:
    with pytest.raises(UsageError, match=r"'candle'.*candles, indicator-updates"):
        topic_named(CATALOGUE, "candle")
