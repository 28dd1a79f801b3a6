"""Instants are aware and exact to the microsecond, and a wrong unit is recognised as one."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta, timezone, tzinfo
from zoneinfo import ZoneInfo

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradetape.schemas import times

OFFSETS = st.integers(-23 * 60, 23 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
SECONDS = st.integers(1_231_200_000, 4_102_300_000)
AWARE = st.builds(
    lambda second, micro, zone: (datetime(1970, 1, 1, tzinfo=UTC) + timedelta(0, second, micro)).astimezone(zone),
    SECONDS,
    st.integers(0, 999_999),
    OFFSETS,
)
NAIVE = datetime(2025, 5, 4, tzinfo=UTC).replace(tzinfo=None)


def micros_by_parts(instant: datetime) -> int:
    """Microseconds since 1970 by the calendar alone: days, seconds, microseconds."""
    utc = instant.astimezone(UTC)
    days = utc.toordinal() - date(1970, 1, 1).toordinal()
    return (((days * 24 + utc.hour) * 60 + utc.minute) * 60 + utc.second) * 1_000_000 + utc.microsecond


@given(AWARE)
def test_an_instant_of_any_zone_comes_back_as_the_same_instant_in_utc(instant: datetime) -> None:
    micros = times.from_datetime(instant)
    assert micros == micros_by_parts(instant)
    assert times.to_datetime(micros) == instant
    assert times.to_datetime(micros).tzinfo is UTC


@given(AWARE)
def test_text_is_iso_8601_with_a_z(instant: datetime) -> None:
    text = times.to_text(times.from_datetime(instant))
    assert text.endswith("Z")
    assert datetime.fromisoformat(text) == instant


def test_text_has_microseconds_only_where_there_are_any() -> None:
    assert times.to_text(1_746_372_780_000_000) == "2025-05-04T15:33:00Z"
    assert times.to_text(1_746_372_780_000_001) == "2025-05-04T15:33:00.000001Z"


@pytest.fixture(params=["America/New_York", "Europe/Berlin", "Asia/Kathmandu"])
def host_zone(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A host that is set to a zone of its own."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", request.param)
        time.tzset()
        yield
    time.tzset()


@pytest.mark.usefixtures("host_zone")
def test_the_hosts_zone_changes_nothing() -> None:
    assert times.from_datetime(datetime(2025, 5, 4, 15, 33, tzinfo=UTC)) == 1_746_372_780_000_000
    assert times.to_text(1_746_372_780_000_000) == "2025-05-04T15:33:00Z"


def test_the_hour_that_a_clock_shows_twice_is_two_hours() -> None:
    zone = ZoneInfo("America/New_York")
    first, second = (datetime(2024, 11, 3, 1, 30, tzinfo=zone, fold=fold) for fold in (0, 1))
    assert times.from_datetime(second) - times.from_datetime(first) == 3_600_000_000


class NoOffset(tzinfo):
    """A zone that does not know its offset: Python calls such a datetime naive."""

    def utcoffset(self, _: datetime | None) -> None:
        return None

    def dst(self, _: datetime | None) -> None:
        return None

    def tzname(self, _: datetime | None) -> str:
        return "nowhere"


@pytest.mark.parametrize("naive", [NAIVE, NAIVE.replace(tzinfo=NoOffset())])
def test_a_naive_datetime_is_refused(naive: datetime) -> None:
    with pytest.raises(ValueError, match=r"must be an aware datetime: give it a tzinfo, such as datetime.now\(UTC\)"):
        times.from_datetime(naive)


@pytest.mark.parametrize(
    ("number", "unit", "divisor"),
    [
        (1_746_372_780, "seconds", 1),
        (1_746_372_780.25, "seconds", 1),
        (1_746_372_780_000, "milliseconds", 1_000),
        (1_746_372_780_000_000, "microseconds", 1_000_000),
    ],
)
def test_a_number_is_refused_with_the_unit_it_looks_like_and_its_cure(number: float, unit: str, divisor: int) -> None:
    with pytest.raises(ValueError, match="must be an aware datetime") as refused:
        times.from_datetime(number)
    cure = f"datetime.fromtimestamp(value / {divisor}, UTC)"
    assert str(refused.value).endswith(f"(it looks like {unit} since 1970: {cure})")
    assert datetime.fromtimestamp(number / divisor, UTC).date() == date(2025, 5, 4)


@pytest.mark.parametrize("wrong", [date(2025, 5, 4), "2025-05-04T15:33:00Z", None, 7, float("nan"), True])
def test_what_is_no_datetime_is_refused(wrong: object) -> None:
    with pytest.raises(ValueError, match=f"must be an aware datetime, not {type(wrong).__name__}"):
        times.from_datetime(wrong)


@pytest.mark.parametrize(
    ("micros", "looks"),
    [
        (1_746_372_780_000, "; it looks like milliseconds taken for microseconds"),
        (1_746_372_780, "; it looks like seconds taken for microseconds"),
        (0, ""),
        (-1, ""),
        (1_230_940_799_999_999, ""),
    ],
)
def test_a_time_before_the_first_block_is_a_wrong_unit(micros: int, looks: str) -> None:
    with pytest.raises(ValueError, match=r"must not be before 2009-01-03") as refused:
        times.check_range(micros)
    assert str(refused.value) == f"must not be before 2009-01-03{looks}"


def test_a_time_after_2100_is_refused() -> None:
    with pytest.raises(ValueError, match="must not be after 2100-01-01T00:00:00Z"):
        times.check_range(micros_by_parts(datetime(2100, 1, 1, tzinfo=UTC)) + 1)


@pytest.mark.parametrize("instant", [datetime(2009, 1, 3, tzinfo=UTC), datetime(2100, 1, 1, tzinfo=UTC)])
def test_the_bounds_themselves_are_accepted(instant: datetime) -> None:
    times.check_range(micros_by_parts(instant))
