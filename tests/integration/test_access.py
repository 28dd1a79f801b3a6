"""What a role's credentials can do and cannot do, each by trying it on services with TLS, passwords and rights turned on.

The last test is the other half: with no more than these rights, a signal becomes a trade, a fill and a row.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
import pytest
import redis
from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka import Producer as RawProducer
from confluent_kafka.admin import (
    AclBinding,
    AclOperation,
    AclPermissionType,
    AdminClient,
    NewTopic,
    ResourcePatternType,
    ResourceType,
)

from console_rig import clean_environment, tradetape
from secure_stack import SecureStack
from streams_rig import WorkerProcess, candle, now
from tradetape.console import topics
from tradetape.console.access import kafka_rights
from tradetape.producers import Producer
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import Settings, load
from tradetape.schemas import CATALOGUE, Action, Direction, TradeSignal
from tradetape.sinks.history.connection import connect as connect_history
from tradetape.streams import StateReader
from tradetape.streams.errors import StateDenied
from tradetape.streams.state.connection import connect as connect_redis
from tradetape.streams.state.connection import mapped_errors
from waiting import eventually

DEADLINE_S = 60.0
TRADES, SIGNALS = "tradetape.trades", "tradetape.trade-signals"


@pytest.fixture(scope="module")
def guarded(secure_stack: SecureStack) -> SecureStack:
    """Topics and tables, and each role with its rights."""
    topics.apply(secure_stack.kafka_admin(), CATALOGUE)
    secure_stack.make_users()
    return secure_stack


def settings_of(stack: SecureStack, role: str) -> Settings:
    """The settings of a process that has a role."""
    return load(stack.role_environment(role))


def config_of(stack: SecureStack, role: str) -> dict[str, Any]:
    """librdkafka's options of a client that logs in as a role, without anything of ours in between."""
    return KafkaSettings.of(settings_of(stack, role)).client_config({})


def produced(stack: SecureStack, role: str, topic: str) -> str:
    """What Kafka says to a record of this role: "" when it takes it."""
    answers: list[str] = []
    client = RawProducer({**config_of(stack, role), "message.timeout.ms": 20_000})
    client.produce(topic, b"x", on_delivery=lambda error, _: answers.append(error.name() if error else ""))
    client.flush(DEADLINE_S)
    return answers[0]


@pytest.mark.parametrize("role", ["bot", "state", "history", "dispatch", "positions", "reader"])
def test_nobody_but_approval_writes_a_trade(guarded: SecureStack, role: str) -> None:
    before = records(guarded, TRADES)
    assert produced(guarded, role, TRADES) == "TOPIC_AUTHORIZATION_FAILED"
    assert records(guarded, TRADES) == before


def test_approval_writes_a_trade_and_no_signal(guarded: SecureStack) -> None:
    assert produced(guarded, "approval", TRADES) == ""
    assert produced(guarded, "approval", SIGNALS) == "TOPIC_AUTHORIZATION_FAILED"


def records(stack: SecureStack, topic: str) -> int:
    """How many records a topic has had."""
    with_rights = Consumer({**config_of(stack, "reader"), "group.id": "tradetape-reader"})
    found = with_rights.list_topics(topic, timeout=DEADLINE_S).topics[topic].partitions
    ends = [with_rights.get_watermark_offsets(TopicPartition(topic, one), DEADLINE_S)[1] for one in found]
    with_rights.close()
    return sum(ends)


def test_a_bot_reads_no_topic_joins_no_workers_group_and_makes_no_topic(guarded: SecureStack) -> None:
    for group in ("tradetape-approval", "my-own"):
        consumer = Consumer({**config_of(guarded, "bot"), "group.id": group})
        consumer.subscribe([TRADES])
        assert first_error(consumer) in (KafkaError.TOPIC_AUTHORIZATION_FAILED, KafkaError.GROUP_AUTHORIZATION_FAILED)
    admin = AdminClient(config_of(guarded, "bot"))
    with pytest.raises(KafkaException) as refused:
        admin.create_topics([NewTopic("tradetape.mine", 1, 1)], request_timeout=DEADLINE_S)["tradetape.mine"].result()
    assert refused.value.args[0].code() == KafkaError.TOPIC_AUTHORIZATION_FAILED


