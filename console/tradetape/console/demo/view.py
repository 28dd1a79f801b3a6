"""How a run looks: a table that lives while it goes, the table that reconciles, a trade's journal, and what to try next.

What is drawn is made of rich's renderables; where it goes, and whether there are colours, is the caller's business.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from decimal import Decimal

from rich.box import SIMPLE_HEAD
from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from tradetape.console.demo.gauges import Snapshot
from tradetape.console.demo.journal import Step
from tradetape.console.demo.proof import Proof
from tradetape.console.demo.run import Outcome

BAR_WIDTH = 40
SHOWN_PLACES = 4
SHOWN_PLACES_BELOW_ONE = 8


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
    if snapshot.coming:
        table.add_row("", "", "still to come", _counted(snapshot.coming))
    return table


def line(snapshot: Snapshot) -> str:
    """The same as one line, for what is no terminal."""
    behind = ", ".join(f"{name} {worker.lag:,} behind" for name, worker in snapshot.workers.items())
    hours = f"{snapshot.minutes // 60}/{snapshot.of_minutes // 60} h"
    coming = f"; still to come: {_counted(snapshot.coming)}" if snapshot.coming else ""
    return f"  {hours}: {snapshot.emitted:,} events at {snapshot.emitted_per_second:,.0f}/s; {behind}{coming}"


def _counted(coming: Mapping[str, int]) -> str:
    return ", ".join(f"{count} {name}" for name, count in coming.items())


def outcome(found: Outcome) -> RenderableType:
    """The final table and all that belongs to it."""
    proof = found.proof
    parts: list[RenderableType] = [_records(found), _trading(proof), _state(proof), _measured(found), *_faults(proof)]
    if proof.journal:
        parts.append(_journal(proof.journal))
    return Group(*parts, _verdict(found), _next(found))


def _records(found: Outcome) -> Table:
    title = f"Run {found.venue}: distinct events"
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    table.add_column("record", no_wrap=True)
    for name in ("expected", "Kafka", "undecodable", "PostgreSQL", "dead letters", "differ"):
        table.add_column(name, justify="right")
    for one in found.proof.records:
        counts = (one.expected, one.on_topic, one.undecodable, one.in_postgres, one.dead_letters, one.difference)
        table.add_row(one.record, *(f"{count:,}" for count in counts))
    return table


def _trading(proof: Proof) -> Text:
    line = proof.trading
    return Text(
        f"Trades: {line.positions} positions opened, {line.closed} closed; "
        f"{_amount(line.pnl_quote, signed=True)} USDT after {_amount(line.fees_quote)} of fees"
    )


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


def _journal(steps: Sequence[Step]) -> RenderableType:
    lines = [line for step in steps for line in _step(step)]
    title = "\nThe newest closed trade, from the values that it rests on to its profit, by ids alone:"
    return Group(Text(title, style="bold"), Text("\n".join([*lines, *_close(steps[0])])))


def _step(step: Step) -> list[str]:
    return [
        f"  candle      {step.candle_id}  {step.symbol} {step.timeframe}, close {_amount(step.close)}",
        f"  indicators  {step.update_id}  rsi_14 {step.rsi_14:.2f}",
        f"  signal      {step.signal_id}  {step.action} {step.direction} at {step.event_time:%H:%M}Z",
        f"              {'; '.join(step.reasons)}",
        f"  decision    {step.decision_id}  {step.outcome}",
        f"  trade       {step.trade_id}  planned at {_amount(step.planned_entry_price)}",
        f"  dispatch    {step.dispatch_id}  {step.dispatch_outcome} by {step.executor}",
        f"  fill        {step.fill_id}  {step.side} {_amount(step.quantity)} at {_amount(step.price)}",
    ]


def _close(step: Step) -> list[str]:
    seen = f", seen {_amount(step.min_price)} to {_amount(step.max_price)}" if step.min_price and step.max_price else ""
    return [
        f"  close       {step.close_id}  {step.close_status}, {step.exit_reason}",
        f"              bought at {_amount(step.entry_price_avg)}, sold at {_amount(step.exit_price_avg)}{seen}",
        f"              profit {_amount(step.pnl_quote, signed=True)} USDT ({step.pnl_ratio:+.2%}), fees {_amount(step.fees_quote)}",
    ]


def _amount(value: Decimal, *, signed: bool = False) -> str:
    """Rounded to what a reader wants to see; everywhere else all digits count."""
    rounded = round(value, SHOWN_PLACES if abs(value) >= 1 else SHOWN_PLACES_BELOW_ONE).normalize()
    return f"{rounded:+f}" if signed else f"{rounded:f}"


def _verdict(found: Outcome) -> Text:
    if found.proof.differences:
        return Text(f"\n{found.proof.differences} differences.", style="bold red")
    return Text("\nNothing lost, nothing doubled, nothing altered.", style="bold green")


def _next(found: Outcome) -> Text:
    commands = (
        "tradetape tail trades -n 5",
        f"tradetape history query trade_journal --venue {found.venue} -n 5",
        f"tradetape state show {found.venue} BTCUSDT 1h",
        "tradetape history status",
        *found.next_commands,
    )
    return Text("\nThe services still run. To look around:\n" + "\n".join(f"  {one}" for one in commands))


def _latency(seconds: float | None) -> str:
    return "unmeasured" if seconds is None else f"{seconds * 1_000:.0f} ms"
