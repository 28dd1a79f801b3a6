"""The history by hand: consume, decode with fastavro, COPY with psycopg's `write_row`. No fence, no offsets, no dead letters.

Times stay integers and ids stay text until they are written, which is faster than datetime and UUID on the way.
"""

from __future__ import annotations

import struct
import time
from collections.abc import Sequence
from typing import Any

import psycopg
from confluent_kafka import Message
from psycopg.adapt import Dumper
from psycopg.pq import Format
from psycopg.sql import SQL

from bench.bare import Plain, Schema, batches, decoder, times_as_integers
from tradetape.schemas.names import CANONICAL_INDICATORS

WIDE = tuple(name for name in CANONICAL_INDICATORS if name != "close")
COLUMNS = (
    "event_id", "event_time", "emitted_at", "producer", "producer_run_id", "producer_seq", "run_mode", "correlation_id",
    "causation_id", "venue", "symbol", "tags", "timeframe", "indicator_set", "bar_open_time", "bar_close_time",
    "is_final", "bars_used", "close", *WIDE, "extra", "invalid", "candle_event_id", "topic", "partition", "offset",
)  # fmt: skip
COPY = SQL("COPY bench.bare FROM STDIN (FORMAT BINARY)")
POSTGRES_EPOCH_US = 946_684_800_000_000


class _Instant(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["timestamptz"].oid

    def dump(self, obj: int) -> bytes:
        return struct.pack(">q", obj - POSTGRES_EPOCH_US)


class _Id(Dumper):
    format = Format.BINARY
    oid = psycopg.adapters.types["uuid"].oid

    def dump(self, obj: str) -> bytes:
        return bytes.fromhex(obj.replace("-", ""))


def rows_per_s(
    bootstrap_servers: str, topic: str, schema: Schema, dsn: str, *, batch_rows: int, expected: int
) -> float:
    """Write the whole topic, a transaction for each batch, timed from the first batch in hand to the last COMMIT."""
    decode = decoder(times_as_integers(schema))
    began = 0.0
    with psycopg.connect(dsn, autocommit=True) as connection:
        connection.adapters.register_dumper(None, _Instant)
        connection.adapters.register_dumper(None, _Id)
        types = _types(connection)
        for batch in batches(bootstrap_servers, topic, size=batch_rows, expected=expected):
            began = began or time.perf_counter()
            with connection.transaction(), connection.cursor() as cursor, cursor.copy(COPY) as copy:
                copy.set_types(types)
                for message in batch:
                    copy.write_row(_row(message, decode(message.value() or b"")))
        return expected / (time.perf_counter() - began)


def _types(connection: psycopg.Connection) -> list[int]:
    described = connection.execute("SELECT * FROM bench.bare LIMIT 0").description or ()
    assert tuple(column.name for column in described) == COLUMNS
    return [column.type_code for column in described]


def _row(message: Message, plain: Plain) -> Sequence[Any]:
    value = plain["values"].get
    extra = {name: one for name, one in plain["values"].items() if name not in _WIDE}
    return (
        plain["event_id"], plain["event_time"], plain["emitted_at"], plain["producer"], plain["producer_run_id"],
        plain["producer_seq"], plain["run_mode"], plain["correlation_id"], plain["causation_id"], plain["venue"],
        plain["symbol"], plain["tags"], plain["timeframe"], plain["indicator_set"], plain["bar_open_time"],
        plain["bar_close_time"], plain["is_final"], plain["bars_used"], plain["close"], *(value(name) for name in WIDE),
        extra or None, plain["invalid"], plain["candle_event_id"], message.topic(), message.partition(), message.offset(),
    )  # fmt: skip


_WIDE = frozenset(WIDE)
