"""A producer in every weather: `emit` takes what it gets, `close` ends in bounded time, and fair weather mends all."""

from __future__ import annotations

import logging
import resource
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import defaultdict
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from bench.weather import ExposedBroker, Weather, exposed_broker
from confluent_kafka import Consumer, TopicPartition

from tradetape.console.local.places import default_cache
from tradetape.console.topics import admin_client, apply
from tradetape.producers import Producer
from tradetape.producers.connection import KafkaSettings
from tradetape.schemas import CATALOGUE, Action, Catalogue, Codec, Direction, IndicatorUpdate, TradeSignal
from waiting import eventually

PARTITIONS = 4
AT = datetime(2024, 5, 1, tzinfo=UTC)
SERIES = 12
DRAIN_S = 90.0
SLACK_S = 4.0
"""What a busy machine may add to a time limit, and what it takes to let go."""


@pytest.fixture(scope="module")
def broker() -> Iterator[ExposedBroker]:
    with (
        tempfile.TemporaryDirectory(prefix="tradetape-weather-") as home,
        exposed_broker(Path(home), default_cache()) as made,
    ):
        yield made


@pytest.fixture
def catalogue(broker: ExposedBroker) -> Catalogue:
    broker.proxy.turn(Weather.FAIR)
    catalogue = CATALOGUE.with_prefix(f"t{uuid.uuid4().hex[:8]}.")
    apply(admin_client(KafkaSettings(bootstrap_servers=broker.address)), catalogue, partitions=PARTITIONS)
    return catalogue


def update(number: int) -> IndicatorUpdate:
    return IndicatorUpdate(
        venue="binance", symbol=f"COIN{number % SERIES}USDT", timeframe="1m",
        bar_close_time=AT + timedelta(minutes=number), values={"rsi_14": float(number)},
    )  # fmt: skip


def signal(number: int) -> TradeSignal:
    return TradeSignal(
        strategy_id="s", venue="binance", symbol=f"COIN{number % SERIES}USDT", timeframe="1m",
        bar_close_time=AT + timedelta(minutes=number), action=Action.ENTER, direction=Direction.LONG,
    )  # fmt: skip


def on_the_topic(broker: ExposedBroker, catalogue: Catalogue, event_class: type) -> list[dict[str, Any]]:
    """Every event of a class, in the order of each key."""
    topic = catalogue.topic_name(catalogue.by_class(event_class))
    codec = Codec(catalogue)
    consumer = Consumer({"bootstrap.servers": broker.address, "group.id": "check", "enable.auto.commit": False})
    try:
        places = [TopicPartition(topic, number, 0) for number in range(PARTITIONS)]
        total = sum(consumer.get_watermark_offsets(place, timeout=30)[1] for place in places)
        consumer.assign(places)
        found: list[dict[str, Any]] = []
        deadline = time.monotonic() + 60
        while len(found) < total:
            assert time.monotonic() < deadline
            found += [codec.decode_fields(topic, one.value()) for one in consumer.consume(1_000, 0.5)]
        return found
    finally:
        consumer.close()


@pytest.mark.parametrize("weather", list(Weather)[1:], ids=lambda weather: weather.name.lower())
def test_whatever_the_weather_at_its_start_nothing_decided_is_lost_and_the_newest_of_each_series_arrives(
    broker: ExposedBroker, catalogue: Catalogue, weather: Weather
) -> None:
    broker.proxy.turn(weather)
    with Producer(bootstrap_servers=broker.address, source="bot", catalogue=catalogue, buffer_events=100) as tape:
        decided, newest = [], {}
        for number in range(600):
            seen = tape.emit(update(number))
            newest[seen.symbol] = seen.event_id
            decided.append(tape.emit(signal(number)).event_id)
        assert tape.flush(0.2) in (True, False)
        broker.proxy.turn(Weather.FAIR)
        assert tape.flush(DRAIN_S), tape.health()
        assert tape.health().outbox.events == 0
    by_key = defaultdict(list)
    for fields in on_the_topic(broker, catalogue, TradeSignal):
        by_key[fields["symbol"]].append(fields["event_id"])
    firsts = [list(dict.fromkeys(by_key[f"COIN{place}USDT"])) for place in range(SERIES)]
    assert firsts == [decided[place::SERIES] for place in range(SERIES)]
    last = {fields["symbol"]: fields["event_id"] for fields in on_the_topic(broker, catalogue, IndicatorUpdate)}
    assert last == newest


