"""Avro schemas as data: loading, the normal form that names them, and the form without logical types.

A schema's id comes from its content, so the same schema has the same id on every machine and no registry is
needed to read a record. Ids of registries are small integers; ours start at 2**30.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

Schema = dict[str, Any]
FIRST_CONTENT_ID = 0x40000000
NAMESPACE = "tradetape.events"
_HEADS = Path(__file__).with_name("avro")


def load(record: str) -> Schema:
    """The head schema of a record that ships with the package, such as "Candle"."""
    schema: Schema = json.loads(_HEADS.joinpath(f"{record}.avsc").read_text(encoding="utf-8"))
    return schema


def normalised(schema: object) -> str:
    """The schema as one line with sorted attributes and without `doc`: everything that gives it meaning.

    Avro's Parsing Canonical Form would not do: it drops logical types, scale, defaults and aliases, so two
    schemas that read the same bytes as different prices would share an id.
    """
    return json.dumps(_without_doc(schema), sort_keys=True, separators=(",", ":"))


def _without_doc(node: object) -> object:
    if isinstance(node, dict):
        return {name: _without_doc(value) for name, value in node.items() if name != "doc"}
    if isinstance(node, list):
        return [_without_doc(item) for item in node]
    return node


def fingerprint(schema: Schema) -> str:
    """SHA-256 of the normal form, in hexadecimal."""
    return hashlib.sha256(normalised(schema).encode()).hexdigest()


def content_id(schema: Schema) -> int:
    """The id under which records of this schema travel without a registry: 2**30 or more."""
    return FIRST_CONTENT_ID | int(fingerprint(schema), 16) & (FIRST_CONTENT_ID - 1)


def without_logical_types(node: Any) -> Any:
    """The same schema reading timestamps as integers and decimals as bytes: the bytes on the wire do not change."""
    if isinstance(node, dict):
        return {name: without_logical_types(value) for name, value in node.items() if name != "logicalType"}
    if isinstance(node, list):
        return [without_logical_types(item) for item in node]
    return node


def named_types(schema: object) -> Iterator[Schema]:
    """Every record and enum that is written out in the schema, itself included, outermost first."""
    if isinstance(schema, dict):
        if schema.get("type") in ("record", "enum"):
            yield schema
        for value in schema.values():
            yield from named_types(value)
    elif isinstance(schema, list):
        for item in schema:
            yield from named_types(item)
