"""Which column of a table takes which field of a record: read from the database once, at the sink's start.

So a new event type needs its migration and nothing here. A record and a table that do not fit are an error at the
start, never a silently empty column.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from itertools import groupby
from typing import Any, NamedTuple

import psycopg

from tradetape.schemas import avro_schema, decimals
from tradetape.schemas.catalogue import EventType
from tradetape.sinks.errors import SchemaBehind
from tradetape.sinks.history.copy_rows import ENCODERS, NULL, DoubleColumns, Encode, RowEncoder, jsonb
from tradetape.sinks.history.queries import query
from tradetape.sinks.history.schema import SCHEMA
from tradetape.streams.record import Record

PLACE: Mapping[str, str] = {"topic": "string", "partition": "int", "offset": "long"}
"""Where the event lies on the tape, with the kinds that a field of that sort would have."""
OPEN_MAP = "values"
REST = "extra"
FITTING: Mapping[str, tuple[str, ...]] = {
    "string": ("text", "uuid"), "enum": ("text",), "boolean": ("boolean",),
    "timestamp-micros": ("timestamp with time zone",), "decimal": ("numeric(38,18)",),
    "double": ("double precision",), "int": ("integer", "bigint"), "long": ("bigint",),
    "map": ("jsonb",), "array": ("jsonb",), "record": ("jsonb",),
}  # fmt: skip
"""The types of column that hold every value of a kind of field, exactly. Binary COPY would not notice another one."""

Values = dict[str, Any]
Convert = Callable[[Any], Any]


class Column(NamedTuple):
    """A column: its type as format_type gives it, whether it takes NULL, and whether it fills itself."""

    kind: str
    is_nullable: bool
    has_default: bool


class Facts(NamedTuple):
    """What the database says of a table."""

    columns: Mapping[str, Column]
    is_by_month: bool
    """Partitioned by range of event_time."""
    is_unique: bool
    """Has a unique index on exactly event_time and event_id."""


class HistoryTable:
    """One table of the history and how an event becomes its row."""

    def __init__(self, event_type: EventType, facts: Facts) -> None:
        """Raises SchemaBehind where table and record do not fit."""
        self.name = event_type.table
        documents = Documents(event_type.schema)
        fields: dict[str, Any] = {field["name"]: field["type"] for field in event_type.schema["fields"]}
        is_wide = OPEN_MAP in fields and OPEN_MAP not in facts.columns and REST in facts.columns
        if is_wide:
            del fields[OPEN_MAP]
        problems = [*_misfits(facts, {name: documents.kind(schema) for name, schema in fields.items()})]
        self._named = _value_columns(facts, fields) if is_wide else frozenset()
        filled = {*fields, *PLACE, *self._named, *([REST] if is_wide else ())}
        problems += [
            f"wants {name}, which {event_type.record} does not have"
            for name, column in facts.columns.items()
            if name not in filled and not (column.is_nullable or column.has_default)
        ]
        if problems:
            raise SchemaBehind(f"table {SCHEMA}.{self.name} {'; '.join(problems)}; run `tradetape history migrate`")
        # Others are left to their defaults: a table may be one version ahead of us.
        self.columns = tuple(name for name in facts.columns if name in filled)
        kinds = {name: facts.columns[name].kind for name in self.columns}
        parts = [*self._parts(kinds, fields, documents)]
        self.kinds = tuple(kinds.values())
        self._encoder = RowEncoder(parts, columns=len(self.columns), table=self.name)

    def row(self, record: Record, plain: Values) -> bytes:
        """The row of an event in COPY's binary form. Raises ValueError, struct.error for what no column can hold."""
        plain["topic"], plain["partition"], plain["offset"] = record.topic, record.partition, record.offset
        return self._encoder.encode(plain)

    def _parts(
        self, kinds: Mapping[str, str], fields: Mapping[str, Any], documents: Documents
    ) -> Iterator[tuple[str, Encode]]:
        """Which field of an event becomes which columns, in their order: the open map fills many."""
        for is_named, run in groupby(kinds, key=self._named.__contains__):
            if is_named:
                yield OPEN_MAP, DoubleColumns([*run]).encode
                continue
            for name in run:
                if name == REST and REST not in fields:
                    yield OPEN_MAP, _rest(self._named)
                else:
                    yield name, _encode(kinds[name], documents.converter({**fields, **PLACE}[name]))


