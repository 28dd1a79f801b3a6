"""The policy file: read once at the start, checked whole; each error says where it is, what may stand there, what to do.

[openings]                            # ENTER signals; whatever closes a position is never limited
minimum_score = 0.6
one_open_trade_per_symbol = true
maximum_open_trades = 10
minimum_price_move_ratio = 0.02       # 0.02 is 2 %, since the symbol's last trade
cool_down = "30m"                     # after the symbol's last trade was opened or closed
allowed_symbols = ["BTCUSDT", "binance:ETHUSDT"]

[python]
policy = "my_package.my_module:judge" # judge(signal, facts) -> list of refusals
"""

from __future__ import annotations

import difflib
import hashlib
import importlib
import inspect
import math
import re
import sys
import tomllib
from collections.abc import Callable, Mapping
from decimal import Decimal
from pathlib import Path
from typing import Any

from tradetape.producers.errors import SettingsError
from tradetape.schemas import NameRefused, names
from tradetape.streams.approval.policy import Judge, Limits, Policy

OPENINGS = "openings"
PYTHON = "python"
MAX_ALLOWED_SYMBOLS = 10_000
VERSION_DIGITS = 16
"""Hexadecimal digits of a SHA-256; those that `sha256sum policy.toml` begins with."""

Check = Callable[[Any], Any]


class _Wrong(Exception):
    """A value is not what may stand there; the text says what may."""


def load(path: str | Path) -> Policy:
    """The policy of a file. Raises SettingsError that names file, line, table and key."""
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise SettingsError(
            f"the policy file {path} cannot be read: {error.strerror}; TRADETAPE_POLICY_FILE or --policy names it"
        ) from None
    return parse(content, str(path))


