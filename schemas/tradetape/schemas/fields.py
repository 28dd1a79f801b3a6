"""The fields of a record as Python sees them, derived from its Avro schema.

Each field has two forms. *Typed* is what people write and read: aware datetimes, Decimals, enums, structs.
*Plain* is what fastavro, COPY and Redis take without a detour: timestamps as integers of microseconds, decimals
as Avro bytes, enums as text, nested records as dicts. `Converter` moves between the two and is where a value is
checked, so a wrong one is refused before anything is queued.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from types import MappingProxyType
from typing import Any, NamedTuple

import msgspec

from tradetape.schemas import decimals, times
from tradetape.schemas.remembered import Remembered
from tradetape.schemas.structs import define_struct, made_of

Typed = Any
Plain = Any


class FieldRefused(ValueError):
    """A value breaks a field's rule; `path` leads to it inside of a nested value."""

    def __init__(self, path: str, value: object, rule: str) -> None:
        super().__init__(rule)
        self.path = path
        self.value = value
        self.rule = rule


class Shortcut(NamedTuple):
    """How to tell without a call that `accept` has nothing to change: most values of most events are right already.

    All three are Python expressions about {value}; `names` are what they see besides. An empty `typed` stands for the
    value itself. `accept` alone says what is right: a test holds each shortcut against it.
    """

    condition: str
    plain: str = "{value}"
    typed: str = ""
    names: Mapping[str, object] = MappingProxyType({})


class Converter(NamedTuple):
    """How values of one Avro type become typed and plain."""

    python_type: Any
    accept: Callable[[Any], tuple[Typed, Plain]]
    """Check what a user gave; the typed and the plain form. Raises ValueError with the rule."""
    restore: Callable[[Plain], Typed]
    """The typed form of what was read from the tape."""
    shortcut: Shortcut | None = None
    accept_given: Callable[[Any], tuple[Typed, Plain]] | None = None
    """Where None is taken too: `accept` for all else."""


class FieldPlan(NamedTuple):
    """One field of a record."""

    name: str
    converter: Converter
    default: Any
    """The typed default, or msgspec.NODEFAULT."""


class NamedTypes:
    """The enums and structs behind the named types of schemas, one Python class for each name."""

    def __init__(self) -> None:
        self._converters: dict[str, Converter] = {}
        self.classes: dict[str, type] = {}

    def plans(self, schema: Mapping[str, Any]) -> tuple[FieldPlan, ...]:
        """The plans of a record's fields, in their order."""
        return tuple(
            FieldPlan(field["name"], converter := self.converter(field["type"]), _typed_default(field, converter))
            for field in schema["fields"]
        )

    def converter(self, schema: Any) -> Converter:
        """The converter of any type that the tape's records use."""
        if isinstance(schema, str):
            return self._converters.get(schema) or _PRIMITIVES[schema]
        if isinstance(schema, list):
            return nullable(self.converter(schema[1]))
        kind = schema["type"]
        if (logical := schema.get("logicalType")) is not None:
            return _LOGICAL[logical]
        if kind == "map":
            return _mapping(self.converter(schema["values"]))
        if kind == "array":
            return _sequence(self.converter(schema["items"]))
        if kind in ("enum", "record"):
            return self._named(schema)
        return self.converter(kind)

    def _named(self, schema: Mapping[str, Any]) -> Converter:
        name = schema["name"]
        if name not in self._converters:
            self._converters[name] = self._enum(schema) if schema["type"] == "enum" else self._record(schema)
        return self._converters[name]

    def _enum(self, schema: Mapping[str, Any]) -> Converter:
        members = [(symbol, symbol) for symbol in schema["symbols"]]
        made: type[enum.StrEnum] = _functional_enum(schema["name"], members, module="tradetape.schemas")
        made.__doc__ = schema["doc"]
        self.classes[schema["name"]] = made
        rule = f"must be one of {', '.join(schema['symbols'])}"
        named = {symbol: made(symbol) for symbol in schema["symbols"]}

        def accept(value: Any) -> tuple[Typed, Plain]:
            try:
                member = value if type(value) is made else named[value]
            except (KeyError, TypeError):
                raise ValueError(rule) from None
            return member, member._value_

        condition = f"type({{value}}) is class_{schema['name']}"
        shortcut = Shortcut(condition, plain="{value}._value_", names={f"class_{schema['name']}": made})
        return Converter(made, accept, made, shortcut)

    def _record(self, schema: Mapping[str, Any]) -> Converter:
        plans = self.plans(schema)
        made = define_struct(schema, plans)
        self.classes[schema["name"]] = made
        article = f"must be a {schema['name']}"

        def accept(value: Any) -> tuple[Typed, Plain]:
            if not isinstance(value, made):
                raise ValueError(article)
            typed: dict[str, Typed] = {}
            plain: dict[str, Plain] = {}
            for name, converter, _ in plans:
                typed[name], plain[name] = accept_at(name, converter, getattr(value, name))
            return made_of(made, typed), plain

        def restore(plain: Plain) -> Typed:
            return made_of(made, {plan.name: plan.converter.restore(plain[plan.name]) for plan in plans})

        return Converter(made, accept, restore)


