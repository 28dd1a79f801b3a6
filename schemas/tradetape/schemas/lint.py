"""What a schema of ours must be beyond valid Avro, and what no later version may change.

Avro's own compatibility lets a price change its scale, a time its unit and a field its name without a word, and
fastavro follows a recursive schema until the interpreter crashes. `problems` looks at one schema, `changes` at two.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import product
from typing import Any

import fastavro

from tradetape.schemas import avro_schema
from tradetape.schemas.avro_schema import NAMESPACE, Schema
from tradetape.schemas.event_classes import COMMON_FIELDS

MAX_DEPTH = 16
MAX_FIELDS = 512
_PRIMITIVES = frozenset(("null", "boolean", "int", "long", "double", "string", "bytes"))
_LOGICAL: dict[str, Schema] = {
    "decimal": {"type": "bytes", "logicalType": "decimal", "precision": 38, "scale": 18},
    "timestamp-micros": {"type": "long", "logicalType": "timestamp-micros"},
}
_MAY_CHANGE = frozenset(("doc", "fields", "symbols", "type", "items", "values"))
"""Attributes that may change, or that are compared part by part; every other one means something."""


def problems(record: str, schema: Schema) -> Iterator[str]:
    """What is wrong with one schema, in one line each."""
    if (schema.get("namespace"), schema.get("name")) != (NAMESPACE, record):
        yield f"{record}: must be named {record} in the namespace {NAMESPACE}"
    try:
        fastavro.parse_schema(schema)
    except (fastavro.schema.SchemaParseException, fastavro.schema.UnknownType, LookupError, TypeError) as error:
        yield f"{record}: is no Avro schema: {type(error).__name__}: {error}"
        return
    broken = list(_structure(schema, "", (), {}))
    yield from (f"{record}{where}: {rule}" for where, rule in broken)
    if not broken:
        yield from (f"{record}{where}: {rule}" for where, rule in _bounds(schema))
    for one in avro_schema.named_types(schema):
        owner = record if one is schema else f"{record}.{one['name']}"
        yield from (f"{owner}{where}: {rule}" for where, rule in _declaration(one))


def _structure(node: Any, where: str, inside: tuple[str, ...], named: dict[str, Schema]) -> Iterator[tuple[str, str]]:
    """Type names that lead nowhere or in a circle, and types that the tape does not use."""
    if (rule := _broken(node, inside, named)) is not None:
        yield where, rule
    if isinstance(node, dict) and node["type"] in ("record", "enum"):
        named[node["name"]] = node
        inside = (*inside, node["name"])
    for step, child in _children(node):
        yield from _structure(child, where + step, inside, named)


def _broken(node: Any, inside: tuple[str, ...], named: Mapping[str, Schema]) -> str | None:
    if isinstance(node, list):
        fine = len(node) == 2 and node[0] == "null" and node[1] != "null" and not isinstance(node[1], list)
        return None if fine else 'a union must be ["null", T]'
    if isinstance(node, dict):
        logical = node.get("logicalType")
        if logical is None or _LOGICAL.get(logical) == node:
            return None
        return "a logical type must be decimal(38,18) in bytes or timestamp-micros in a long"
    if _last(node) in inside:
        return f"{_last(node)} contains itself, and a decoder may follow it until it crashes"
    if node in _PRIMITIVES or _last(node) in named:
        return None
    return f"{node} is no type of the tape; it has {', '.join(sorted(_PRIMITIVES))}"


def _children(node: Any) -> Iterator[tuple[str, Any]]:
    """The types that a type is made of, each with the step that leads to it."""
    if isinstance(node, list):
        yield from (("", branch) for branch in node)
    elif isinstance(node, dict) and not node.get("logicalType"):
        if node["type"] == "record":
            yield from ((f".{field['name']}", field["type"]) for field in node["fields"])
        elif node["type"] in ("array", "map"):
            yield ".*", _item(node)
        elif node["type"] != "enum":
            yield "", node["type"]


def _item(node: Mapping[str, Any]) -> Any:
    return node["items"] if node["type"] == "array" else node["values"]


def _last(name: str) -> str:
    return name.rpartition(".")[2]


def _bounds(schema: Schema) -> Iterator[tuple[str, str]]:
    """What could blow up a decoder. Only for schemas without circles."""
    named = {one["name"]: one for one in avro_schema.named_types(schema)}
    if (depth := _depth(schema, named, {})) > MAX_DEPTH:
        yield "", f"is nested {depth} deep; at most {MAX_DEPTH}"
    records = [one for one in named.values() if one["type"] == "record"]
    if (count := sum(len(one["fields"]) for one in records)) > MAX_FIELDS:
        yield "", f"has {count} fields; at most {MAX_FIELDS}"
    for one in records:
        for field in one["fields"]:
            if any(_is_empty(_item(node), named) for node in _collections(field["type"])):
                where = field["name"] if one is schema else f"{one['name']}.{field['name']}"
                yield f".{where}", "its items take no bytes, so a few bytes could claim millions of them"


def _depth(node: Any, named: Mapping[str, Schema], known: dict[str, int]) -> int:
    """How many records, unions, arrays and maps lie inside of each other; `known` holds what was measured already."""
    if isinstance(node, str):
        return _depth(named[_last(node)], named, known) if _last(node) in named else 0
    name = node.get("name") if isinstance(node, dict) else None
    if name not in known:
        opens = isinstance(node, list) or node["type"] in ("record", "array", "map")
        depth = int(opens) + max((_depth(child, named, known) for _, child in _children(node)), default=0)
        if name is None:
            return depth
        known[name] = depth
    return known[name]


def _collections(node: Any) -> Iterator[Mapping[str, Any]]:
    """The arrays and maps written out in a field's type; those of nested records are found as fields of their own."""
    if isinstance(node, dict) and node["type"] in ("array", "map"):
        yield node
    if isinstance(node, list) or (isinstance(node, dict) and node["type"] != "record"):
        for _, child in _children(node):
            yield from _collections(child)


