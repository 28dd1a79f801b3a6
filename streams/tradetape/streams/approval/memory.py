"""What approval remembers in Redis: every answer by signal, and the book of its account. Written before it is emitted.

One script reads all that a decision rests on, one writes it, and refuses where the account has moved on in between: two
workers never decide on the same facts. What is written is what is emitted, as bytes, so a signal that comes again gets
the same answer again.

The marker holds the run_id of the Redis that it was written in. In a Redis that was flushed it is missing, and in one
that came back with an older file it is another's: then nothing is decided until the memory was rebuilt from the tape.
These keys expire by last use, not by event time.
"""

from __future__ import annotations

import secrets
from collections.abc import Iterable, Iterator, Mapping, Sequence
from importlib import resources
from typing import Any, NamedTuple

import msgspec
import redis

from tradetape.schemas.times import DAY_US
from tradetape.streams.approval.book import Book, Last, OpenTrade
from tradetape.streams.effects import Output
from tradetape.streams.state.connection import connect, mapped_errors
from tradetape.streams.state.keys import Keys

ACCOUNT = "default"
"""The only one, as far as events name none."""
EXPIRY_MS = 7 * DAY_US // 1_000
TRADE_EXPIRY_MS = EXPIRY_MS + 3_600_000
"""A trade outlives its decision: a decision without its trade means that the trade was never sent."""


class Answer(msgspec.Struct, frozen=True):
    """What a signal was answered with; a trade where it passed."""

    decision: Output
    trade: Output | None = None


class Recalled(NamedTuple):
    """What the memory held at one moment."""

    run_id: str
    is_valid: bool
    """Whether it is whole; else it has to be rebuilt before anything is decided."""
    generation: str
    version: str
    age_ms: int
    """How long ago it was begun anew."""
    book: Book
    answers: dict[str, Answer]

    @property
    def identity(self) -> tuple[str, str, str]:
        """Which memory it is: what is written into one is not in another. A lost one is its claim's."""
        return self.run_id, self.generation, "" if self.is_valid else self.version


