"""Makes the typed event of a record's plain fields by a function made for its class, in a third of a loop's time.

`Tape.read` owes a backtest what consuming and decoding by hand gives. A field's converter alone says what its typed
form is: a test holds these functions against it, for every record.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from tradetape.schemas import decimals, generated, times
from tradetape.schemas.avro_schema import Schema
from tradetape.schemas.fields import FieldPlan
from tradetape.schemas.remembered import Remembered
from tradetape.schemas.structs import made_of

Restore = Callable[[Mapping[str, Any]], Any]
_NEVER_TWICE = frozenset(("emitted_at",))
"""Times that hardly two events share; of the others one bar's events share theirs, also over many symbols."""
_REMEMBERED_INSTANTS = 4_096
_AS_THEY_ARE = frozenset(("string", "double", "boolean", "int", "long"))


def compile_restore(event_class: type, schema: Schema, plans: Sequence[FieldPlan]) -> Restore:
    """A function from plain fields, as the codec decodes them, to the event.

    It raises what a converter's restore raises, and LookupError for a symbol that an enum does not have.
    """
    names: dict[str, object] = {
        "made_of": made_of, "CLASS": event_class, "decimal": decimals.to_decimal, "instant": times.to_datetime,
        "instants": Remembered(times.to_datetime, limit=_REMEMBERED_INSTANTS),
    }  # fmt: skip
    types = {field["name"]: field["type"] for field in schema["fields"]}
    lines = ["def restore(plain):", "    return made_of(CLASS, {"]
    for plan in plans:
        names[f"restore_{plan.name}"] = plan.converter.restore
        lines.append(f"        {plan.name!r}: {_expression(types[plan.name], plan, names)},")
    restore: Restore = generated.function("restore", [*lines, "    })"], names, about=schema["name"])
    return restore


def _expression(kind: Any, plan: FieldPlan, names: dict[str, object]) -> str:
    if isinstance(kind, list):
        inner = _of_value("value", kind[1], plan, names)
        return f"None if (value := plain[{plan.name!r}]) is None else {inner}"
    return _of_value(f"plain[{plan.name!r}]", kind, plan, names)


def _of_value(value: str, kind: Any, plan: FieldPlan, names: dict[str, object]) -> str:
    """The typed form of a value that is not null."""
    if _is_plain(kind):
        return value
    if isinstance(kind, dict):
        logical = kind.get("logicalType")
        if logical == "decimal":
            return f"decimal({value})"
        if logical == "timestamp-micros":
            return f"instant({value})" if plan.name in _NEVER_TWICE else f"instants[{value}]"
        if kind["type"] == "enum":
            names[f"symbols_{plan.name}"] = {symbol: plan.converter.restore(symbol) for symbol in kind["symbols"]}
            return f"symbols_{plan.name}[{value}]"
        if kind["type"] == "map" and _is_plain(kind["values"]):
            return f"{value}.copy()"
    return f"restore_{plan.name}({value})"


def _is_plain(kind: Any) -> bool:
    return isinstance(kind, str) and kind in _AS_THEY_ARE
