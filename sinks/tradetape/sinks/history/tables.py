"""Which column of a table takes which field of a record: read from the database once, at the sink's start.

So a new event type needs its migration and nothing here. A record and a table that do not fit are an error at the
start, never a silently empty column.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import psycopg

from tradetape.schemas import decimals
from tradetape.schemas.catalogue import EventType
from tradetape.sinks.errors import SchemaBehind
from tradetape.sinks.history.copy_rows import ENCODERS, Encode, RowEncoder
from tradetape.sinks.history.queries import query
from tradetape.streams.record import Record

SCHEMA = "tradetape"
PLACE = ("topic", "partition", "offset")
OPEN_MAP = "values"
REST = "extra"

Values = dict[str, Any]


class HistoryTable:
    """One table of the history and how an event becomes its row."""

    def __init__(self, event_type: EventType, columns: Mapping[str, tuple[str, bool]]) -> None:
        """`columns` maps a column's name to its type and whether it may be null, in the table's order."""
        self.name = event_type.table
        self.columns = tuple(columns)
        fields = {field["name"]: field["type"] for field in event_type.schema["fields"]}
        self._named = self._value_columns(event_type, columns, fields)
        self._encoder = RowEncoder(
            [(name, self._encode(event_type, name, kind, fields)) for name, (kind, _) in columns.items()]
        )

    def _value_columns(
        self, event_type: EventType, columns: Mapping[str, tuple[str, bool]], fields: Mapping[str, Any]
    ) -> frozenset[str]:
        """Columns that take one value each of the open map `values`; the rest of the map goes to the column `extra`."""
        surplus = [name for name in columns if name not in fields and name not in PLACE]
        is_wide = REST in columns and OPEN_MAP in fields and OPEN_MAP not in columns
        missing = [name for name in fields if name not in columns and not (is_wide and name == OPEN_MAP)]
        unfilled = [name for name in surplus if not columns[name][1]] if not is_wide else []
        if missing or unfilled:
            problem = (
                f"has no column for {', '.join(missing)}"
                if missing
                else f"wants {', '.join(unfilled)}, which {event_type.record} does not have"
            )
            raise SchemaBehind(f"table {SCHEMA}.{self.name} {problem}; run `tradetape history migrate`")
        return frozenset(surplus) - {REST} if is_wide else frozenset()

    def _encode(self, event_type: EventType, name: str, kind: str, fields: Mapping[str, Any]) -> Encode:
        encode = ENCODERS.get(kind)
        if encode is None:
            raise SchemaBehind(f"{SCHEMA}.{self.name}.{name} is of type {kind}, which no field of a record has")
        if kind == "jsonb" and name in fields:
            document = _document(fields[name])
            if document is not None:
                return lambda value: encode(document(value))
        return encode

    def row(self, record: Record, plain: Values) -> bytes:
        """The row of an event in COPY's binary form. Raises ValueError, struct.error for what no column can hold."""
        plain["topic"], plain["partition"], plain["offset"] = record.topic, record.partition, record.offset
        if self._named:
            values = plain[OPEN_MAP]
            plain |= {name: values.get(name) for name in self._named}
            plain[REST] = {name: value for name, value in values.items() if name not in self._named} or None
        return self._encoder.encode(plain)


def read_tables(connection: psycopg.Connection, event_types: Mapping[str, EventType]) -> dict[str, HistoryTable]:
    """The table of each topic. Raises SchemaBehind where one is missing or does not fit."""
    tables = {}
    for topic, event_type in event_types.items():
        rows = connection.execute(query("columns"), {"schema": SCHEMA, "table": event_type.table}).fetchall()
        if not rows:
            raise SchemaBehind(f"there is no table {SCHEMA}.{event_type.table}; run `tradetape history migrate`")
        tables[topic] = HistoryTable(event_type, {name: (kind, nullable) for name, kind, nullable in rows})
    return tables


Convert = Callable[[Any], Any]


def _document(schema: Any) -> Convert | None:
    """How a nested plain value becomes a JSON document: decimals as exact text. None where it is one already."""
    if isinstance(schema, list):
        return _unless_none(_document(schema[1]))
    if isinstance(schema, str):
        return None
    if schema.get("logicalType") == "decimal":
        return decimals.to_text
    if schema["type"] == "array":
        return _each_item(_document(schema["items"]))
    if schema["type"] == "map":
        return _each_value(_document(schema["values"]))
    return _record_document(schema) if schema["type"] == "record" else None


def _unless_none(inner: Convert | None) -> Convert | None:
    return inner and (lambda value: None if value is None else inner(value))


def _each_item(inner: Convert | None) -> Convert | None:
    return inner and (lambda value: [inner(item) for item in value])


def _each_value(inner: Convert | None) -> Convert | None:
    return inner and (lambda value: {name: inner(item) for name, item in value.items()})


def _record_document(schema: Mapping[str, Any]) -> Convert:
    parts = [(field["name"], _document(field["type"])) for field in schema["fields"]]
    return lambda value: {name: inner(value[name]) if inner else value[name] for name, inner in parts}
