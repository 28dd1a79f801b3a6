"""Where records go that cannot be processed: a topic of their own, with the reason, acknowledged before the offset moves (I7).

The headers carry Kafka Connect's names, so its tools read them. A dead letter is known by (worker, topic, partition,
offset): a crash between acknowledgement and commit may repeat one, and readers count it once.
"""

from __future__ import annotations

import linecache
import re
import struct
import threading
import traceback
from collections import Counter
from collections.abc import Iterable
from contextlib import suppress
from functools import lru_cache
from typing import NamedTuple, Protocol

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from tradetape.producers.client import FIXED
from tradetape.producers.connection import KafkaSettings, logger, on_error
from tradetape.streams.errors import DeadLettersRefused
from tradetape.streams.record import Record

STACKTRACE_BYTES = 4 * 1024
MAX_CAUSES = 8
MESSAGE_CHARACTERS = 1_024
ACKNOWLEDGE_TIMEOUT_S = 30.0
DELIVERY_TIMEOUT_MS = 25_000
LINGER_MS = 50
"""Letters of one batch travel together; `flush` does not wait for it."""
PURGE_TIMEOUT_S = 1.0
ATTEMPT_DIGITS = 7
_TOPIC_AWAY = (KafkaError._UNKNOWN_TOPIC, KafkaError._UNKNOWN_PARTITION)
"""What the client answers at once when it knows of a topic that it is not there; it may be made."""
CUT_BYTES = 256 * 1024
"""What is kept of a value that the topic of dead letters does not take whole."""
CONNECT = "__connect.errors."
OURS = frozenset(("x-worker", "x-reason", "x-attempt", "x-schema-id", "x-event-id", "x-timestamp", "x-value-bytes"))
"""The headers of a letter that are not Kafka Connect's. `x-timestamp` is the record's own, in milliseconds since 1970."""
_EVENT_ID = re.compile(rb"\0.{4}H([0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12})", re.DOTALL)
"""Every event begins with its id: behind the frame stands its length, 36 as Avro writes it, and then the text."""

Headers = list[tuple[str, bytes]]
WireHeaders = list[tuple[str, str | bytes | None]]


class DeadLetters(Protocol):
    """Takes records that cannot be processed."""

    refused: Counter[str]
    """How many were taken, by reason."""

    def send(self, record: Record, reason: str, error: BaseException, *, stage: str) -> None:
        """Hand one over; `reason` is a slug of a closed set, `stage` one of Kafka Connect's names."""

    def flush(self) -> None:
        """Wait until all are acknowledged. Raises DeadLettersRefused, after which the batch has to be tried again."""


class Letter(NamedTuple):
    """A dead letter as it lies in memory, for tests and backtests."""

    record: Record
    reason: str
    headers: Headers


def headers_of(record: Record, reason: str, error: BaseException, *, stage: str, worker: str) -> Headers:
    """The headers that are put behind the record's own. Nothing of it is decoded: that may be what kills a worker."""
    stack = stacktrace(error).encode(errors="replace")[-STACKTRACE_BYTES:]
    connect = {
        "topic": record.topic,
        "partition": str(record.partition),
        "offset": str(record.offset),
        "connector.name": worker,
        "task.id": "0",
        "stage": stage,
        "class.name": worker,
        "exception.class.name": _class_name(error),
        "exception.message": str(error)[:MESSAGE_CHARACTERS],
    }
    found: Headers = [(CONNECT + name, value.encode(errors="replace")) for name, value in connect.items()]
    found.append((CONNECT + "exception.stacktrace", stack))
    found += [("x-worker", worker.encode()), ("x-reason", reason.encode())]
    found += [("x-attempt", b"%d" % (attempts(record) + 1)), ("x-timestamp", b"%d" % record.timestamp_ms)]
    if record.value and len(record.value) >= 5 and record.value[0] == 0:
        found.append(("x-schema-id", str(struct.unpack_from(">I", record.value, 1)[0]).encode()))
    if record.value and (event_id := _EVENT_ID.match(record.value)) is not None:
        found.append(("x-event-id", event_id[1]))
    return found


def stacktrace(error: BaseException) -> str:
    """As Python prints it, causes first, but without the marks below the source lines: drawing them takes ten times as long."""
    chain = [error]
    while (cause := _cause(chain[-1])) is not None and len(chain) < MAX_CAUSES:
        chain.append(cause)
    return "\nwhich led to:\n\n".join(map(_traceback, reversed(chain)))


def _cause(error: BaseException) -> BaseException | None:
    return error.__cause__ or (None if error.__suppress_context__ else error.__context__)


def _traceback(error: BaseException) -> str:
    lines = ["Traceback (most recent call last):\n"]
    for frame, number in traceback.walk_tb(error.__traceback__):
        code = frame.f_code
        lines.append(
            f'  File "{code.co_filename}", line {number}, in {code.co_name}\n{_source(code.co_filename, number)}'
        )
    return "".join([*lines, f"{_class_name(error)}: {error}\n"])


