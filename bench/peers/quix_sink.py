"""quixstreams' PostgreSQL sink on IndicatorUpdates. Runs in an environment of its own and imports nothing of ours.

A checkpoint for each batch of ours, Avro by quixstreams' own deserializer, no schema changes at run time, repeats left
out by the table's key. A job as JSON on stdin, the seconds on stdout; then it goes on until it is ended.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from typing import Any
from urllib.parse import urlsplit

from quixstreams import Application, message_context
from quixstreams.models.serializers.avro import AvroDeserializer
from quixstreams.sinks.base import SinkBatch
from quixstreams.sinks.community.postgresql import PostgreSQLSink

FRAME_BYTES = 5


class FramedAvro(AvroDeserializer):
    """The same behind Confluent's frame, with no registry to ask; notes when the first record came."""

    began = 0.0

    def __call__(self, value: bytes, ctx: Any) -> Any:
        """Decode one value."""
        self.began = self.began or time.perf_counter()
        return super().__call__(value[FRAME_BYTES:], ctx)


class TimedSink(PostgreSQLSink):
    """The sink itself; says how long all of it took once so many rows are committed."""

    def __init__(self, decoder: FramedAvro, expected: int, **settings: Any) -> None:
        super().__init__(**settings)
        self._decoder = decoder
        self._missing = expected

    def write(self, batch: SinkBatch) -> None:
        """Store one partition's share of a checkpoint."""
        super().write(batch)
        self._missing -= batch.size
        if self._missing == 0:
            print(json.dumps({"seconds": time.perf_counter() - self._decoder.began}), flush=True)


def main() -> None:
    """Do one job."""
    job = json.loads(sys.stdin.readline())
    decoder = FramedAvro(job["schema"])
    with tempfile.TemporaryDirectory(prefix="tradetape-bench-") as state:
        application = Application(
            broker_address=job["bootstrap_servers"],
            consumer_group=job["group"],
            auto_offset_reset="earliest",
            commit_interval=job["commit_interval_s"],
            commit_every=job["batch_records"],
            consumer_extra_config={"fetch.queue.backoff.ms": 10, "check.crcs": True},
            auto_create_topics=False,
            use_changelog_topics=False,
            state_dir=state,
            loglevel="WARNING",
        )
        topic = application.topic(job["topic"], value_deserializer=decoder)
        application.dataframe(topic).apply(_row).sink(_sink(job, decoder))
        application.run()


def _sink(job: dict[str, Any], decoder: FramedAvro) -> TimedSink:
    address = urlsplit(job["dsn"])
    return TimedSink(
        decoder,
        job["expected"],
        host=address.hostname,
        port=address.port,
        dbname=address.path.removeprefix("/"),
        user=address.username,
        password=address.password,
        schema_name="bench",
        table_name=job["table"],
        schema_auto_update=False,
        include_metadata=False,
        on_conflict_do_nothing=True,
    )


def _row(fields: dict[str, Any]) -> dict[str, Any]:
    """The columns of one record, as our table has them; all values of the sample have a column of their own."""
    place = message_context()
    fields |= fields.pop("values")
    fields["topic"], fields["partition"], fields["offset"] = place.topic, place.partition, place.offset
    return fields


if __name__ == "__main__":
    main()
