"""Instants as microseconds since 1970-01-01 UTC: what Avro's timestamp-micros, PostgreSQL and datetime share (I12).

Naive datetimes are refused: fastavro and PostgreSQL both read them in whatever zone the host happens to be in.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
SECOND_US = 1_000_000
MINUTE_US = 60 * SECOND_US
DAY_US = 86_400 * SECOND_US
EARLIEST_US = 1_230_940_800 * SECOND_US
"""2009-01-03: no market that this tape speaks of is older; an earlier time is a wrong unit."""
LATEST_US = 4_102_444_800 * SECOND_US
"""2100-01-01: a later time of any kind is a wrong unit."""
MICROSECOND = timedelta(microseconds=1)
_UNITS = (("seconds", SECOND_US), ("milliseconds", 1_000))


def from_datetime(value: object) -> int:
    """Microseconds of an aware datetime. Raises ValueError with the broken rule as its text."""
    if type(value) is datetime and value.tzinfo is UTC:
        return (value - EPOCH) // MICROSECOND
    if not isinstance(value, datetime):
        hint = f" ({found})" if isinstance(value, (int, float)) and (found := _unit_of_number(value)) else ""
        raise ValueError(f"must be an aware datetime, not {type(value).__name__}{hint}")
    if value.tzinfo is None or value.utcoffset() is None:
        raise ValueError("must be an aware datetime: give it a tzinfo, such as datetime.now(UTC)")
    return (value - EPOCH) // MICROSECOND


def to_datetime(micros: int) -> datetime:
    """The instant as an aware UTC datetime."""
    return EPOCH + timedelta(0, 0, micros)


def check_range(micros: int, *, latest_us: int = LATEST_US) -> None:
    """Refuse what can only be a wrong unit: before 2009-01-03 or after `latest_us`. Raises ValueError."""
    if EARLIEST_US <= micros <= latest_us:
        return
    if micros < EARLIEST_US:
        found = next((name for name, factor in _UNITS if EARLIEST_US <= micros * factor <= LATEST_US), None)
        looks = f"; it looks like {found} taken for microseconds" if found else ""
        raise ValueError(f"must not be before 2009-01-03{looks}")
    raise ValueError(f"must not be after {to_text(latest_us)}")


def to_text(micros: int) -> str:
    """ISO 8601 in UTC with a Z, microseconds only where there are any."""
    return to_datetime(micros).isoformat().replace("+00:00", "Z")


def _unit_of_number(value: float) -> str:
    for name, factor in (("seconds", SECOND_US), ("milliseconds", 1_000), ("microseconds", 1)):
        if EARLIEST_US <= value * factor <= LATEST_US:
            return f"it looks like {name} since 1970: datetime.fromtimestamp(value / {SECOND_US // factor}, UTC)"
    return ""
