"""What a subject found: figures with their rounds, and ratios with their limits. The only place that says ok or missed."""

from __future__ import annotations

import statistics
from typing import Any, NamedTuple

OK, MISSED, UNLIMITED = "ok", "missed", "no limit"


class Figure(NamedTuple):
    """One measured thing: a value for each round, in the unit named."""

    name: str
    unit: str
    rounds: tuple[float, ...]

    @property
    def median(self) -> float:
        """The middle of the rounds."""
        return statistics.median(self.rounds)


class Comparison(NamedTuple):
    """A ratio (or a count) beside its limit. `must_hold` marks correctness, which no noisy machine excuses."""

    name: str
    value: float
    limit: float | None
    is_upper: bool
    must_hold: bool

    @property
    def verdict(self) -> str:
        """ok, missed, or that nothing is owed."""
        if self.limit is None:
            return UNLIMITED
        return OK if (self.value <= self.limit if self.is_upper else self.value >= self.limit) else MISSED


class Report:
    """Collects what one subject measures."""

    def __init__(self, subject: str, title: str) -> None:
        self.subject = subject
        self.title = title
        self.figures: list[Figure] = []
        self.comparisons: list[Comparison] = []
        self.notes: list[str] = []
        self.skipped: str | None = None
        self.failure: str | None = None

    def figure(self, name: str, unit: str, *rounds: float) -> float:
        """Add a figure; its median."""
        self.figures.append(Figure(name, unit, rounds))
        return self.figures[-1].median

    def at_most(self, name: str, value: float, limit: float | None, *, must_hold: bool = False) -> None:
        """Add a value that must not exceed its limit; None where nothing is owed."""
        self.comparisons.append(Comparison(name, value, limit, True, must_hold))

    def at_least(self, name: str, value: float, limit: float | None, *, must_hold: bool = False) -> None:
        """Add a value that must reach its limit; None where nothing is owed."""
        self.comparisons.append(Comparison(name, value, limit, False, must_hold))

    @property
    def is_wrong(self) -> bool:
        """Whether something other than speed is amiss."""
        broken = any(one.must_hold and one.verdict == MISSED for one in self.comparisons)
        return broken or self.failure is not None

    def document(self) -> dict[str, Any]:
        """For --json."""
        return {
            "subject": self.subject,
            "title": self.title,
            "skipped": self.skipped,
            "failure": self.failure,
            "figures": [{**one._asdict(), "median": one.median} for one in self.figures],
            "comparisons": [{**one._asdict(), "verdict": one.verdict} for one in self.comparisons],
            "notes": self.notes,
        }

    def table(self) -> str:
        """For people."""
        lines = [f"{self.subject}: {self.title}"]
        if self.skipped is not None:
            lines.append(f"  skipped: {self.skipped}")
        if self.failure is not None:
            lines.append(f"  failed: {self.failure}")
        lines += _aligned([(one.name, _number(one.median), one.unit, _spread(one)) for one in self.figures])
        lines += _aligned([(one.name, _number(one.value), _limit(one), one.verdict) for one in self.comparisons])
        lines += [f"  {note}" for note in self.notes]
        return "\n".join(lines) + "\n"


def _aligned(rows: list[tuple[str, str, str, str]]) -> list[str]:
    if not rows:
        return []
    first, second, third = (max(len(row[place]) for row in rows) for place in range(3))
    return ["", *(f"  {a:<{first}}  {b:>{second}}  {c:<{third}}  {d}".rstrip() for a, b, c, d in rows)]


def _spread(figure: Figure) -> str:
    if len(figure.rounds) < 2:
        return ""
    return f"{_number(min(figure.rounds))} … {_number(max(figure.rounds))}"


def _limit(comparison: Comparison) -> str:
    if comparison.limit is None:
        return ""
    return f"{'<=' if comparison.is_upper else '>='} {_number(comparison.limit)}"


def _number(value: float) -> str:
    if value and abs(value) < 0.001:
        return f"{value:.2g}"
    if abs(value) >= 1_000 or value == int(value):
        return f"{value:,.0f}"
    return f"{value:,.3f}" if abs(value) < 1 else f"{value:,.2f}"
