"""The two parts of the history sink that are Python alone, on records in memory: decoding, and encoding rows."""

from __future__ import annotations

import time
from itertools import islice

import psycopg

from bench.bare import batches
from bench.services import Services
from tradetape.schemas import Catalogue, Codec, IndicatorUpdate
from tradetape.sinks.history.tables import HistoryTable, read_tables
from tradetape.streams.record import Record, from_message

COUNT = 20_000
AT_ONCE = 250
"""So few that what is decoded is still near when it is encoded."""


class Parts:
    """The topic's first records, and what the sink does with each of them."""

    def __init__(self, services: Services, catalogue: Catalogue, connection: psycopg.Connection, expected: int) -> None:
        event_type = catalogue.by_class(IndicatorUpdate)
        self._topic = catalogue.topic_name(event_type)
        self._table: HistoryTable = read_tables(connection, {self._topic: event_type})[self._topic]
        self._codec = Codec(catalogue)
        self._records: list[Record] = []
        wanted = min(COUNT, expected)
        for batch in batches(services.bootstrap_servers, self._topic, size=wanted, expected=wanted):
            self._records += map(from_message, batch)

    def rates(self) -> tuple[float, float]:
        """Records decoded a second, and rows encoded a second, each alone."""
        decoding = encoding = 0.0
        records = iter(self._records)
        while some := [*islice(records, AT_ONCE)]:
            began = time.perf_counter()
            plain = [self._codec.decode_fields(record.topic, record.value) for record in some]
            decoded = time.perf_counter()
            for record, fields in zip(some, plain, strict=True):
                self._table.row(record, fields)
            decoding, encoding = decoding + decoded - began, encoding + time.perf_counter() - decoded
        return len(self._records) / decoding, len(self._records) / encoding
