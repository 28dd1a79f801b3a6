"""How a run looks: a table that lives while it goes, the table that reconciles, a signal's journal, and what to try next.

What is drawn is made of rich's renderables; where it goes, and whether there are colours, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tradetape.console.demo.gauges import Snapshot
from tradetape.console.demo.proof import Proof
from tradetape.console.demo.rows import Journal
from tradetape.console.demo.run import Outcome

BAR_WIDTH = 40


def live(snapshot: Snapshot) -> RenderableType:
    """One look at a run."""
    table = Table.grid(padding=(0, 2))
    bar = ProgressBar(total=snapshot.of_minutes, completed=snapshot.minutes, width=BAR_WIDTH)
    hours = f"{snapshot.minutes // 60} of {snapshot.of_minutes // 60} hours of the market"
    table.add_row("bot", bar, f"{snapshot.emitted:,} events, {snapshot.emitted_per_second:,.0f}/s", hours)
    for name, worker in snapshot.workers.items():
        table.add_row(name, "", f"{worker.per_second:,.0f}/s", f"{worker.lag:,} behind")
    for name, latency_s in snapshot.latencies_s.items():
        table.add_row("", "", f"emit → {name}", f"{_latency(latency_s)} (median)")
    return table


def line(snapshot: Snapshot) -> str:
    """The same as one line, for what is no terminal."""
    behind = ", ".join(f"{name} {worker.lag:,} behind" for name, worker in snapshot.workers.items())
    hours = f"{snapshot.minutes // 60}/{snapshot.of_minutes // 60} h"
    return f"  {hours}: {snapshot.emitted:,} events at {snapshot.emitted_per_second:,.0f}/s; {behind}"


def outcome(found: Outcome) -> RenderableType:
    """The final table and all that belongs to it."""
    parts: list[RenderableType] = [_records(found), _state(found.proof), _measured(found), *_faults(found.proof)]
    if found.proof.journal is not None:
        parts.append(_journal(found.proof.journal))
    return Group(*parts, _verdict(found), _next(found))


def _records(found: Outcome) -> Table:
    title = f"Run {found.venue}: distinct events"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("record", no_wrap=True)
    for name in ("emitted", "Kafka", "undecodable", "PostgreSQL", "dead letters", "differ"):
        table.add_column(name, justify="right")
    for one in found.proof.records:
        counts = (one.emitted, one.on_topic, one.undecodable, one.in_postgres, one.dead_letters, one.difference)
        table.add_row(one.record, *(f"{count:,}" for count in counts))
    return table


def _state(proof: Proof) -> Text:
    state = proof.state
    return Text(
        f"Redis: {state.series} series, {state.equal} equal to their newest event in every field, {state.expired} past "
        f"their time\n       {state.without_expiry} keys without expiry, {state.not_compact} not compact"
    )


def _measured(found: Outcome) -> Text:
    latencies = ", ".join(f"{name} {_latency(latency_s)}" for name, latency_s in found.latencies_s.items())
    return Text(
        f"{found.emitted:,} events in {found.duration_s:.1f} s; from emit until it can be read (median): {latencies}"
    )


def _faults(proof: Proof) -> Iterable[Text]:
    return [Text(f"differs: {fault}", style="red") for fault in proof.faults]


def _journal(journal: Journal) -> RenderableType:
    price, close = (f"{one.normalize():f}" for one in (journal.reference_price, journal.candle_close))
    values = f"rsi_14 {journal.rsi_14:.2f}, ema_50 {journal.ema_50:.6g}, ema_200 {journal.ema_200:.6g}"
    lines = (
        f"  signal      {journal.signal_id}  {journal.event_time:%Y-%m-%d %H:%M}Z",
        f"              {journal.action} {journal.direction} {journal.symbol} at {price}: {'; '.join(journal.reasons)}",
        f"  indicators  {journal.update_id}  {journal.timeframe}: {values}",
        f"  candle      {journal.candle_id}  opened {journal.candle_open_time:%H:%M}, close {close}",
    )
    return Group(Text("\nThe newest signal, walked back by ids alone:", style="bold"), Text("\n".join(lines)))


def _verdict(found: Outcome) -> Text:
    if found.proof.differences:
        return Text(f"\n{found.proof.differences} differences.", style="bold red")
    return Text("\nNothing lost, nothing doubled, nothing altered.", style="bold green")


def _next(found: Outcome) -> Text:
    commands = (
        "tradetape tail trade-signals -n 5",
        f"tradetape state show {found.venue} BTCUSDT 1h",
        "tradetape history status",
        *found.next_commands,
    )
    return Text("\nThe services still run. To look around:\n" + "\n".join(f"  {one}" for one in commands))


def _latency(seconds: float | None) -> str:
    return "unmeasured" if seconds is None else f"{seconds * 1_000:.0f} ms"
