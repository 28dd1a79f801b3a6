"""What decides whether a signal becomes a trade: rules over a signal and the facts of its moment, without I/O.

A decision records the facts and the limits that were in force, as text. Both come back from that text (`recorded`), so
any decision can be taken again, whatever the policy file says by then, and must come out the same (I9).

The limits are for openings, ENTER signals, alone: no rule keeps a position from being closed.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple, TypeVar

import msgspec

from tradetape.schemas import Action, DecisionOutcome, TradeSignal, names

logger = logging.getLogger("tradetape.streams")

LIMIT = "limit."
"""What the name of a recorded limit begins with."""


class Facts(msgspec.Struct, frozen=True, kw_only=True):
    """What is known when a signal is judged, besides the signal. Times are event times; None is unknown, or never."""

    is_opening: bool = False
    """Whether the signal would open a position: ENTER."""
    price: Decimal | None = None
    """The signal's own: its limit or trigger price, else its reference price."""
    open_trades: int = 0
    """Of the account: approved, and neither closed nor expired."""
    open_trades_of_symbol: int = 0
    last_price: Decimal | None = None
    """Price of the symbol's last approved opening, as planned."""
    last_opened_at: datetime | None = None
    """When the symbol's last opening was approved."""
    last_closed_at: datetime | None = None
    """When a trade of the symbol was last closed."""
    is_symbol_allowed: bool | None = None
    """Whether the policy's list names the symbol; None where it has no list."""


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """The built-in rules as a policy sets them; None and False are off."""

    minimum_score: float | None = None
    one_open_trade_per_symbol: bool = False
    maximum_open_trades: int | None = None
    minimum_price_move_ratio: Decimal | None = None
    cool_down: str | None = None
    """As a timeframe is written, such as 30m."""
    python: str | None = None
    """package.module:name of a callable that judges as well."""


Judge = Callable[[TradeSignal, Facts], Sequence[str]]
"""A policy of the user's: why the signal is refused, nothing where it is not. Pure: an audit asks it again."""
MAX_REASONS = 20
MAX_REASON_CHARACTERS = 500
"""How much of what it says is recorded."""


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """A policy as it is in force; `version` names its content, None for the built-in one that has no limits."""

    limits: Limits = Limits()
    allowed_symbols: frozenset[str] | None = None
    """VENUE:SYMBOL, or SYMBOL on any venue; None for all."""
    python: Judge | None = None
    version: str | None = None

    def allows(self, venue: str, symbol: str) -> bool | None:
        """Whether its list names the symbol; None where it has no list."""
        allowed = self.allowed_symbols
        return None if allowed is None else symbol in allowed or f"{venue}:{symbol}" in allowed


class Verdict(NamedTuple):
    """How a signal was judged; each reason begins with the rule's name."""

    outcome: DecisionOutcome
    reasons: tuple[str, ...]
    threshold: float | None


def judge(signal: TradeSignal, facts: Facts, limits: Limits, python: Judge | None = None) -> Verdict:
    """Judge a signal by every rule. The same arguments give the same verdict, at any time and place."""
    reasons = [f"{rule}: {why}" for rule, why in _refusals(signal, facts, limits)]
    outcome = DecisionOutcome.REJECTED if reasons else DecisionOutcome.PASSED
    if python is not None:
        try:
            reasons += [f"python: {one[:MAX_REASON_CHARACTERS]}" for one in _asked(python, signal, facts)[:MAX_REASONS]]
            outcome = DecisionOutcome.REJECTED if reasons else DecisionOutcome.PASSED
        except Exception as error:  # noqa: BLE001  whatever a user's code does, no trade comes of it
            logger.error("the policy %s failed on signal %s: %s: %s", limits.python, signal.signal_id,
                         type(error).__name__, error, extra={"action": "policy"})  # fmt: skip
            reasons.append(f"python: {type(error).__name__}: {error}"[:MAX_REASON_CHARACTERS])
            outcome = DecisionOutcome.ERROR
    return Verdict(outcome, tuple(reasons), limits.minimum_score)


def _asked(python: Judge, signal: TradeSignal, facts: Facts) -> Sequence[str]:
    found: Any = python(signal, facts)
    if not isinstance(found, (list, tuple)) or not all(isinstance(one, str) for one in found):
        raise TypeError(f"a policy returns a list of refusals as text, empty for none; it returned {found!r}")
    return found