def _misfits(facts: Facts, kinds: Mapping[str, tuple[str, bool]]) -> Iterator[str]:
    """Why rows of these fields (their kind, and whether they may be null) cannot be written to the table."""
    if not facts.is_by_month:
        yield "is not partitioned by range of event_time"
    if not facts.is_unique:
        yield "has no unique key (event_time, event_id), so an event could be in it twice"
    wanted = {**kinds, **{name: (kind, False) for name, kind in PLACE.items()}}
    if missing := [name for name in wanted if name not in facts.columns]:
        yield f"has no column for {', '.join(missing)}"
    for name, (kind, may_be_null) in wanted.items():
        column = facts.columns.get(name)
        if column is not None and column.kind not in FITTING[kind]:
            yield f"has {name} as {column.kind}, which must be {' or '.join(FITTING[kind])}"
        if column is not None and may_be_null and not column.is_nullable:
            yield f"refuses NULL in {name}, which may be null"


def _value_columns(facts: Facts, fields: Mapping[str, Any]) -> frozenset[str]:
    """Columns that take one value each of the open map `values`; the rest of the map goes to the column `extra`."""
    known = {*fields, *PLACE}
    doubles = FITTING["double"]
    return frozenset(
        name
        for name, column in facts.columns.items()
        if name not in known and column.kind in doubles and column.is_nullable
    )


def _rest(named: frozenset[str]) -> Encode:
    """The values of the open map that have no column of their own, NULL where there are none."""

    def encode(values: Mapping[str, float]) -> bytes:
        if named.issuperset(values):
            return NULL
        return jsonb({name: value for name, value in values.items() if name not in named})

    return encode


def _encode(kind: str, document: Convert | None) -> Encode:
    encode = ENCODERS[kind]
    return (lambda value: encode(document(value))) if document is not None and kind == "jsonb" else encode


def read_tables(
    connection: psycopg.Connection, event_types: Mapping[str, EventType], schema: str = SCHEMA
) -> dict[str, HistoryTable]:
    """The table of each topic. Raises SchemaBehind where one is missing or does not fit."""
    return {
        topic: HistoryTable(event_type, _facts(connection, event_type.table, schema))
        for topic, event_type in event_types.items()
    }


def _facts(connection: psycopg.Connection, table: str, schema: str) -> Facts:
    named = {"schema": schema, "table": table}
    columns = {name: Column(*rest) for name, *rest in connection.execute(query("columns"), named).fetchall()}
    keys = connection.execute(query("keys"), named).fetchone()
    if not columns or keys is None:
        raise SchemaBehind(f"there is no table {schema}.{table}; run `tradetape history migrate`")
    return Facts(columns, *keys)


class Documents:
    """How the values of one record's fields become JSON documents: decimals as exact text."""

    def __init__(self, schema: Mapping[str, Any]) -> None:
        self._named = {one["name"]: one for one in avro_schema.named_types(schema)}

    def kind(self, schema: Any) -> tuple[str, bool]:
        """A field's kind, as in FITTING, and whether it may be null."""
        if isinstance(schema, list):
            return self.kind(schema[1])[0], True
        if isinstance(schema, str):
            return self.kind(self._named[schema]) if schema in self._named else (schema, False)
        return schema.get("logicalType") or schema["type"], False

    def converter(self, schema: Any) -> Convert | None:
        """How a plain value becomes a document; None where it is one already."""
        if isinstance(schema, list):
            return _unless_none(self.converter(schema[1]))
        if isinstance(schema, str):
            return self.converter(self._named[schema]) if schema in self._named else None
        if schema.get("logicalType") == "decimal":
            return decimals.to_text
        if schema["type"] == "array":
            return _each_item(self.converter(schema["items"]))
        if schema["type"] == "map":
            return _each_value(self.converter(schema["values"]))
        return self._record(schema) if schema["type"] == "record" else None

    def _record(self, schema: Mapping[str, Any]) -> Convert:
        parts = [(field["name"], self.converter(field["type"])) for field in schema["fields"]]
        return lambda value: {name: inner(value[name]) if inner else value[name] for name, inner in parts}


def _unless_none(inner: Convert | None) -> Convert | None:
    return inner and (lambda value: None if value is None else inner(value))


def _each_item(inner: Convert | None) -> Convert | None:
    return inner and (lambda value: [inner(item) for item in value])


def _each_value(inner: Convert | None) -> Convert | None:
    return inner and (lambda value: {name: inner(item) for name, item in value.items()})