def first_error(consumer: Consumer) -> int:
    """The code of the first error that a consumer is told."""
    codes: list[int] = []

    def heard() -> bool:
        message = consumer.poll(0.2)
        if message is not None and (error := message.error()) is not None:
            codes.append(error.code())
        return bool(codes)

    eventually("an error", heard)
    consumer.close()
    return codes[0]


def test_rights_given_by_hand_are_taken_away_again(guarded: SecureStack) -> None:
    admin = guarded.kafka_admin()
    by_hand = AclBinding(
        ResourceType.TOPIC, TRADES, ResourcePatternType.LITERAL, "User:bot", "*", AclOperation.WRITE,
        AclPermissionType.ALLOW,
    )  # fmt: skip
    admin.create_acls([by_hand], request_timeout=DEADLINE_S)[by_hand].result()
    eventually("the right by hand", lambda: produced(guarded, "bot", TRADES) == "")
    changed = {one.role: one for one in kafka_rights.apply(admin, CATALOGUE, passwords={})}
    assert changed["bot"] == ("bot", [], [f"write topic {TRADES}"])
    eventually("the right is gone", lambda: produced(guarded, "bot", TRADES) == "TOPIC_AUTHORIZATION_FAILED")
    assert not [one for one in kafka_rights.apply(admin, CATALOGUE, passwords={}) if one.added or one.removed]


@pytest.fixture
def bots_redis(guarded: SecureStack) -> Iterator[redis.Redis]:
    client = connect_redis(settings_of(guarded, "bot").required("REDIS_URL"))
    yield client
    client.close()


@pytest.mark.parametrize(
    "command",
    [
        ("FLUSHALL",), ("FLUSHDB",), ("CONFIG", "GET", "dir"), ("KEYS", "*"), ("EVAL", "return 1", "0"),
        ("ACL", "LIST"), ("SCRIPT", "FLUSH"), ("SHUTDOWN",), ("SET", "nobodys:key", "x"),
        ("SET", "tradetape:1:approval:{default}:account", "x"), ("GET", "tradetape:1:approval:{default}:account"),
    ],
    ids=" ".join,
)  # fmt: skip
def test_redis_refuses_a_bot(guarded: SecureStack, bots_redis: Any, command: tuple[str, ...]) -> None:
    with guarded.redis_admin() as admin:
        admin.set("kept", "1")
    with pytest.raises(StateDenied), mapped_errors():
        bots_redis.execute_command(*command)
    with guarded.redis_admin() as admin:
        assert admin.get("kept") == b"1"


def test_a_bots_script_reaches_its_own_keys_alone(guarded: SecureStack, bots_redis: redis.Redis) -> None:
    own = "tradetape:1:count:{mine}"
    script = "return redis.call('SET', KEYS[1] or ARGV[1], 'x', 'PX', 60000)"
    sha = bots_redis.script_load(script)
    assert sha == hashlib.sha1(script.encode(), usedforsecurity=False).hexdigest()
    assert bots_redis.evalsha(sha, 1, own) == b"OK"
    for foreign in ("nobodys:key", "tradetape:1:approval:{default}:account"):
        with guarded.redis_admin() as admin:
            before = admin.dump(foreign)
        # Said to be its key, and hidden among the arguments.
        for words in ((1, foreign), (0, foreign)):
            with pytest.raises(redis.ResponseError, match=r"(?i)no permissions|access at least one of the keys"):
                bots_redis.evalsha(sha, *words)
        with guarded.redis_admin() as admin:
            assert admin.dump(foreign) == before


