"""The structs that events are made of: frozen, keyword-only, and in words of ours about a field that does not fit.

A mistyped field name must be refused where it is written, as every other mistake in an event is, and not on the way to
the tape.
"""

from __future__ import annotations

import difflib
import types
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec

from tradetape.schemas.errors import EventError

if TYPE_CHECKING:
    from tradetape.schemas.fields import FieldPlan

_construct = msgspec.StructMeta.__call__


class CheckedFields(msgspec.StructMeta):
    """The type of a struct that answers for its fields with an EventError. Decoders do not come this way."""

    def __call__(cls, *positional: Any, **given: Any) -> Any:  # noqa: N805  # a metaclass' instance is a class
        """An instance. Raises EventError for a field that there is not, or that is missing."""
        try:
            return _construct(cls, *positional, **given)
        except TypeError:
            if positional:
                raise
            _refuse(cls, given)


def made_of(struct: Any, fields: Mapping[str, Any]) -> Any:
    """An instance of fields that are all there and right: past the questions that a user's fields are asked."""
    return _construct(struct, **fields)


def _refuse(struct: Any, given: Mapping[str, Any]) -> NoReturn:
    fields = struct.__struct_fields__
    for name, value in given.items():
        if name not in fields:
            close = difflib.get_close_matches(name, fields, n=1)
            hint = f"did you mean {close[0]}?" if close else f"there are {', '.join(fields)}"
            raise EventError(struct.__name__, name, value, f"is no field of this record; {hint}") from None
    required = [field.name for field in msgspec.structs.fields(struct) if field.required]
    missing = next(name for name in required if name not in given)
    raise EventError(struct.__name__, missing, None, f"must be given; required are {', '.join(required)}") from None


class CheckedStruct(msgspec.Struct, metaclass=CheckedFields, frozen=True, kw_only=True):
    """What every event and every part of one is."""


def define_struct(schema: Mapping[str, Any], plans: Sequence[FieldPlan], *, base: type = CheckedStruct) -> type:
    """The struct of a record schema's fields, on top of those that the base has."""
    inherited = base.__struct_fields__  # type: ignore[attr-defined]
    own = [plan for plan in plans if plan.name not in inherited]

    def fill(namespace: dict[str, Any]) -> None:
        namespace["__module__"] = "tradetape.schemas"
        namespace["__doc__"] = schema.get("doc")
        namespace["__annotations__"] = {plan.name: plan.converter.python_type for plan in own}
        namespace.update({plan.name: _default(plan) for plan in own if plan.default is not msgspec.NODEFAULT})

    return types.new_class(schema["name"], (base,), {"frozen": True, "kw_only": True}, fill)


def _default(plan: FieldPlan) -> Any:
    return msgspec.field(default_factory=dict) if isinstance(plan.default, dict) else plan.default