def _is_empty(node: Any, named: Mapping[str, Schema]) -> bool:
    if isinstance(node, str):
        return node == "null" or (_last(node) in named and _is_empty(named[_last(node)], named))
    if isinstance(node, dict) and node["type"] == "record":
        return all(_is_empty(field["type"], named) for field in node["fields"])
    return isinstance(node, dict) and node["type"] == "null"


def _declaration(schema: Schema) -> Iterator[tuple[str, str]]:
    """Rules of a record or an enum itself and of its fields."""
    yield from (("", rule) for rule in _words(schema))
    if schema["type"] == "enum" and (schema["symbols"][:1] != ["UNKNOWN"] or schema.get("default") != "UNKNOWN"):
        yield "", "an enum's first symbol and default must be UNKNOWN, or older readers fail on a new symbol"
    for field in schema.get("fields", ()):
        yield from ((f".{field['name']}", rule) for rule in _words(field))
        if isinstance(field["type"], list) and field.get("default", ...) is not None:
            yield f".{field['name']}", "is nullable, so its default must be null"


def _words(node: Mapping[str, Any]) -> Iterator[str]:
    if not node.get("doc", "").strip():
        yield "must have a doc; a field's says unit and sign"
    if "aliases" in node:
        yield "must have no aliases: older readers do not know them, so nothing is ever renamed"


def shared(heads: Mapping[str, Schema]) -> Iterator[str]:
    """Differences between records in what they share: the common fields, and types of one name."""
    first_common: str | None = None
    seen: dict[str, tuple[str, str]] = {}
    for record, schema in heads.items():
        common = avro_schema.normalised(schema["fields"][: len(COMMON_FIELDS)])
        if first_common is None:
            first_common = common
        elif common != first_common:
            yield f"{record}: its first {len(COMMON_FIELDS)} fields must be those that all events have in common"
        for one in avro_schema.named_types(schema):
            first_record, text = seen.setdefault(one["name"], (record, avro_schema.normalised(one)))
            if text != avro_schema.normalised(one):
                yield f"{record}: {one['name']} must be the same here and in {first_record}: it is one Python class"


def changes(earlier: Schema, later: Schema) -> Iterator[str]:
    """What a later version of a record changes though it must not, whatever Avro's own rules allow."""
    if (earlier.get("namespace"), earlier["name"]) != (later.get("namespace"), later["name"]):
        yield "the record's name and namespace must stay"
    older = {one["name"]: one for one in avro_schema.named_types(earlier)}
    newer = {one["name"]: one for one in avro_schema.named_types(later)}
    for name in older.keys() & newer.keys():
        yield from (f"{name}{rule}" for rule in _changed_type(older[name], newer[name]))


def _changed_type(earlier: Schema, later: Schema) -> Iterator[str]:
    if earlier["type"] != later["type"]:
        yield ": must stay what it was"
    elif earlier["type"] == "enum":
        if _meaning(earlier) != _meaning(later):
            yield ": an enum's default must stay"
        if gone := [symbol for symbol in earlier["symbols"] if symbol not in later["symbols"]]:
            yield f": {', '.join(gone)} must stay: events on the tape use it"
    else:
        yield from _changed_fields(earlier["fields"], later["fields"])


def _changed_fields(earlier: list[Schema], later: list[Schema]) -> Iterator[str]:
    older = {field["name"]: field for field in earlier}
    newer = {field["name"]: field for field in later}
    for name in (name for name in older if name in newer):
        if _meaning(older[name]) != _meaning(newer[name]) or _shape(older[name]["type"]) != _shape(newer[name]["type"]):
            yield f".{name}: type, scale, unit and default of a released field must stay; add a field beside it"
    for name in (name for name in newer if name not in older):
        if "default" not in newer[name]:
            yield f".{name}: was added later, so it must have a default"


def renames(earlier: Schema, later: Schema) -> Iterator[str]:
    """Fields that one version dropped and its direct successor seems to have brought back under another name."""
    newer = {one["name"]: one for one in avro_schema.named_types(later) if one["type"] == "record"}
    for one in avro_schema.named_types(earlier):
        if one["type"] == "record" and one["name"] in newer:
            was = {field["name"]: _shape(field["type"]) for field in one["fields"]}
            now = {field["name"]: _shape(field["type"]) for field in newer[one["name"]]["fields"]}
            for old, new in product(was.keys() - now.keys(), now.keys() - was.keys()):
                if was[old] == now[new]:
                    yield f"{one['name']}.{new}: looks like {old} under a new name; keep {old}, add {new} beside it"


def _meaning(node: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in node.items() if name not in _MAY_CHANGE}


def _shape(node: Any) -> Any:
    """A type without what may change inside of it; named types by their name, since they are compared on their own."""
    if isinstance(node, list):
        return [_shape(branch) for branch in node]
    if isinstance(node, str):
        return _last(node)
    if node["type"] in ("record", "enum"):
        return node["name"]
    inner = {name: _shape(node[name]) for name in ("type", "items", "values") if name in node}
    attributes = _meaning(node)
    return inner["type"] if inner.keys() == {"type"} and not attributes else {**attributes, **inner}