@pytest.mark.parametrize(
    ("role", "statement"),
    [
        ("history", "CREATE TABLE tradetape.mine (a int)"), ("history", "CREATE TABLE public.mine (a int)"),
        ("history", "CREATE SCHEMA mine"), ("history", "SELECT * FROM tradetape.trades"),
        ("history", "DELETE FROM tradetape.trades"), ("history", "SET ROLE tradetape_owner"),
        ("reader", "INSERT INTO tradetape.sink_offsets DEFAULT VALUES"), ("reader", "CREATE TABLE tradetape.mine (a int)"),
        ("reader", "CREATE TEMPORARY TABLE mine (a int)"), ("dispatch", "SELECT * FROM tradetape.trades"),
        ("dispatch", "CREATE TABLE tradetape.mine (a int)"), ("operator", "CREATE ROLE mine"),
        ("operator", "COPY (SELECT 1) TO PROGRAM 'true'"),
    ],
)  # fmt: skip
def test_postgresql_refuses_a_login(guarded: SecureStack, role: str, statement: str) -> None:
    with (
        connect_history(settings_of(guarded, role).required("DATABASE_URL"), application="test") as connection,
        pytest.raises(psycopg.errors.InsufficientPrivilege),
    ):
        connection.execute(statement.encode())


@pytest.mark.parametrize("role", ["bot", "approval", "history", "reader", "operator"])
def test_the_doctor_finds_a_role_as_it_is_declared(guarded: SecureStack, tmp_path: Path, role: str) -> None:
    environment = clean_environment(tmp_path, **guarded.role_environment(role))
    found = tradetape("doctor", "--role", role, environment=environment)
    assert found.returncode == 0, found.stdout + found.stderr


def test_the_doctor_finds_what_a_user_may_beyond_its_role(guarded: SecureStack, tmp_path: Path) -> None:
    environment = clean_environment(tmp_path, **guarded.role_environment("approval"))
    before = records(guarded, TRADES)
    found = tradetape("doctor", "--role", "bot", environment=environment)
    assert found.returncode == 1
    for fault in ("write tradetape.signal-decisions", "join tradetape-approval", "SET tradetape:1:approval:doctor"):
        assert fault in found.stdout
    assert records(guarded, TRADES) == before


@pytest.mark.long
def test_with_these_rights_a_signal_becomes_a_trade_a_fill_and_a_row(guarded: SecureStack, tmp_path: Path) -> None:
    commands = {
        "state": ["work", "state"], "approval": ["work", "approval"], "history": ["work", "history"],
        "dispatch": ["work", "dispatch", "--executor", "paper"], "positions": ["work", "positions"],
    }  # fmt: skip
    workers = {
        role: WorkerProcess(
            ["-m", "tradetape.console", *command], log=tmp_path / f"{role}.log",
            environment={**guarded.role_environment(role), "TRADETAPE_RUN_MODE": "PAPER"},
        )
        for role, command in commands.items()
    }  # fmt: skip
    bot, minutes, began = guarded.role_environment("bot"), list(range(1_000)), time.monotonic()
    history = settings_of(guarded, "reader").required("DATABASE_URL")
    try:
        with Producer.from_env(source="bot", settings=load({**bot, "TRADETAPE_RUN_MODE": "PAPER"})) as tape:
            closed_at = now().replace(second=0, microsecond=0)
            signal_id = tape.emit(signal(closed_at)).event_id

            def filled() -> bool:
                # Candles go on coming, one a second: the next one after the trade fills it on paper.
                if time.monotonic() >= began + minutes[0]:
                    tape.emit(candle(closed_at + timedelta(minutes=minutes.pop(0))))
                with connect_history(history, application="test") as connection:
                    return bool(connection.execute(_FILLED, [signal_id]).fetchone())

            workers["history"].until("a row of the fill", filled)
        with StateReader.from_env(settings_of(guarded, "bot")) as state:
            eventually("the candle in Redis", lambda: state.candle("binance", "BTCUSDT", "1m") is not None)
        assert {role: worker.stop() for role, worker in workers.items()} == dict.fromkeys(workers, 0)
    finally:
        for worker in workers.values():
            worker.__exit__(None, None, None)


_FILLED = """SELECT 1 FROM tradetape.trades t JOIN tradetape.fills f ON f.trade_id = t.trade_id
    WHERE t.signal_id = %s"""


def signal(closed_at: datetime) -> TradeSignal:
    """Go long at the bar that closes then."""
    return TradeSignal(
        strategy_id="least-rights", venue="binance", symbol="BTCUSDT", timeframe="1m", bar_close_time=closed_at,
        action=Action.ENTER, direction=Direction.LONG, quantity="1", reference_price="11",
        valid_until=closed_at + timedelta(hours=10),
    )  # fmt: skip
