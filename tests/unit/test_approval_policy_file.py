"""The policy file: what it says is in force, and what is wrong with it is said with its place and what to do."""

from __future__ import annotations

import hashlib
from decimal import Decimal
from pathlib import Path

import pytest

from tradetape.producers.errors import SettingsError
from tradetape.streams.approval import policy_file
from tradetape.streams.approval.policy import Limits

WHOLE = """\
# What the desk agreed upon.
[openings]
minimum_score = 0.6
one_open_trade_per_symbol = true
maximum_open_trades = 10
minimum_price_move_ratio = 0.02
cool_down = "60m"
allowed_symbols = ["BTC/USDT", "Binance:ETHUSDT", "BTC/USDT:USDT"]
"""


def parse(text: str) -> None:
    policy_file.parse(text.encode(), "policy.toml")


def test_a_whole_file_is_in_force_as_it_says() -> None:
    policy = policy_file.parse(WHOLE.encode(), "policy.toml")
    assert policy.limits == Limits(
        minimum_score=0.6, one_open_trade_per_symbol=True, maximum_open_trades=10, cool_down="1h",
        minimum_price_move_ratio=Decimal("0.02"),
    )  # fmt: skip
    assert policy.allowed_symbols == frozenset(("BTCUSDT", "binance:ETHUSDT"))
    assert hashlib.sha256(WHOLE.encode()).hexdigest().startswith(policy.version or "?")


def test_an_empty_file_limits_nothing() -> None:
    policy = policy_file.parse(b"", "policy.toml")
    assert (policy.limits, policy.allowed_symbols, policy.python) == (Limits(), None, None)


@pytest.mark.parametrize(
    ("text", "place", "says"),
    [
        ("[openings]\nminimum_scor = 1", "line 2: [openings] minimum_scor ", "did you mean minimum_score?"),
        ("\n[opening]\nx = 1", "line 2: [opening] ", "did you mean openings?"),
        ("weather = 1", "line 1: [weather] ", "there are openings, python"),
        ("openings = 3", "line 1: [openings] ", "must be a table"),
        ("[openings]\n\nminimum_score = 'high'", "line 3: [openings] minimum_score = 'high'", "such as 0.6"),
        ("[openings]\nminimum_score = nan", "line 2", "such as 0.6"),
        ("[openings]\nminimum_score = 1e999", "line 2", "such as 0.6"),
        ("[openings]\nminimum_score = true", "line 2: [openings] minimum_score = true", "such as 0.6"),
        ("openings.minimum_score = '1'", "line 1: [openings] minimum_score", "such as 0.6"),
        ("[openings]\none_open_trade_per_symbol = 'yes'", "line 2", "true or false, without quotes"),
        ("[openings]\nmaximum_open_trades = -1", "line 2", "whole number, 0 or more"),
        ("[openings]\nmaximum_open_trades = 1.5", "line 2", "whole number, 0 or more"),
        ("[openings]\nminimum_price_move_ratio = 2", "line 2", "0.02 for 2 %"),
        ("[openings]\nminimum_price_move_ratio = 0", "line 2", "0.02 for 2 %"),
        ("[openings]\ncool_down = 30", "line 2: [openings] cool_down = 30", 'such as "30m"'),
        ("[openings]\ncool_down = '1mo'", "line 2", 'such as "30m"'),
        ("[openings]\nallowed_symbols = 'BTCUSDT'", "line 2", "list of symbols"),
        ("[openings]\nallowed_symbols = []", "line 2", "leave it out to allow all"),
        ("[openings]\nallowed_symbols = ['BTC_ETH_USDT']", "line 2", "write SYMBOL, or VENUE:SYMBOL"),
        ("[python]\npolicy = 'my_policy'", "line 2: [python] policy = 'my_policy'", '"package.module:name"'),
        ("[python]\npolicy = 'no_such_module_of_mine:judge'", "line 2", "cannot be imported"),
        ("[python]\npolicy = 'json:__doc__'", "line 2", "is no function"),
        ("[openings\nminimum_score = 1", "policy.toml is not TOML", "line 1"),
        ("[openings]\nminimum_score = 1\nminimum_score = 2\n", "policy.toml is not TOML", "line 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_place_and_what_may_stand_there(text: str, place: str, says: str) -> None:
    with pytest.raises(SettingsError) as caught:
        parse(text)
    assert place in str(caught.value)
    assert says in str(caught.value)


def test_a_file_that_is_not_there_is_named_with_its_setting(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"absent\.toml cannot be read.*TRADETAPE_POLICY_FILE"):
        policy_file.load(tmp_path / "absent.toml")


def test_a_policy_in_python_is_found_beside_its_file_and_its_text_is_part_of_the_version(tmp_path: Path) -> None:
    code = "def judge(signal, facts):\n    return ['never']\n"
    (tmp_path / "desk_policy_a.py").write_text(code)
    (tmp_path / "desk_policy_b.py").write_text(code + "\n# another day\n")
    versions = []
    for name in ("a", "b"):
        file = tmp_path / "policy.toml"
        file.write_text(f'[python]\npolicy = "desk_policy_{name}:judge"\n')
        policy = policy_file.load(file)
        assert policy.python is not None
        assert policy.python(None, None) == ["never"]  # type: ignore[arg-type]
        assert policy.limits.python == f"desk_policy_{name}:judge"
        versions.append((policy.version or "").partition("+")[2])
    assert hashlib.sha256(code.encode()).hexdigest().startswith(versions[0])
    assert len(set(versions)) == 2