_functional_enum: Any = enum.StrEnum
"""StrEnum's functional form: mypy wants its name as a literal, and here the schema gives it."""


def _typed_default(field: Mapping[str, Any], converter: Converter) -> Any:
    return converter.restore(field["default"]) if "default" in field else msgspec.NODEFAULT


def accept_at(path: str, converter: Converter, value: Any) -> tuple[Typed, Plain]:
    """Accept a value and name the path to it where it is refused. Raises FieldRefused."""
    try:
        return converter.accept(value)
    except ValueError as error:
        raise refused_at(path, value, error) from None


def refused_at(path: str, value: Any, error: ValueError) -> FieldRefused:
    """The refusal of a value, or of one inside of it, with the path to it."""
    if isinstance(error, FieldRefused):
        return FieldRefused(f"{path}.{error.path}", error.value, error.rule)
    return FieldRefused(path, value, str(error))


def _same(value: Any) -> Any:
    return value


def _accept_text(value: Any) -> tuple[Typed, Plain]:
    if type(value) is not str:
        if not isinstance(value, str):
            raise ValueError(f"must be text, not {type(value).__name__}")
        value = str(value)
    if not value.isascii():
        try:
            value.encode()
        except UnicodeEncodeError:
            raise ValueError("must be text that UTF-8 can hold (it has a lone surrogate)") from None
    if "\x00" in value:
        raise ValueError("must not hold the character NUL, which PostgreSQL cannot store")
    return value, value


def _accept_double(value: Any) -> tuple[Typed, Plain]:
    if type(value) is not float:
        if isinstance(value, bool) or not isinstance(value, (int, float)):
            raise ValueError(f"must be a float, not {type(value).__name__}")
        value = float(value)
    if not math.isfinite(value):
        raise ValueError("must be finite; leave it out or give None when it is unknown")
    return value, value


def _accept_boolean(value: Any) -> tuple[Typed, Plain]:
    if not isinstance(value, bool):
        raise ValueError(f"must be True or False, not {type(value).__name__}")
    return value, value


def _accept_integer(bits: int) -> Callable[[Any], tuple[Typed, Plain]]:
    limit = 1 << (bits - 1)

    def accept(value: Any) -> tuple[Typed, Plain]:
        if isinstance(value, bool) or not isinstance(value, int):
            raise ValueError(f"must be an int, not {type(value).__name__}")
        if not -limit <= value < limit:
            raise ValueError(f"must fit {bits} bits")
        return value, value

    return accept


def _accept_decimal(value: Any) -> tuple[Typed, Plain]:
    typed = value if type(value) is Decimal else decimals.from_user(value)
    return typed, decimals.encode(typed)


def _accept_time(value: Any) -> tuple[Typed, Plain]:
    micros = times.from_datetime(value)
    times.check_range(micros)
    if type(value) is datetime and value.tzinfo is UTC:
        return value, micros
    return times.to_datetime(micros), micros


def nullable(inner: Converter) -> Converter:
    """The same, or None."""
    accept, restore = inner.accept, inner.restore
    return Converter(
        inner.python_type | None,
        lambda value: (None, None) if value is None else accept(value),
        lambda plain: None if plain is None else restore(plain),
        inner.shortcut,
        accept,
    )


