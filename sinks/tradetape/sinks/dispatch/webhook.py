"""The webhook executor: each order is one POST, and only what proves that it was not taken allows another one.

A connection that was never made proves it, and so do 425 and 429. A time-out, a reset, 408, 409 and every 5xx prove
nothing. Each call has a connection of its own: one that the far side may just be closing would be a reset in doubt.
"""

from __future__ import annotations

import hashlib
import hmac
import http.client
import ssl
import time
from collections.abc import Callable, Mapping
from email.utils import parsedate_to_datetime
from typing import Any, NamedTuple
from urllib.parse import urlencode, urlsplit

import msgspec

from tradetape.schemas import DispatchOutcome
from tradetape.sinks.dispatch.executor import Answer, Order, OrderNotTaken
from tradetape.sinks.errors import ExecutorUnusable

TIMEOUT_S = 5.0
"""For the connection, and then for each read; below the ten seconds that a worker has to drain."""
ANSWER_BYTES = 64 * 1024
ERROR_CHARACTERS = 200
RETRY_AFTER_S = 1.0
NOT_TAKEN = frozenset((425, 429))
UNCLEAR = frozenset((408, 409))
ID_FIELDS = ("external_id", "order_id", "id")
"""Where an answer's JSON may have the far side's id of the order."""
_encode = msgspec.json.Encoder(decimal_format="string").encode


class NoAnswer(Exception):
    """The far side gave no answer that says whether it took the order."""


class _Reply(NamedTuple):
    status: int
    reason: str
    headers: Mapping[str, str]
    body: bytes

    @property
    def words(self) -> str:
        text = self.body.decode(errors="replace").strip()
        return f"{self.status} {self.reason}{': ' if text else ''}{text}"[:ERROR_CHARACTERS]


class WebhookExecutor:
    """Posts orders as JSON to one address. Thread-safe: nothing is kept between calls."""

    name = "webhook"

    def __init__(
        self,
        *,
        url: str,
        is_idempotent: bool = False,
        secret: bytes | None = None,
        timeout_s: float = TIMEOUT_S,
        now_s: Callable[[], float] = time.time,
    ) -> None:
        """`is_idempotent` says that the far side takes an Idempotency-Key once. Raises ExecutorUnusable."""
        self.is_idempotent = is_idempotent
        self._url = _Url.of(url)
        self._secret = secret
        self._timeout_s = timeout_s
        self._now_s = now_s

    def submit(self, order: Order) -> Answer:
        """One POST. Raises OrderNotTaken, NoAnswer, and what http.client raises in the middle of it."""
        body = body_of(order)
        headers = {"Content-Type": "application/json", "Idempotency-Key": order.key, **self._signature(body)}
        reply = self._asked("POST", self._url, self._url.target, body, headers)
        if 200 <= reply.status < 300:
            return Answer(DispatchOutcome.ACKED, _external_id(reply.body))
        if reply.status in NOT_TAKEN:
            raise OrderNotTaken(reply.words, retry_after_s=self._retry_after_s(reply))
        if reply.status >= 500 or reply.status in UNCLEAR:
            raise NoAnswer(reply.words)
        return Answer(DispatchOutcome.REJECTED, None, reply.words)

    def _asked(self, method: str, url: _Url, target: str, body: bytes, headers: Mapping[str, str]) -> _Reply:
        connection = url.connection(self._timeout_s)
        try:
            try:
                connection.connect()
            except OSError as error:
                raise OrderNotTaken(f"{url.host} cannot be reached: {error}", is_away=True) from error
            connection.request(method, target, body, dict(headers))
            response = connection.getresponse()
            return _Reply(response.status, response.reason, response.headers, _read(response))  # type: ignore[arg-type]
        finally:
            connection.close()

    def _signature(self, body: bytes) -> dict[str, str]:
        """HMAC-SHA256 over "<seconds since 1970>.<body>", so that a copy cannot be sent again much later."""
        if self._secret is None:
            return {}
        stamp = str(int(self._now_s()))
        digest = hmac.new(self._secret, f"{stamp}.".encode() + body, hashlib.sha256).hexdigest()
        return {"X-Tradetape-Timestamp": stamp, "X-Tradetape-Signature": f"v1={digest}"}

    def _retry_after_s(self, reply: _Reply) -> float:
        """Seconds, or until a date (RFC 9110, 10.2.3)."""
        text = (reply.headers.get("Retry-After") or "").strip()
        if text.isdigit():
            return float(text[:6])
        try:
            return max(parsedate_to_datetime(text).timestamp() - self._now_s(), 0.0)
        except ValueError:
            return RETRY_AFTER_S


class AskableWebhook(WebhookExecutor):
    """A webhook whose far side can be asked what it knows of a key: GET <lookup_url>?idempotency_key=<key>."""

    def __init__(self, *, lookup_url: str, **rest: Any) -> None:
        """Raises ExecutorUnusable."""
        super().__init__(**rest)
        self._lookup_url = _Url.of(lookup_url)

    def lookup(self, order: Order) -> Answer | None:
        """What it knows: 200 for an order that it took, or refused where its JSON has status "rejected"; 404 for none."""
        query = urlencode({"idempotency_key": order.key})
        target = f"{self._lookup_url.target}{'&' if '?' in self._lookup_url.target else '?'}{query}"
        reply = self._asked("GET", self._lookup_url, target, b"", self._signature(target.encode()))
        if reply.status == 404:
            return None
        if reply.status != 200:
            raise NoAnswer(reply.words)
        document = _document(reply.body)
        if str(document.get("status", "")).lower() == "rejected":
            return Answer(DispatchOutcome.REJECTED, _external_id(reply.body), reply.words)
        return Answer(DispatchOutcome.ACKED, _external_id(reply.body))


class _Url(NamedTuple):
    """An address, taken apart once."""

    is_secure: bool
    host: str
    port: int | None
    target: str

    @classmethod
    def of(cls, text: str) -> _Url:
        try:
            parts = urlsplit(text)
            port = parts.port
        except ValueError as error:
            raise ExecutorUnusable(f"{text!r}: {error}") from None
        if parts.scheme not in ("http", "https") or not parts.hostname or parts.username is not None:
            raise ExecutorUnusable("a webhook's address is http(s)://host[:port]/path, without user and password")
        query = f"?{parts.query}" if parts.query else ""
        return cls(parts.scheme == "https", parts.hostname, port, f"{parts.path or '/'}{query}")

    def connection(self, timeout_s: float) -> http.client.HTTPConnection:
        if self.is_secure:
            return http.client.HTTPSConnection(
                self.host, self.port, timeout=timeout_s, context=ssl.create_default_context()
            )
        return http.client.HTTPConnection(self.host, self.port, timeout=timeout_s)


def body_of(order: Order) -> bytes:
    """The trade as JSON and which leg of it: the same for every attempt. Decimals are text, times ISO 8601 in UTC."""
    return _encode({**msgspec.structs.asdict(order.trade), "leg_index": order.leg_index})


def _read(response: http.client.HTTPResponse) -> bytes:
    """The answer's beginning. A status that came is an answer, also where its body breaks off."""
    try:
        return response.read(ANSWER_BYTES)
    except (OSError, http.client.HTTPException):
        return b""


def _document(body: bytes) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except msgspec.DecodeError:
        return {}
    return found if isinstance(found, dict) else {}


def _external_id(body: bytes) -> str | None:
    document = _document(body)
    found = next((document[name] for name in ID_FIELDS if document.get(name) is not None), None)
    return None if found is None else str(found)[:ERROR_CHARACTERS]
