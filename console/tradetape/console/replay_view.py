"""How a replay is shown: a bar with rate and time left while it goes on, its counts at the end, and the list of runs."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from typing import Any

from tradetape.sinks.replay.runs import Run
from tradetape.sinks.replay.targets.target import Difference

Tell = Callable[[str, int, int], None]


@contextmanager
def bar(*, is_wanted: bool) -> Iterator[Tell]:
    """Tells a bar on stderr, where somebody looks at it."""
    if not is_wanted:
        yield lambda *_: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (
        TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(),
    )  # fmt: skip
    with Progress(*columns, console=Console(file=sys.stderr), transient=True) as progress:
        tasks: dict[str, Any] = {}

        def tell(what: str, done: int, total: int) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=total, rate="")
            speed = next(one.finished_speed or one.speed for one in progress.tasks if one.id == tasks[what])
            progress.update(tasks[what], completed=done, total=total, rate=f"{speed:,.0f}/s" if speed else "")

        yield tell


def document(
    *, run_id: str | None, outcome: str, counts: Mapping[str, int], differences: Sequence[Difference], took_s: float
) -> dict[str, Any]:
    """For --json."""
    return {
        "run": run_id, "outcome": outcome, "counts": dict(sorted(counts.items())), "seconds": round(took_s, 3),
        "differences": [one._asdict() for one in differences],
    }  # fmt: skip


def lines(*, into: str, outcome: str, counts: Mapping[str, int], took_s: float) -> Iterator[str]:
    """For people: what was read, what became of it, what could not be replayed."""
    replayed, read = counts.get("replayed", 0), counts.get("read", 0)
    rate = f", {read / took_s:,.0f} records/s" if took_s > 0 and read else ""
    yield f"{outcome.lower().replace('_', ' ')}: {replayed:,} of {read:,} records read into {into} in {took_s:.1f} s{rate}"
    rest = {name: count for name, count in sorted(counts.items()) if name not in ("replayed", "read", "kept") and count}
    if rest:
        yield "  " + ", ".join(f"{name.replace('_', ' ')} {count:,}" for name, count in rest.items())


def table(differences: Sequence[Difference]) -> Iterator[str]:
    """A copy of the history beside the live one."""
    width = max((len(one.table) for one in differences), default=5)
    yield f"{'table':<{width}} {'same':>12} {'missing':>9} {'extra':>9} {'different':>9}"
    for one in differences:
        yield f"{one.table:<{width}} {one.same:>12,} {one.missing:>9,} {one.extra:>9,} {one.different:>9,}"


def listed(runs: Sequence[Run]) -> Iterator[str]:
    """The runs, newest first."""
    yield f"{'run':<36}  {'started':<17}  {'outcome':<11}  {'replayed':>12}  into, from … to"
    for one in runs:
        yield (
            f"{one.run_id}  {_moment(one.started_at)}  {one.outcome:<11}  {one.counts.get('replayed', 0):>12,}  "
            f"{one.target}, {_moment(one.range_start) or 'beginning'} … {_moment(one.range_end) or 'end'}"
        )


def _moment(instant: datetime | None) -> str:
    return "" if instant is None else f"{instant.astimezone(UTC):%Y-%m-%d %H:%M}Z"