@pytest.mark.parametrize("weather", list(Weather)[1:], ids=lambda weather: weather.name.lower())
def test_close_is_bounded_in_every_weather_and_the_next_producer_sends_the_rest(
    broker: ExposedBroker, catalogue: Catalogue, weather: Weather
) -> None:
    tape = Producer(bootstrap_servers=broker.address, source="bot", catalogue=catalogue)
    tape.emit(signal(0))
    assert tape.flush(DRAIN_S)
    broker.proxy.turn(weather)
    for number in range(1, 400):
        tape.emit(signal(number))
        tape.emit(update(number))
    before = time.monotonic()
    tape.close(0.5)
    assert time.monotonic() - before < 0.5 + SLACK_S
    broker.proxy.turn(Weather.FAIR)
    with Producer(bootstrap_servers=broker.address, source="bot", catalogue=catalogue) as successor:
        assert successor.flush(DRAIN_S)
    found = on_the_topic(broker, catalogue, TradeSignal)
    assert len({fields["event_id"] for fields in found}) == 400


def test_close_gives_up_a_batch_that_a_stopped_broker_has_in_hand_and_the_next_producer_sends_it(
    broker: ExposedBroker, catalogue: Catalogue, caplog: pytest.LogCaptureFixture
) -> None:
    tape = Producer(bootstrap_servers=broker.address, source="bot", catalogue=catalogue)
    decided = [tape.emit(signal(0))]
    assert tape.flush(DRAIN_S)
    process = broker.process()
    process.suspend()
    try:
        for number in range(1, 50):
            decided.append(tape.emit(signal(number)))
            tape.emit(update(number))
        assert not tape.flush(0.5)
        tape.close(0.1)
    finally:
        process.resume()
    with Producer(bootstrap_servers=broker.address, source="bot", catalogue=catalogue) as successor:
        assert successor.flush(DRAIN_S)
    found = on_the_topic(broker, catalogue, TradeSignal)
    for coin in range(SERIES):
        of_one = [one.event_id for one in decided if one.symbol == f"COIN{coin}USDT"]
        assert list(dict.fromkeys(one["event_id"] for one in found if one["event_id"] in of_one)) == of_one
    assert not [one for one in caplog.records if one.levelno > logging.ERROR]


def test_a_broker_that_comes_back_from_a_kill_or_a_pause_finds_the_producer_as_it_was(
    broker: ExposedBroker, catalogue: Catalogue
) -> None:
    with Producer(bootstrap_servers=broker.address, source="bot", catalogue=catalogue) as tape:
        stop = threading.Event()
        decided: list[str | None] = []

        def trade() -> None:
            while not stop.wait(0.002):
                tape.emit(update(len(decided)))
                decided.append(tape.emit(signal(len(decided))).event_id)

        trading = threading.Thread(target=trade)
        trading.start()
        try:
            eventually("some decisions", lambda: len(decided) > 50)
            broker.restart(away_s=1.0)
            process = broker.process()
            process.suspend()
            count = len(decided)
            eventually("the bot goes on", lambda: len(decided) > count + 200)
            process.resume()
            eventually("connected again", lambda: tape.health().connected)
        finally:
            stop.set()
            trading.join()
        assert tape.flush(DRAIN_S)
    found = on_the_topic(broker, catalogue, TradeSignal)
    assert {fields["event_id"] for fields in found} == set(decided)