def _refusals(signal: TradeSignal, facts: Facts, limits: Limits) -> Iterator[tuple[str, str]]:
    if signal.valid_until is not None and signal.valid_until <= signal.event_time:
        yield "expired", f"valid until {_instant(signal.valid_until)}, which its own time has reached"
    if signal.action == Action.UNKNOWN:
        yield "unknown_action", "what it asks for is not known here"
    if signal.action == Action.ENTER:
        for name, rule in _OPENING_RULES.items():
            if why := rule(signal, facts, limits):
                yield name, why


def _minimum_score(signal: TradeSignal, _: Facts, limits: Limits) -> str | None:
    if limits.minimum_score is None:
        return None
    if signal.score is None:
        return f"it has no score, and {limits.minimum_score!r} is wanted"
    return None if signal.score >= limits.minimum_score else f"{signal.score!r} is below {limits.minimum_score!r}"


def _allowed_symbols(signal: TradeSignal, facts: Facts, _: Limits) -> str | None:
    return None if facts.is_symbol_allowed is not False else f"{signal.venue}:{signal.symbol} is not on the list"


def _one_open_trade_per_symbol(_: TradeSignal, facts: Facts, limits: Limits) -> str | None:
    if limits.one_open_trade_per_symbol and facts.open_trades_of_symbol:
        return f"the symbol has {facts.open_trades_of_symbol} open"
    return None


def _maximum_open_trades(_: TradeSignal, facts: Facts, limits: Limits) -> str | None:
    if limits.maximum_open_trades is not None and facts.open_trades >= limits.maximum_open_trades:
        return f"{facts.open_trades} are open, and {limits.maximum_open_trades} may be"
    return None


def _minimum_price_move_ratio(_: TradeSignal, facts: Facts, limits: Limits) -> str | None:
    wanted = limits.minimum_price_move_ratio
    if wanted is None or facts.last_opened_at is None:
        return None
    if facts.price is None or not facts.last_price:
        whose = "the signal" if facts.price is None else "the symbol's last trade"
        return f"{whose} has no price, and a move by {wanted} is wanted"
    # By products alone: a quotient would be rounded, and a move of exactly the ratio is enough.
    if abs(facts.price - facts.last_price) < wanted * abs(facts.last_price):
        return f"from {facts.last_price:f} to {facts.price:f} is a move by less than {wanted}"
    return None


def _cool_down(signal: TradeSignal, facts: Facts, limits: Limits) -> str | None:
    latest = max((at for at in (facts.last_opened_at, facts.last_closed_at) if at is not None), default=None)
    if limits.cool_down is None or latest is None:
        return None
    until = latest + timedelta(microseconds=names.timeframe_us(limits.cool_down))
    return (
        None
        if signal.event_time >= until
        else f"{limits.cool_down} after the symbol's last trade end at {_instant(until)}"
    )


_OPENING_RULES = {
    "minimum_score": _minimum_score,
    "allowed_symbols": _allowed_symbols,
    "one_open_trade_per_symbol": _one_open_trade_per_symbol,
    "maximum_open_trades": _maximum_open_trades,
    "minimum_price_move_ratio": _minimum_price_move_ratio,
    "cool_down": _cool_down,
}
"""By the names that the policy file has for them."""


def _instant(at: datetime) -> str:
    return at.isoformat().replace("+00:00", "Z")


def record(facts: Facts, limits: Limits) -> dict[str, str]:
    """Facts and limits as a decision carries them; what is unknown or off is left out."""
    return {**texts_of(facts), **{f"{LIMIT}{name}": text for name, text in texts_of(limits).items()}}


def recorded(texts: Mapping[str, str]) -> tuple[Facts, Limits]:
    """The facts and limits of a decision. Raises ValueError for text that is neither."""
    limits = {name.removeprefix(LIMIT): text for name, text in texts.items() if name.startswith(LIMIT)}
    facts = {name: text for name, text in texts.items() if not name.startswith(LIMIT)}
    return _restored(facts, Facts), _restored(limits, Limits)


_Recorded = TypeVar("_Recorded", Facts, Limits)


def texts_of(values: Facts | Limits) -> dict[str, str]:
    """Each value by its name, but what is unknown or off."""
    given = msgspec.to_builtins(values).items()
    is_off = (None, False) if isinstance(values, Limits) else (None,)
    return {name: _text(value) for name, value in given if not any(value is one for one in is_off)}


def _text(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else repr(value)


def _restored(texts: Mapping[str, str], kind: type[_Recorded]) -> _Recorded:
    if unknown := texts.keys() - set(kind.__struct_fields__):
        raise ValueError(f"{', '.join(sorted(unknown))} is not known to this version")
    return msgspec.convert(texts, kind, strict=False)