class Memory:
    """The memory of one account in one Redis."""

    def __init__(self, client: redis.Redis, keys: Keys, *, account: str = ACCOUNT) -> None:
        self._client = client
        self._keys = keys
        self._account = account
        self._hashes = [keys.approval(account, part) for part in ("account", "open", "last")]
        self._recall = _script(client, "recall.lua")
        self._mark = _script(client, "mark.lua")
        self._remember = _script(client, "remember.lua")

    @classmethod
    def from_url(cls, url: str, *, prefix: str) -> Memory:
        """A memory with a client of its own."""
        return cls(connect(url), Keys(prefix))

    def recall(self, series: Iterable[str] | None, signal_ids: Sequence[str] = ()) -> Recalled:
        """The book with the last trades of these series (None: of all), and the answers to these signals.

        Raises StateUnavailable.
        """
        keys = [key for one in signal_ids for key in self._answer_keys(one)]
        wanted = ["*"] if series is None else ["", *series]
        with mapped_errors():
            run_id, marker, age_ms, trades, last, found = self._recall(
                [*self._hashes, *keys], [EXPIRY_MS, TRADE_EXPIRY_MS, *wanted]
            )
        generation, version = ((one or b"").decode() for one in marker[1:])
        book = Book(
            {trade_id.decode(): _trade(text) for trade_id, text in _pairs(trades)},
            {name.decode(): _last(text) for name, text in _pairs(last) if text is not None},
        )
        answers = {
            signal_id: Answer(_output(decision), None if trade is None else _output(trade))
            for signal_id, (decision, trade) in zip(signal_ids, _pairs(found), strict=True)
            if decision is not None
        }
        is_valid = _is_whole(run_id, marker)
        return Recalled(run_id.decode(), is_valid, generation, version, age_ms, book, answers)

    def generation(self) -> str | None:
        """Which memory is there now, in a small part of the time that it takes to recall it; None while it is not whole.

        Raises StateUnavailable.
        """
        with mapped_errors():
            run_id, marker = self._mark(self._hashes[:1])
        return marker[1].decode() if _is_whole(run_id, marker) else None

    def remember(self, recalled: Recalled, book: Book, answers: Mapping[str, Answer], *, generation: str = "") -> bool:
        """Write what has changed since it was recalled; False where somebody else has written meanwhile, and nothing is.

        `generation` begins a new memory. Of an answer only what is not there yet may be given. Raises StateUnavailable.
        """
        new = list(self._items(answers))
        with mapped_errors():
            written = self._remember(
                [*self._hashes, *(key for key, _, _ in new)],
                [
                    recalled.run_id, recalled.generation, recalled.version, generation, EXPIRY_MS,
                    _changes(book.changed_trades, book.trades), _changes(book.changed_series, book.last),
                    *(part for _, *parts in new for part in parts),
                ],
            )  # fmt: skip
        return bool(written)

    def claim(self) -> None:
        """A lost memory is being rebuilt. Whoever rebuilds it finds out by the version if it is lost once more.

        Raises StateUnavailable.
        """
        with mapped_errors(), self._client.pipeline(transaction=True) as pipeline:
            pipeline.hsetnx(self._hashes[0], "version", str(secrets.randbits(48)))
            pipeline.pexpire(self._hashes[0], EXPIRY_MS)
            pipeline.execute()

    def learn(self, decisions: Mapping[str, Output], trades: Mapping[str, Output]) -> None:
        """Take over answers from the tape, by signal; what is known already stays as it is. Raises StateUnavailable."""
        with mapped_errors(), self._client.pipeline(transaction=False) as pipeline:
            for signal_id, output in decisions.items():
                pipeline.set(self._answer_keys(signal_id)[0], _encode(output), px=EXPIRY_MS, nx=True)
            for signal_id, output in trades.items():
                pipeline.set(self._answer_keys(signal_id)[1], _encode(output), px=TRADE_EXPIRY_MS, nx=True)
            pipeline.execute()

    def correct(self, decisions: Mapping[str, Output]) -> None:
        """Another decision holds, by signal; its trade is made of the signal where it passed. Raises StateUnavailable."""
        with mapped_errors(), self._client.pipeline(transaction=True) as pipeline:
            for signal_id, output in decisions.items():
                decision_key, trade_key = self._answer_keys(signal_id)
                pipeline.set(decision_key, _encode(output), px=EXPIRY_MS)
                pipeline.delete(trade_key)
            pipeline.execute()

    def touch(self) -> None:
        """It is in use. Raises StateUnavailable."""
        with mapped_errors(), self._client.pipeline(transaction=False) as pipeline:
            for key in self._hashes:
                pipeline.pexpire(key, EXPIRY_MS)
            pipeline.execute()

    def _answer_keys(self, signal_id: str) -> tuple[str, str]:
        return (
            self._keys.approval(self._account, f"decision:{signal_id}"),
            self._keys.approval(self._account, f"trade:{signal_id}"),
        )

    def _items(self, answers: Mapping[str, Answer]) -> Iterator[tuple[str, int, bytes]]:
        """Keys, how long they are kept, in ms, and what they hold."""
        for signal_id, answer in answers.items():
            decision_key, trade_key = self._answer_keys(signal_id)
            yield decision_key, EXPIRY_MS, _encode(answer.decision)
            if answer.trade is not None:
                yield trade_key, TRADE_EXPIRY_MS, _encode(answer.trade)

    def close(self) -> None:
        """Close the connections."""
        self._client.close()


def _script(client: redis.Redis, name: str) -> Any:
    text = resources.files("tradetape.streams.approval").joinpath(name).read_text(encoding="utf-8")
    return client.register_script(text)


def _is_whole(run_id: bytes, marker: Sequence[bytes | None]) -> bool:
    """`marker` is in whose run it was written, its generation, and its version."""
    held_in, generation, *_ = marker
    return bool(generation) and held_in == run_id


def _changes(changed: Iterable[str], values: Mapping[str, OpenTrade] | Mapping[str, Last]) -> bytes:
    texts = {name: msgspec.json.encode(values[name]).decode() if name in values else "" for name in changed}
    return msgspec.json.encode(texts)


def _pairs(flat: Sequence[Any]) -> Iterable[tuple[Any, Any]]:
    return zip(flat[0::2], flat[1::2], strict=True)


_encode = msgspec.msgpack.Encoder().encode
_output = msgspec.msgpack.Decoder(Output).decode
_trade = msgspec.json.Decoder(OpenTrade).decode
_last = msgspec.json.Decoder(Last).decode
