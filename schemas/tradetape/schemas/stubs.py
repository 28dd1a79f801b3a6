"""Writes events.pyi: what mypy and editors see of the event classes, from the same .avsc that make them.

The stub says more than a class statement could: a price may be given as text and is read as a Decimal, an event_id is
stamped by the producer and is read as text. `tradetape schemas check` fails when the stub and the schemas differ.
"""

from __future__ import annotations

import textwrap
from collections.abc import Iterator, Mapping
from typing import Any

from tradetape.schemas import avro_schema
from tradetape.schemas.event_classes import COMMON_FIELDS, OWN_ID, RECORDS

_HEADER = '''\
"""Types of the event classes. Made from avro/*.avsc by `tradetape schemas stubs`; do not edit."""

from collections.abc import Mapping, Sequence
from datetime import datetime
from decimal import Decimal
from enum import StrEnum

import msgspec

_Number = Decimal | int | str | float
"""How a price or quantity may be given; a float is taken by its shortest text."""
'''
_READ = {"string": "str", "double": "float", "boolean": "bool", "int": "int", "long": "int"}
_LOGICAL = {"decimal": ("Decimal", "_Number"), "timestamp-micros": ("datetime", "datetime")}
_STAMPED = COMMON_FIELDS[:1] + COMMON_FIELDS[2:9]


def render() -> str:
    """The whole text of events.pyi."""
    schemas = [avro_schema.load(record) for record in RECORDS]
    named = {one["name"]: one for schema in schemas for one in avro_schema.named_types(schema)}
    blocks = [_HEADER]
    blocks += [_enum(one) for one in named.values() if one["type"] == "enum"]
    blocks += [
        _struct(one, "msgspec.Struct")
        for one in named.values()
        if one["type"] == "record" and one["name"] not in RECORDS
    ]
    blocks.append(_event(schemas[0]))
    blocks += [_struct(schema, "Event") for schema in schemas]
    return "\n".join(blocks)


def _enum(schema: Mapping[str, Any]) -> str:
    members = "\n".join(f'    {symbol} = "{symbol}"' for symbol in schema["symbols"])
    return f'class {schema["name"]}(StrEnum):\n    """{schema["doc"]}"""\n\n{members}\n'


def _event(schema: Mapping[str, Any]) -> str:
    fields = [field for field in schema["fields"] if field["name"] in COMMON_FIELDS]
    doc = "What every event has. The producer stamps all but event_time, venue, symbol and tags."
    return f'class Event(msgspec.Struct, frozen=True, kw_only=True):\n    """{doc}"""\n\n' + "\n".join(
        _attributes(fields)
    )


def _struct(schema: Mapping[str, Any], base: str) -> str:
    own = [field for field in schema["fields"] if base != "Event" or field["name"] not in COMMON_FIELDS]
    head = f'class {schema["name"]}({base}, frozen=True, kw_only=True):\n    """{schema["doc"]}"""\n'
    given = "\n".join(f"        {line}," for line in _arguments(schema))
    return (
        f"{head}\n"
        + "\n".join(_attributes(own))
        + f"\n    def __init__(\n        self,\n        *,\n{given}\n    ) -> None: ...\n"
    )


def _attributes(fields: list[dict[str, Any]]) -> Iterator[str]:
    for field in fields:
        read, _ = _types(field["type"])
        doc = textwrap.fill(field["doc"], 108, subsequent_indent="    ")
        yield f'    {field["name"]}: {read}\n    """{doc}"""\n'


def _arguments(schema: Mapping[str, Any]) -> Iterator[str]:
    for field in schema["fields"]:
        name = field["name"]
        _, given = _types(field["type"])
        if name == OWN_ID.get(schema["name"]) or name in _STAMPED or name == "event_time":
            yield f"{name}: {given.removesuffix(' | None')} | None = ..."
        else:
            yield f"{name}: {given}{' = ...' if 'default' in field else ''}"


def _types(schema: Any) -> tuple[str, str]:
    """How a field is read, and how it may be given."""
    if isinstance(schema, list):
        read, given = _types(schema[1])
        return f"{read} | None", f"{given} | None"
    if isinstance(schema, str):
        name = _READ.get(schema, schema)
        return name, name
    if "logicalType" in schema:
        return _LOGICAL[schema["logicalType"]]
    if schema["type"] == "map":
        read, _ = _types(schema["values"])
        return f"dict[str, {read}]", f"Mapping[str, {read}{' | None' if read == 'float' else ''}]"
    if schema["type"] == "array":
        read, given = _types(schema["items"])
        return f"tuple[{read}, ...]", f"Sequence[{given}]"
    return (schema["name"],) * 2 if "name" in schema else _types(schema["type"])