def _sequence(inner: Converter) -> Converter:
    def accept(value: Any) -> tuple[Typed, Plain]:
        if type(value) not in _LISTS and (isinstance(value, (str, bytes)) or not isinstance(value, Sequence)):
            raise ValueError(f"must be a list, not {type(value).__name__}")
        if not value:
            return (), []
        both = [accept_at(str(index), inner, item) for index, item in enumerate(value)]
        return tuple(typed for typed, _ in both), [plain for _, plain in both]

    item_type: Any = inner.python_type
    empty = Shortcut("type({value}) is tuple and not {value}", plain="[]")
    return Converter(tuple[item_type, ...], accept, lambda plain: tuple(map(inner.restore, plain)), empty)


def _mapping(inner: Converter) -> Converter:
    def accept(value: Any) -> tuple[Typed, Plain]:
        if type(value) is dict:
            if not value:
                return {}, {}
            if inner is _DOUBLE and _PLAIN_NAMES[tuple(value)] and holds_finite_floats(value):
                typed = value.copy()
                return typed, typed
        return _accept_mapping(inner, value)

    item_type: Any = inner.python_type
    return Converter(
        dict[str, item_type],
        accept,
        lambda plain: {name: inner.restore(item) for name, item in plain.items()},
        Shortcut("type({value}) is dict and not {value}", plain="{{}}", typed="{{}}"),
    )


def _accept_mapping(inner: Converter, value: Any) -> tuple[Typed, Plain]:
    if not isinstance(value, Mapping):
        raise ValueError(f"must be a dict, not {type(value).__name__}")
    typed: dict[str, Any] = {}
    plain: dict[str, Any] = {}
    for name, item in value.items():
        key, _ = accept_at("key", _PRIMITIVES["string"], name)
        typed[key], plain[key] = accept_at(key, inner, item)
    return typed, plain


def holds_finite_floats(values: Mapping[Any, Any]) -> bool:
    """Whether all values are floats and finite. A quick look: False may also mean that their sum is not finite."""
    return _FLOATS.issuperset(map(type, values.values())) and math.isfinite(sum(values.values()))


def _are_plain(names: tuple[Any, ...]) -> bool:
    try:
        text = "".join(names)
    except TypeError:
        return False
    return text.isascii() and "\x00" not in text


_PLAIN_NAMES = Remembered(_are_plain, limit=256)
_FLOATS = frozenset((float,))
_LISTS = frozenset((list, tuple))
_TEXT_AS_IS = Shortcut("type({value}) is str and {value}.isprintable()")
_DOUBLE_AS_IS = Shortcut("type({value}) is float and isfinite({value})", names={"isfinite": math.isfinite})
_BOOLEAN_AS_IS = Shortcut("type({value}) is bool")
_TIME_AS_IS = Shortcut(
    "type({value}) is datetime and {value}.tzinfo is UTC and EARLIEST_US <= (us := ({value} - EPOCH) // US) <= LATEST_US",
    plain="us",
    names={
        "datetime": datetime, "UTC": UTC, "EPOCH": times.EPOCH, "US": times.MICROSECOND,
        "EARLIEST_US": times.EARLIEST_US, "LATEST_US": times.LATEST_US,
    },
)  # fmt: skip
_DOUBLE = Converter(float, _accept_double, _same, _DOUBLE_AS_IS)
_PRIMITIVES = {
    "string": Converter(str, _accept_text, _same, _TEXT_AS_IS),
    "double": _DOUBLE,
    "boolean": Converter(bool, _accept_boolean, _same, _BOOLEAN_AS_IS),
    "int": Converter(
        int, _accept_integer(32), _same, Shortcut("type({value}) is int and -0x80000000 <= {value} < 0x80000000")
    ),
    "long": Converter(int, _accept_integer(64), _same),
}
_LOGICAL = {
    "decimal": Converter(Decimal, _accept_decimal, decimals.to_decimal),
    "timestamp-micros": Converter(datetime, _accept_time, times.to_datetime, _TIME_AS_IS),
}
