"""The rules of approval: each refuses what it says, at its edge, and a recorded decision is taken again alike (I9)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tradetape.schemas import Action, Direction, RunMode, TradeSignal
from tradetape.streams.approval.policy import Facts, Limits, Policy, judge, record, recorded

AT = datetime(2025, 3, 1, 12, tzinfo=UTC)
MINUTE = timedelta(minutes=1)
TICK = timedelta(microseconds=1)


def signal(**more: Any) -> TradeSignal:
    given: dict[str, Any] = {
        "event_id": "s", "signal_id": "s", "event_time": AT, "run_mode": RunMode.PAPER, "strategy_id": "rsi-dip",
        "venue": "binance", "symbol": "BTCUSDT", "timeframe": "1m", "action": Action.ENTER, "direction": Direction.LONG,
    }  # fmt: skip
    return TradeSignal(**{**given, **more})


def rules(of: TradeSignal, facts: Facts | None = None, **limits: Any) -> list[str]:
    """Which rules refuse a signal."""
    return [reason.partition(":")[0] for reason in judge(of, facts or Facts(), Limits(**limits)).reasons]


@pytest.mark.parametrize(("valid_for", "refused"), [(-TICK, True), (timedelta(0), True), (TICK, False)])
@pytest.mark.parametrize("action", [Action.ENTER, Action.EXIT])
def test_a_signal_has_expired_from_the_moment_it_names(valid_for: timedelta, refused: bool, action: Action) -> None:
    assert rules(signal(valid_until=AT + valid_for, action=action)) == (["expired"] if refused else [])


def test_a_signal_that_asks_for_nothing_known_is_refused() -> None:
    assert rules(signal(action=Action.UNKNOWN)) == ["unknown_action"]


@pytest.mark.parametrize(("score", "refused"), [(0.59, True), (0.6, False), (None, True)])
def test_a_score_is_at_least_the_minimum(score: float | None, refused: bool) -> None:
    assert rules(signal(score=score), minimum_score=0.6) == (["minimum_score"] if refused else [])
    assert judge(signal(score=score), Facts(), Limits(minimum_score=0.6)).threshold == 0.6


def test_a_symbol_is_open_once() -> None:
    facts = Facts(open_trades=3, open_trades_of_symbol=1)
    assert rules(signal(), facts, one_open_trade_per_symbol=True) == ["one_open_trade_per_symbol"]
    assert rules(signal(), Facts(open_trades=3), one_open_trade_per_symbol=True) == []
    assert rules(signal(), facts) == []


@pytest.mark.parametrize(("open_trades", "refused"), [(2, False), (3, True), (4, True)])
def test_so_many_trades_are_open_at_most(open_trades: int, refused: bool) -> None:
    expected = ["maximum_open_trades"] if refused else []
    assert rules(signal(), Facts(open_trades=open_trades), maximum_open_trades=3) == expected


@pytest.mark.parametrize(
    ("last", "now", "refused"),
    [
        ("100", "101.99", True), ("100", "102", False), ("100", "98", False), ("100", "98.01", True),
        ("0.00000798374", "0.0000081434148", False), ("0.00000798374", "0.0000081434147", True),
        ("100", None, True), (None, "100", True),
    ],
)  # fmt: skip
def test_the_price_has_moved_by_the_ratio_since_the_last_trade(
    last: str | None, now: str | None, refused: bool
) -> None:
    price, last_price = (None if text is None else Decimal(text) for text in (now, last))
    facts = Facts(price=price, last_price=last_price, last_opened_at=AT - MINUTE)
    expected = ["minimum_price_move_ratio"] if refused else []
    assert rules(signal(), facts, minimum_price_move_ratio=Decimal("0.02")) == expected


def test_a_first_trade_has_nothing_to_have_moved_from() -> None:
    assert rules(signal(), Facts(price=Decimal(1)), minimum_price_move_ratio=Decimal("0.02"), cool_down="1d") == []


@pytest.mark.parametrize("event", ["last_opened_at", "last_closed_at"])
@pytest.mark.parametrize(("ago", "refused"), [(30 * MINUTE - TICK, True), (30 * MINUTE, False), (-MINUTE, True)])
def test_a_symbol_cools_down_after_its_last_trade_was_opened_or_closed(
    event: str, ago: timedelta, refused: bool
) -> None:
    facts = msgspec.structs.replace(Facts(), **{event: AT - ago})
    assert rules(signal(), facts, cool_down="30m") == (["cool_down"] if refused else [])


@pytest.mark.parametrize(
    ("allowed", "answer"),
    [(None, None), ({"BTCUSDT"}, True), ({"binance:BTCUSDT"}, True), ({"kraken:BTCUSDT", "ETHUSDT"}, False)],
)
def test_a_list_allows_a_symbol_on_any_venue_or_on_one(allowed: set[str] | None, answer: bool | None) -> None:
    policy = Policy(allowed_symbols=None if allowed is None else frozenset(allowed))
    is_allowed = policy.allows("binance", "BTCUSDT")
    assert is_allowed is answer
    expected = ["allowed_symbols"] if answer is False else []
    assert rules(signal(), Facts(is_symbol_allowed=is_allowed)) == expected


@pytest.mark.parametrize("action", [Action.ADD, Action.REDUCE, Action.EXIT, Action.CANCEL])
def test_limits_are_for_openings_alone(action: Action) -> None:
    worst = Facts(open_trades=9, open_trades_of_symbol=9, last_opened_at=AT, is_symbol_allowed=False)
    limits: Mapping[str, Any] = {
        "minimum_score": 1.0, "one_open_trade_per_symbol": True, "maximum_open_trades": 0, "cool_down": "1d",
        "minimum_price_move_ratio": Decimal("0.5"),
    }  # fmt: skip
    assert rules(signal(action=action), worst, **limits) == []
    assert len(rules(signal(), worst, **limits)) == 6


def test_a_policy_in_python_refuses_beside_the_rules() -> None:
    def nothing_on_saturdays(one: TradeSignal, facts: Facts) -> list[str]:
        return [f"{one.symbol} on a Saturday", f"{facts.open_trades} open"]

    verdict = judge(signal(), Facts(open_trades=2), Limits(maximum_open_trades=1), nothing_on_saturdays)
    assert verdict.outcome == "REJECTED"
    assert verdict.reasons[1:] == ("python: BTCUSDT on a Saturday", "python: 2 open")
    assert judge(signal(), Facts(), Limits(), lambda *_: []).outcome == "PASSED"


def fails(*_: object) -> list[str]:
    raise ZeroDivisionError("division by zero")


@pytest.mark.parametrize(
    ("python", "says"),
    [(fails, "ZeroDivisionError"), (lambda *_: None, "returned None"), (lambda *_: "no", "returned 'no'"), (lambda *_: [1], "returned [1]")],
)  # fmt: skip
def test_a_policy_in_python_that_fails_lets_nothing_pass(python: Any, says: str) -> None:
    verdict = judge(signal(), Facts(), Limits(python="my:policy"), python)
    assert verdict.outcome == "ERROR"
    assert says in verdict.reasons[-1]


def test_what_a_policy_in_python_says_is_bounded() -> None:
    reasons = judge(signal(), Facts(), Limits(), lambda *_: ["x" * 10_000] * 10_000).reasons
    assert len(reasons) * max(map(len, reasons)) < 20_000


prices = st.none() | st.decimals("0.000000000000000001", "99999999999999999999", places=18)
instants = st.none() | st.datetimes(datetime(2017, 1, 1), datetime(2030, 1, 1), timezones=st.just(UTC))  # noqa: DTZ001
scores = st.none() | st.floats(allow_nan=False, allow_infinity=False)
some_facts = st.builds(
    Facts, price=prices, open_trades=st.integers(0, 10**6), open_trades_of_symbol=st.integers(0, 100),
    last_price=prices, last_opened_at=instants, last_closed_at=instants, is_symbol_allowed=st.none() | st.booleans(),
)  # fmt: skip
some_limits = st.builds(
    Limits, minimum_score=scores, one_open_trade_per_symbol=st.booleans(),
    maximum_open_trades=st.none() | st.integers(0, 100), cool_down=st.none() | st.sampled_from(["1s", "30m", "4h", "1d"]),
    minimum_price_move_ratio=st.none() | st.decimals("0.000001", "0.999999", places=6),
)  # fmt: skip
some_signals = st.builds(signal, score=scores, valid_until=instants, action=st.sampled_from(Action))


@given(some_signals, some_facts, some_limits)
def test_a_decision_taken_again_from_what_it_recorded_is_the_same(
    of: TradeSignal, facts: Facts, limits: Limits
) -> None:
    texts = record(facts, limits)
    assert all(isinstance(text, str) for text in texts.values())
    assert recorded(texts) == (facts, limits)
    assert judge(of, *recorded(texts)) == judge(of, facts, limits)


@pytest.mark.parametrize("texts", [{"weather": "fine"}, {"limit.luck": "7"}, {"open_trades": "many"}])
def test_facts_that_are_none_are_not_passed_over(texts: dict[str, str]) -> None:
    with pytest.raises(ValueError, match=r"weather|luck|many|int"):
        recorded(texts)