def _class_name(error: BaseException) -> str:
    return f"{type(error).__module__}.{type(error).__qualname__}"


@lru_cache(maxsize=1_024)
def _source(file: str, number: int) -> str:
    """A line of a file, empty where there is none: compiled modules have no source, and looking for it takes long."""
    source = linecache.getline(file, number).strip()
    return f"    {source}\n" if source else ""


def attempts(record: Record) -> int:
    """How often a record was a dead letter before, as far as its own headers tell: redriving leaves the count on it."""
    told = next((value for name, value in reversed(record.headers) if name == "x-attempt"), None)
    return int(told) if told and told.isdigit() and len(told) < ATTEMPT_DIGITS else 0


def without_ours(headers: Iterable[tuple[str, bytes | None]]) -> WireHeaders:
    """A record's headers as they were before it became a dead letter."""
    return [(name, value) for name, value in headers if name not in OURS and not name.startswith(CONNECT)]


class MemoryDeadLetters:
    """Keeps dead letters in a list."""

    def __init__(self, worker: str = "memory") -> None:
        self.worker = worker
        self.letters: list[Letter] = []
        self.refused: Counter[str] = Counter()

    def send(self, record: Record, reason: str, error: BaseException, *, stage: str) -> None:
        """Keep one."""
        self.refused[reason] += 1
        self.letters.append(Letter(record, reason, headers_of(record, reason, error, stage=stage, worker=self.worker)))

    def flush(self) -> None:
        """Nothing is on its way."""


class KafkaDeadLetters:
    """Writes dead letters to their topic. Used by one thread."""

    def __init__(self, *, worker: str, topic: str, kafka: KafkaSettings) -> None:
        self.worker = worker
        self.topic = topic
        self.refused: Counter[str] = Counter()
        self._failure: str | None = None
        self._lock = threading.Lock()
        options = {"delivery.timeout.ms": DELIVERY_TIMEOUT_MS, "linger.ms": LINGER_MS}
        config = kafka.client_config(options, fixed=FIXED)
        self._producer = Producer(
            config | {"error_cb": on_error(), "client.id": f"{worker}-dead-letters"}, logger=logger
        )

    def send(self, record: Record, reason: str, error: BaseException, *, stage: str) -> None:
        """Queue one, with the record's own key, value and headers. Raises DeadLettersRefused where there is no such topic."""
        headers: WireHeaders = [*record.headers, *headers_of(record, reason, error, stage=stage, worker=self.worker)]
        try:
            self._produce(record.value, record, headers)
        except BufferError:
            self.flush()
            self._produce(record.value, record, headers)
        except KafkaException as refused:
            if refused.args[0].code() in _TOPIC_AWAY:
                self._give_up()
                raise self._refusal(refused.args[0].str()) from refused
            if refused.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE or record.value is None:
                raise
            # Compressed it fitted into its own topic. Its first part with the reason is worth more than a halt.
            headers.append(("x-value-bytes", str(len(record.value)).encode()))
            self._produce(record.value[:CUT_BYTES], record, headers)
        self.refused[reason] += 1
        logger.warning(
            "dead letter: %s: %s", record.place, error,
            extra={"action": "dead_letter", "topic": record.topic, "partition": record.partition, "offset": record.offset},
        )  # fmt: skip

    def _produce(self, value: bytes | None, record: Record, headers: WireHeaders) -> None:
        self._producer.produce(self.topic, value=value, key=record.key, headers=headers, on_delivery=self._report)

    def _report(self, error: KafkaError | None, _: Message) -> None:
        if error is not None:
            with self._lock:
                self._failure = error.str()

    def flush(self) -> None:
        """Wait until all are acknowledged. Raises DeadLettersRefused."""
        waiting = self._producer.flush(ACKNOWLEDGE_TIMEOUT_S)
        with self._lock:
            failure, self._failure = self._failure, None
        if waiting or failure:
            self._give_up()
            cause = failure or f"not acknowledged within {ACKNOWLEDGE_TIMEOUT_S:.0f} s"
            raise self._refusal(cause)

    def _refusal(self, cause: str) -> DeadLettersRefused:
        return DeadLettersRefused(
            f"{self.topic} does not take dead letters: {cause}; `tradetape topics apply` creates it"
        )

    def _give_up(self) -> None:
        """Take back what is on its way, and hear its reports now: they must not fail the next attempt."""
        self._producer.purge()
        self._producer.flush(PURGE_TIMEOUT_S)
        # Of a topic that was not there the client asks again only minutes later, unless it is told to.
        with suppress(KafkaException):
            self._producer.list_topics(self.topic, timeout=PURGE_TIMEOUT_S)
        with self._lock:
            self._failure = None