def bot(script: str, *words: str, folder: Path, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a bot whose outbox lies in a folder."""
    preamble = (
        "import os, sys, time, threading\n"
        "from datetime import UTC, datetime, timedelta\n"
        "from pathlib import Path\n"
        "from tradetape.producers import *\n"
        "from tradetape.schemas import *\n"
        "def signal(n):\n"
        "    return TradeSignal(strategy_id='s', venue='binance', symbol='BTCUSDT', timeframe='1m',\n"
        "        bar_close_time=datetime(2024, 5, 1, tzinfo=UTC) + timedelta(minutes=n), action=Action.ENTER,\n"
        "        direction=Direction.LONG)\n"
        "def go_on():\n"
        "    try:\n"
        "        for n in range(3, 100_000): tape.emit(signal(n))\n"
        "    except ProducerClosed: pass\n"
        f"tape = Producer(bootstrap_servers='127.0.0.1:9', source='bot', outbox_dir=Path({str(folder)!r}))\n"
    )
    return subprocess.run(
        [sys.executable, "-c", preamble + script, *words],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **options,
    )


def waiting_in(folder: Path) -> int:
    """How many decisions an outbox holds, asked of SQLite."""
    connection = sqlite3.connect(folder / "bot" / "outbox.sqlite3")
    (count,) = connection.execute("SELECT count(*) FROM waiting").fetchone()
    connection.close()
    return int(count)


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("", 0),
        ("sys.exit(3)", 3),
        ("raise KeyboardInterrupt", -2),
        ("os._exit(4)", 4),
        ("os.kill(os.getpid(), 15); time.sleep(60)", -15),
        ("threading.Thread(target=go_on, daemon=True).start()", 0),
    ],
)
def test_however_the_host_ends_it_ends_soon_and_its_decisions_are_kept(tmp_path: Path, ending: str, code: int) -> None:
    before = time.monotonic()
    found = bot(f"for n in range(3): tape.emit(signal(n))\n{ending}\n", folder=tmp_path)
    assert time.monotonic() - before < 5.0 + SLACK_S
    assert found.returncode == code
    assert "tradetape" not in found.stderr.replace("KeyboardInterrupt", "")
    assert waiting_in(tmp_path) >= 3


def test_fifty_threads_lose_nothing(tmp_path: Path) -> None:
    script = (
        "def many(place):\n"
        "    for n in range(40): tape.emit(signal(place * 40 + n))\n"
        "threads = [threading.Thread(target=many, args=(place,)) for place in range(50)]\n"
        "[one.start() for one in threads]; [one.join() for one in threads]\n"
        "tape.close(0)\n"
    )
    assert bot(script, folder=tmp_path).returncode == 0
    assert waiting_in(tmp_path) == 2_000


def test_a_fork_after_the_first_emit_leaves_the_outbox_to_the_parent(tmp_path: Path) -> None:
    script = (
        "tape.emit(signal(0))\n"
        "child = os.fork()\n"
        "if child == 0:\n"
        "    try: tape.emit(signal(1))\n"
        "    except ForkedProducer: time.sleep(3); sys.exit(7)\n"
        "os.kill(child, 0)\n"
        "tape.emit(signal(2))\n"
        "tape.close(0)\n"
        # The child still lives, and must not keep the lock.
        "Producer(bootstrap_servers='127.0.0.1:9', source='bot', outbox_dir=Path(sys.argv[1])).close(0)\n"
        "print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))\n"
    )
    found = bot(script, str(tmp_path), folder=tmp_path)
    assert (found.returncode, found.stdout, found.stderr) == (0, "7\n", "")
    assert waiting_in(tmp_path) == 2


def test_a_host_without_file_descriptors_goes_on_deciding(tmp_path: Path) -> None:
    script = (
        "import resource\n"
        "tape.emit(signal(0))\n"
        "held = []\n"
        "try:\n"
        "    while True: held.append(os.open('/dev/null', os.O_RDONLY))\n"
        "except OSError: pass\n"
        "for n in range(1, 300): tape.emit(signal(n))\n"
        "[os.close(one) for one in held]\n"
        "tape.close(0)\n"
    )
    limit = lambda: resource.setrlimit(resource.RLIMIT_NOFILE, (128, 128))  # noqa: E731
    found = bot(script, folder=tmp_path, preexec_fn=limit)
    assert (found.returncode, found.stderr) == (0, "")
    assert waiting_in(tmp_path) == 300


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="there is no file system that nobody can write to")
def test_a_folder_that_nobody_can_write_to_is_named_at_the_start() -> None:
    found = bot("", folder=Path("/proc/outbox"))
    assert "OutboxUnavailable: the outbox /proc/outbox/bot cannot be used" in found.stderr
    assert "set TRADETAPE_OUTBOX_DIR" in found.stderr


def test_a_disk_that_is_full_refuses_decisions_until_there_is_room_and_keeps_what_it_took(tmp_path: Path) -> None:
    # A limit on a file's size is what a full disk looks like from inside: the write is cut short.
    script = (
        "import resource, signal as signals\n"
        "signals.signal(signals.SIGXFSZ, signals.SIG_IGN)\n"
        "soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (400_000, hard))\n"
        "taken = 0\n"
        "refusals = []\n"
        "for n in range(5_000):\n"
        "    try: tape.emit(signal(n)); taken += 1\n"
        "    except OutboxError as error: refusals.append(error)\n"
        "    if len(refusals) == 10: break\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))\n"
        "tape.emit(signal(9_999)); taken += 1\n"
        "tape.close(0)\n"
        "print(taken, len(refusals), sep='\\n')\n"
        "print(refusals[0])\n"
    )
    found = bot(script, folder=tmp_path)
    assert (found.returncode, found.stderr) == (0, "")
    taken, refused, message = found.stdout.splitlines()
    assert int(refused) == 10
    assert int(taken) > 10
    assert str(tmp_path) in message
    assert waiting_in(tmp_path) == int(taken)