def parse(content: bytes, name: str) -> Policy:
    """The policy of a file's content; `name` is what errors call it. Raises SettingsError."""
    try:
        text = content.decode()
        tables = tomllib.loads(text, parse_float=Decimal)
    except (UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise SettingsError(f"{name} is not TOML: {error}") from None
    source = _Source(text, name)
    found = {table: _table(source, tables, table) for table in tables}
    limits = found.get(OPENINGS, {})
    allowed = limits.pop("allowed_symbols", None)
    python = found.get(PYTHON, {}).get("policy")
    version, judge = hashlib.sha256(content).hexdigest()[:VERSION_DIGITS], None
    if python is not None:
        judge = _loaded(source, python, Path(name).resolve().parent)
        version = f"{version}+{_version_of_code(source, judge)}"
    return Policy(limits=Limits(**limits, python=python), allowed_symbols=allowed, python=judge, version=version)


class _Source:
    """Where a key stands in the text, for errors."""

    def __init__(self, text: str, name: str) -> None:
        self._lines = text.splitlines()
        self._name = name

    def wrong(self, table: str, key: str | None, why: str) -> SettingsError:
        """The error of a table or one of its keys."""
        line = self._line(table, key)
        place = f"{self._name}, line {line}" if line else self._name
        return SettingsError(f"{place}: [{table}] {f'{key} ' if key else ''}{why}")

    def _line(self, table: str, key: str | None) -> int | None:
        current, header = "", re.compile(r"\s*\[\s*([^\[\]]+?)\s*\]")
        for number, line in enumerate(self._lines, 1):
            if found := header.match(line):
                current = found[1].strip("\"'")
                if key is None and current == table:
                    return number
            elif (found := re.match(r"\s*([\w.\"'-]+)\s*=", line)) is not None:
                path = ".".join(part for part in (current, found[1].replace('"', "").replace("'", "")) if part)
                if path == (table if key is None else f"{table}.{key}"):
                    return number
        return None


def _table(source: _Source, tables: Mapping[str, Any], table: str) -> dict[str, Any]:
    checks = _TABLES.get(table)
    if checks is None:
        raise source.wrong(table, None, f"is not a table of a policy; {_nearest(table, _TABLES)}")
    values = tables[table]
    if not isinstance(values, dict):
        raise source.wrong(table, None, f"must be a table: write [{table}] on a line of its own, and its rules below")
    found = {}
    for key, value in values.items():
        if key not in checks:
            raise source.wrong(table, key, f"is not a rule; {_nearest(key, checks)}")
        try:
            found[key] = checks[key](value)
        except _Wrong as wrong:
            raise source.wrong(table, key, f"= {_shown(value)}: {wrong}") from None
    return found


def _nearest(given: str, known: Mapping[str, Any]) -> str:
    close = difflib.get_close_matches(given, known, n=1)
    return f"did you mean {close[0]}?" if close else f"there are {', '.join(known)}"


def _shown(value: object) -> str:
    text = str(value).lower() if isinstance(value, bool) else repr(value) if isinstance(value, str) else str(value)
    return text if len(text) <= 60 else f"{text[:59]}…"


def _number(value: Any, what: str) -> Decimal:
    if isinstance(value, bool) or not isinstance(value, (int, Decimal)) or not math.isfinite(float(value)):
        raise _Wrong(f"must be {what}")
    return Decimal(value)


def _score(value: Any) -> float:
    return float(_number(value, "a number on the scale of your scores, such as 0.6"))


def _ratio(value: Any) -> Decimal:
    what = "a fraction above 0 and below 1, such as 0.02 for 2 %"
    ratio = _number(value, what)
    if not 0 < ratio < 1:
        raise _Wrong(f"must be {what}")
    return ratio


def _flag(value: Any) -> bool:
    if not isinstance(value, bool):
        raise _Wrong("must be true or false, without quotes")
    return value


def _count(value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or value < 0:
        raise _Wrong("must be a whole number, 0 or more; 0 lets no trade be opened")
    return value


def _duration(value: Any) -> str:
    try:
        text = names.normalise_timeframe(value if isinstance(value, str) else "")
    except NameRefused:
        text = "mo"
    if not names.has_fixed_length(text):
        raise _Wrong('must be a length of time in quotes: a number and one of s, m, h, d, w, such as "30m"')
    return text


def _symbols(value: Any) -> frozenset[str]:
    if not isinstance(value, list) or not value or not all(isinstance(one, str) for one in value):
        raise _Wrong('must be a list of symbols, such as ["BTCUSDT", "binance:ETHUSDT"]; leave it out to allow all')
    if len(value) > MAX_ALLOWED_SYMBOLS:
        raise _Wrong(f"has {len(value)} symbols, and {MAX_ALLOWED_SYMBOLS} may be")
    return frozenset(map(_symbol, value))


def _symbol(text: str) -> str:
    venue, colon, symbol = text.rpartition(":")
    try:
        # A colon is ccxt's as well: BTC/USDT:USDT is a symbol without a venue.
        if not colon or "/" in venue:
            return names.normalise_symbol(text)
        return f"{names.normalise_venue(venue)}:{names.normalise_symbol(symbol)}"
    except NameRefused as error:
        raise _Wrong(f"{error}; write SYMBOL, or VENUE:SYMBOL") from None


def _callable(value: Any) -> str:
    if not isinstance(value, str) or not re.fullmatch(r"[A-Za-z_][\w.]*:[A-Za-z_]\w*", value):
        raise _Wrong('must be "package.module:name" of a function judge(signal, facts) that returns a list of refusals')
    return value


_TABLES: Mapping[str, Mapping[str, Check]] = {
    OPENINGS: {
        "minimum_score": _score,
        "one_open_trade_per_symbol": _flag,
        "maximum_open_trades": _count,
        "minimum_price_move_ratio": _ratio,
        "cool_down": _duration,
        "allowed_symbols": _symbols,
    },
    PYTHON: {"policy": _callable},
}


def _loaded(source: _Source, reference: str, folder: Path) -> Judge:
    """Import the user's policy: from beside its file first, then from wherever Python looks."""
    module_name, _, name = reference.partition(":")
    sys.path.insert(0, str(folder))
    try:
        judge = getattr(importlib.import_module(module_name), name)
    except Exception as error:
        why = (
            f"cannot be imported: {type(error).__name__}: {error}; it is looked for in {folder}, then on Python's path"
        )
        raise source.wrong(PYTHON, "policy", f"= {reference!r}: {why}") from error
    finally:
        sys.path.remove(str(folder))
    if not callable(judge):
        raise source.wrong(PYTHON, "policy", f"= {reference!r}: is no function, but a {type(judge).__name__}")
    return judge  # type: ignore[no-any-return]


def _version_of_code(source: _Source, judge: Judge) -> str:
    """The content of the module that holds it; what that imports in its turn is not looked at."""
    file = inspect.getsourcefile(inspect.unwrap(judge)) if inspect.isroutine(judge) else None
    if file is None:
        raise source.wrong(PYTHON, "policy", "must be a plain function in a .py file: its text is part of the version")
    return hashlib.sha256(Path(file).read_bytes()).hexdigest()[:VERSION_DIGITS]
