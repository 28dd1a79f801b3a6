"""Current state by hand: consume, decode with fastavro, one pipelined EVALSHA for each record. No groups, no dead letters.

The compare-and-set script is the same as tradetape's; the code around it is what is compared. As a process of its own it
follows a topic until whoever started it is gone.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Sequence
from importlib import resources

import redis
from confluent_kafka import Message

from bench.bare import Schema, batches, consumer, decoder, next_batch, times_as_integers
from tradetape.schemas import CATALOGUE, IndicatorUpdate

BATCH_RECORDS = 2_000
EXPIRY_US = 4 * 3_600 * 1_000_000
FUTURE_US = 5_000_000


class BareState:
    """Writes batches of IndicatorUpdates into the hashes that tradetape would write."""

    def __init__(self, redis_url: str, schema: Schema) -> None:
        self._client = redis.Redis.from_url(redis_url)
        self._decode = decoder(times_as_integers(schema))
        script = resources.files("tradetape.streams.state").joinpath("newest.lua").read_text(encoding="utf-8")
        self._sha = str(self._client.script_load(script))

    def write(self, batch: Sequence[Message]) -> None:
        """One round trip for all of them."""
        pipeline = self._client.pipeline(transaction=False)
        for message in batch:
            plain = self._decode(message.value() or b"")
            key = f"tradetape:1:indicators:{{{plain['venue']}:{plain['symbol']}}}:{plain['timeframe']}"
            event_time_us = plain["event_time"]
            fields = ["_id", plain["event_id"]]
            if plain["close"] is not None:
                fields += ("_c", f"{plain['close'].normalize():f}")
            for name, value in plain["values"].items():
                fields += (name, repr(value))
            expires_at_ms = (event_time_us + EXPIRY_US) // 1_000
            place = (message.partition(), message.offset())
            pipeline.evalsha(self._sha, 1, key, event_time_us, *place, expires_at_ms, FUTURE_US, *fields)  # type: ignore[arg-type]
        pipeline.execute()


def records_per_s(bootstrap_servers: str, topic: str, schema: Schema, redis_url: str, *, expected: int) -> float:
    """Write the whole topic, timed from the first batch in hand to the last answer."""
    state, began = BareState(redis_url, schema), 0.0
    for batch in batches(bootstrap_servers, topic, size=BATCH_RECORDS, expected=expected):
        began = began or time.perf_counter()
        state.write(batch)
    return expected / (time.perf_counter() - began)


def follow(bootstrap_servers: str, topic: str, schema: Schema, redis_url: str) -> None:
    """Write what comes, until the process that started this one is gone."""
    state, source, starter = BareState(redis_url, schema), consumer(bootstrap_servers, topic), os.getppid()
    while os.getppid() == starter:
        if batch := next_batch(source, BATCH_RECORDS, 0.1):
            state.write(batch)


def main(argv: Sequence[str] | None = None) -> int:
    """Follow the topic and Redis named on the command line."""
    parser = argparse.ArgumentParser()
    for name in ("--bootstrap-servers", "--topic", "--redis-url"):
        parser.add_argument(name, required=True)
    args = parser.parse_args(argv)
    follow(args.bootstrap_servers, args.topic, CATALOGUE.by_class(IndicatorUpdate).schema, args.redis_url)
    return 0


if __name__ == "__main__":
    sys.exit(main())
