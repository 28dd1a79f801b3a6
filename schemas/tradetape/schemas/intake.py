"""Takes in the fields of an event: each is checked, brought to its typed form in the event, and its plain one to a variable.

As text, for the function that stamps events of one class. It is the same work as a loop that calls every field's
converter, in a third of the time: a field that stands as its default costs one comparison, one that is right already a
`Shortcut`, and only the others a call. What is right, and what is said of what is not, is the converters' to say.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from keyword import iskeyword
from typing import Any, NamedTuple

from msgspec.structs import force_setattr

from tradetape.schemas.fields import FieldPlan, refused_at
from tradetape.schemas.generated import variable


class IntakeSource(NamedTuple):
    """Lines that bring `event`, in place, to its typed fields, and leave the plain ones in their variables."""

    lines: list[str]
    """They raise FieldRefused."""
    names: dict[str, object]


def intake_source(plans: Sequence[FieldPlan], *, settled: Mapping[str, Any], spared: str | None = None) -> IntakeSource:
    """`settled` has the plain form of those defaults that all events may share.

    `spared` names a field that is only copied where the variable `is_right` says so.
    """
    names: dict[str, object] = {"put": force_setattr, "refused_at": refused_at}
    lines = ["field = ''", "try:"]
    for plan in plans:
        # The default None has been asked for before.
        is_given = plan.default is None and plan.name in settled and plan.converter.accept_given
        names[f"accept_{plan.name}"] = is_given or plan.converter.accept
        if plan.converter.shortcut is not None:
            names.update(plan.converter.shortcut.names)
        default = None
        if plan.name in settled:
            given, plain = plan.default, settled[plan.name]
            default = _named(names, f"default_{plan.name}", given), _named(names, f"settled_{plan.name}", plain)
        lines += ["    " + line for line in _of_field(plan, default, is_spared=plan.name == spared)]
    lines += ["except ValueError as error:", "    raise refused_at(field, getattr(event, field), error) from None"]
    return IntakeSource(lines, names)


def _named(names: dict[str, object], name: str, value: object) -> str:
    """A value as text: as itself where Python has a word for it."""
    if value is None or isinstance(value, bool):
        return repr(value)
    names[name] = value
    return name


def _of_field(plan: FieldPlan, default: tuple[str, str] | None, *, is_spared: bool) -> list[str]:
    """`default` names the one that most events have, typed and plain."""
    name, plain = plan.name, variable(plan.name)
    asked, word = [f"value = getattr(event, {name!r})" if iskeyword(name) else f"value = event.{name}"], "if"
    if default is not None:
        asked += [f"if value is {default[0]}:", f"    {plain} = {default[1]}"]
        word = "elif"
    if is_spared:
        asked += [f"{word} is_right:", f"    {plain} = value.copy()", f"    put(event, {name!r}, {plain})"]
        word = "elif"
    conversion = [f"field = {name!r}", f"typed, {plain} = accept_{name}(value)", f"put(event, {name!r}, typed)"]
    shortcut = plan.converter.shortcut
    if shortcut is not None:
        asked += [f"{word} {shortcut.condition.format(value='value')}:"]
        asked += [f"    {plain} = {shortcut.plain.format(value='value')}"]
        if shortcut.typed:
            asked += [f"    put(event, {name!r}, {shortcut.typed.format(value='value')})"]
    if len(asked) == 1:
        return asked + conversion
    return [*asked, "else:", *(f"    {line}" for line in conversion)]
