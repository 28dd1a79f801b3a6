"""The webhook against a server in a process of its own that notes every call: no double order, each with its outcome."""

from __future__ import annotations

import hashlib
import hmac
import json
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from dispatch_rig import DispatchRig, OrderServer, trade
from tradetape.producers.testing import RecordingProducer
from tradetape.schemas import DispatchOutcome
from tradetape.sinks.dispatch.executor import Order, OrderNotTaken, orders_of
from tradetape.sinks.dispatch.webhook import AskableWebhook, NoAnswer, WebhookExecutor
from tradetape.sinks.errors import ExecutorUnusable

SECRET = b"only for tests"


@pytest.fixture
def server(tmp_path: Path) -> Iterator[OrderServer]:
    made = OrderServer(tmp_path)
    yield made
    made.close()


@pytest.fixture
def order() -> Order:
    one = trade(quantity="0.10", planned_entry_price="64123.10")
    return orders_of(RecordingProducer().emit(one), partition=0, value=b"")[0]


def webhook(server: OrderServer, **more: Any) -> WebhookExecutor:
    return WebhookExecutor(url=server.url, timeout_s=1.0, **more)


def test_an_order_is_the_trade_as_json_with_exact_decimals_under_its_key_and_signed(
    server: OrderServer, order: Order
) -> None:
    answer = webhook(server, secret=SECRET, now_s=lambda: 1_750_000_000.9).submit(order)
    assert answer == (DispatchOutcome.ACKED, f"order-{order.key}", None)
    (call,) = server.calls()
    document = json.loads(call["body"])
    assert (document["quantity"], document["planned_entry_price"]) == ("0.10", "64123.10")
    assert (document["trade_id"], document["leg_index"], document["action"]) == (order.trade.trade_id, 0, "ENTER")
    assert call["headers"]["Idempotency-Key"] == order.key == "key-BTCUSDT-0:0"
    expected = hmac.new(SECRET, b"1750000000." + call["body"].encode(), hashlib.sha256).hexdigest()
    assert call["headers"]["X-Tradetape-Timestamp"] == "1750000000"
    assert call["headers"]["X-Tradetape-Signature"] == f"v1={expected}"


def test_every_attempt_has_the_same_body(server: OrderServer, order: Order) -> None:
    for _ in range(2):
        webhook(server).submit(order)
    assert len({call["body"] for call in server.calls()}) == 1


@pytest.mark.parametrize("status", [301, 400, 401, 404, 422])
def test_a_refusal_is_final(server: OrderServer, order: Order, status: int) -> None:
    server.plan({"answers": [status]})
    answer = webhook(server).submit(order)
    assert answer.outcome is DispatchOutcome.REJECTED
    assert str(status) in str(answer.error)


def test_too_many_requests_says_when_to_come_again(server: OrderServer, order: Order) -> None:
    server.plan({"answers": [429], "retry_after": 7})
    with pytest.raises(OrderNotTaken) as refusal:
        webhook(server).submit(order)
    assert (refusal.value.retry_after_s, refusal.value.is_away) == (7, False)


@pytest.mark.parametrize("act", [408, 409, 500, 503, "hang", "reset", "drop"])
def test_what_does_not_say_whether_the_order_was_taken_is_no_answer(
    server: OrderServer, order: Order, act: int | str
) -> None:
    server.plan({"answers": [act], "hang_s": 3})
    with pytest.raises((NoAnswer, OSError)):
        webhook(server).submit(order)
    assert len(server.posts()) == 1


def test_where_nobody_listens_the_order_was_certainly_not_taken(order: Order) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(OrderNotTaken) as refusal:
        WebhookExecutor(url=f"http://127.0.0.1:{port}/", timeout_s=1.0).submit(order)
    assert refusal.value.is_away


def test_a_far_side_that_can_be_asked_knows_the_orders_that_it_took(server: OrderServer, order: Order) -> None:
    executor = AskableWebhook(url=server.url, lookup_url=server.url)
    assert executor.lookup(order) is None
    executor.submit(order)
    assert executor.lookup(order) == (DispatchOutcome.ACKED, f"order-{order.key}", None)


@pytest.mark.parametrize("url", ["ftp://h/x", "http:///x", "orders", "http://me:secret@h/", "http://h:port/"])
def test_an_address_that_is_none_is_refused_without_showing_a_password(url: str) -> None:
    with pytest.raises(ExecutorUnusable) as refusal:
        WebhookExecutor(url=url)
    assert "secret" not in str(refusal.value)


@pytest.fixture
def rig(kafka: str, topic_prefix: str, postgres: str) -> DispatchRig:
    return DispatchRig(kafka=kafka, prefix=topic_prefix, dsn=postgres)


def test_the_secret_that_signs_may_stand_in_a_file(rig: DispatchRig, server: OrderServer, tmp_path: Path) -> None:
    file = tmp_path / "secret"
    file.write_bytes(SECRET + b"\n")
    rig.emit(trade())
    rig.dispatch_all(rig.sink_by("--executor", "webhook", "--webhook-url", server.url, webhook_secret_file=str(file)))
    (call,) = server.calls()
    signed = f"{call['headers']['X-Tradetape-Timestamp']}.{call['body']}".encode()
    assert call["headers"]["X-Tradetape-Signature"] == f"v1={hmac.new(SECRET, signed, hashlib.sha256).hexdigest()}"


ACTS: dict[str, list[int | str]] = {
    "answered": [200],
    "refused": [400],
    "patient": [429, 429, 200],
    "broken": [500],
    "broken but taken": ["500 but taken"],
    "reset": ["reset"],
    "dropped": ["drop"],
}


@pytest.mark.parametrize(
    ("words", "expected"),
    [
        ((), {"broken": "IN_DOUBT", "broken but taken": "IN_DOUBT", "reset": "IN_DOUBT", "dropped": "IN_DOUBT"}),
        (("--webhook-idempotent",), {"broken but taken": "ACKED", "reset": "ACKED", "dropped": "ACKED"}),
        (("--webhook-lookup-url", "{url}"), {"broken but taken": "ACKED", "reset": "ACKED", "dropped": "IN_DOUBT"}),
    ],
    ids=["plain", "idempotent", "askable"],
)
def test_no_order_is_taken_twice_whatever_the_far_side_does_and_each_has_its_outcome(
    rig: DispatchRig, server: OrderServer, words: tuple[str, ...], expected: dict[str, str]
) -> None:
    is_idempotent = "--webhook-idempotent" in words
    acts = {name: [*answers, 200] if is_idempotent else answers for name, answers in ACTS.items()}
    server.plan({"by_symbol": {_symbol(name): plan for name, plan in acts.items()}, "is_idempotent": is_idempotent})
    trades = rig.emit(*(trade(symbol=_symbol(name)) for name in ACTS))
    options = [word.format(url=server.url) for word in words]
    rig.dispatch_all(rig.sink_by("--executor", "webhook", "--webhook-url", server.url, *options))

    last = {one.symbol: rig.outcomes(one.trade_id)[-1] for one in trades}
    known = {"answered": "ACKED", "refused": "REJECTED", "patient": "ACKED", **expected}
    known.setdefault("broken", "ACKED" if is_idempotent else "IN_DOUBT")
    assert last == {_symbol(name): outcome for name, outcome in known.items()}
    assert max(server.accepted().values()) == 1
    if not is_idempotent:
        posts = {name: server.posts().count(f"key-{_symbol(name)}-0:0") for name in ACTS}
        assert posts == {**dict.fromkeys(ACTS, 1), "patient": 3}


def _symbol(name: str) -> str:
    return name.replace(" ", "").upper()
