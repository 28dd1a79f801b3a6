"""The installed command shows what is on a topic and what is current, to people and to programs."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
import redis

from topics_rig import TopicsRig
from tradetape.schemas import Codec, IndicatorUpdate, MarketCondition, times
from tradetape.streams.dead_letters import KafkaDeadLetters, MemoryDeadLetters
from tradetape.streams.engines.memory import MemoryEngine
from tradetape.streams.processors.current_state import CurrentState
from tradetape.streams.record import Record
from tradetape.streams.state.store import StateStore

Run = Callable[..., subprocess.CompletedProcess[str]]
TRADETAPE = Path(sys.executable).with_name("tradetape")
LAST_HOUR = datetime.now(UTC).replace(minute=0, second=0, microsecond=0)


def update(symbol: str, hours_ago: int = 0, **values: float) -> IndicatorUpdate:
    return IndicatorUpdate(
        venue="v", symbol=symbol, timeframe="1h", bar_close_time=LAST_HOUR - timedelta(hours=hours_ago), values=values
    )


@pytest.fixture
def rig(kafka: str, topic_prefix: str) -> TopicsRig:
    return TopicsRig(kafka, topic_prefix)


@pytest.fixture
def environment(services: Mapping[str, str], topic_prefix: str, redis_url: str) -> dict[str, str]:
    return {**os.environ, **services, "TRADETAPE_TOPIC_PREFIX": topic_prefix, "REDIS_URL": redis_url}


@pytest.fixture
def run(environment: dict[str, str]) -> Run:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [TRADETAPE, *words], env=environment, capture_output=True, text=True, timeout=60, check=False
        )

    return run


def documents(found: subprocess.CompletedProcess[str]) -> list[dict[str, object]]:
    assert found.returncode == 0, found.stderr
    return [json.loads(line) for line in found.stdout.splitlines()]


def test_tail_gives_the_newest_in_the_order_of_their_emission(rig: TopicsRig, run: Run) -> None:
    rig.emit(update(f"S{number}USDT") for number in range(26))
    for number in range(26, 30):
        rig.emit([update(f"S{number}USDT", rsi_14=float(number))])
    found = documents(run("tail", "indicator-updates", "-n", "4"))
    assert [one["key"] for one in found] == ["v:S26USDT", "v:S27USDT", "v:S28USDT", "v:S29USDT"]
    assert found[-1]["event"]["values"] == {"rsi_14": 29.0}  # type: ignore[index]


def test_tail_starts_at_a_time_or_an_offset(rig: TopicsRig, run: Run) -> None:
    rig.emit(update("BTCUSDT", hours_ago=hours, rsi_14=1.0) for hours in range(10))
    assert len(documents(run("tail", "IndicatorUpdate", "--from", "7"))) == 3
    assert len(documents(run("tail", "IndicatorUpdate", "--from", "1h"))) == 10
    assert len(documents(run("tail", "IndicatorUpdate", "--from", "beginning", "--to", "2", "-n", "9"))) == 2
    assert documents(run("tail", "IndicatorUpdate", "--from", "beginning", "--to", "1h")) == []


def test_tail_shows_what_cannot_be_decoded_and_the_dead_letter_that_was_made_of_it(rig: TopicsRig, run: Run) -> None:
    rig.put(rig.catalogue.topic_name(rig.catalogue.by_record("Fill")), b"\x00\x00\x00\x00\x01rubbish")
    shown = documents(run("tail", "fills"))[0]
    assert shown["error"] == {"reason": "unknown_schema_id", "detail": "schema 1 is not known here"}
    assert shown["value_base64"] == "AAAAAAFydWJiaXNo"

    letters = KafkaDeadLetters(worker="w", topic=rig.catalogue.dead_letters_topic, kafka=rig.kafka)
    letters.send(Record("x", 2, 77, b"k", b"v", (), 0), "unstorable", ValueError("too big"), stage="TASK_PUT")
    letters.flush()
    letter = documents(run("tail", "dead-letters"))[0]["dead_letter"]
    expected = {
        "worker": "w",
        "reason": "unstorable",
        "topic": "x",
        "partition": "2",
        "offset": "77",
        "message": "too big",
    }
    assert letter == expected


def test_tail_follows_until_ctrl_c(rig: TopicsRig, environment: dict[str, str]) -> None:
    rig.emit([update("BTCUSDT", hours_ago=1)])
    words = [str(TRADETAPE), "tail", "indicator-updates", "--follow"]
    with subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as tail:
        try:
            assert tail.stdout
            assert tail.stderr
            assert json.loads(tail.stdout.readline())["key"] == "v:BTCUSDT"
            rig.emit([update("ETHUSDT")])
            assert json.loads(tail.stdout.readline())["key"] == "v:ETHUSDT"
            tail.send_signal(signal.SIGINT)
            assert tail.wait(30) == 130
            assert tail.stderr.read() == ""
        finally:
            tail.kill()


def test_a_reader_that_has_seen_enough_is_no_error(rig: TopicsRig, environment: dict[str, str]) -> None:
    rig.emit(update("BTCUSDT", hours_ago=hours) for hours in range(300))
    found = subprocess.run(
        f"'{TRADETAPE}' tail indicator-updates -n 300 | head -1", shell=True, env=environment,
        capture_output=True, text=True, timeout=60, check=False,
    )  # fmt: skip
    assert len(found.stdout.splitlines()) == 1
    assert found.stderr == ""


def test_a_wrong_argument_is_a_usage_error_in_one_sentence(run: Run) -> None:
    for words in (("tail", "nothing"), ("tail", "candles", "--from", "yesterday")):
        found = run(*words)
        assert (found.returncode, found.stdout) == (2, "")
        assert found.stderr.startswith("tradetape: ")
        assert len(found.stderr.splitlines()) == 1


@pytest.fixture
def filled(rig: TopicsRig, redis_url: str) -> Iterator[redis.Redis]:
    """Current state as the processor writes it."""
    stamped = rig.emit(
        [
            update("BTCUSDT", rsi_14=28.5, ema_50=64_210.25),
            MarketCondition(venue="v", symbol="BTCUSDT", scope="btc", condition="bullish", event_time=LAST_HOUR),
        ]
    )
    store = StateStore.from_url(redis_url, prefix="tradetape")
    letters = MemoryDeadLetters()
    codec = Codec(rig.catalogue)
    records = []
    for offset, event in enumerate(stamped):
        event_type = rig.catalogue.by_class(type(event))
        plain = {plan.name: plan.converter.accept(getattr(event, plan.name))[1] for plan in event_type.plans}
        payload = codec.encode(event_type, plain)
        records.append(Record(rig.catalogue.topic_name(event_type), 0, offset, b"v:BTCUSDT", payload, (), 0))
    processor = CurrentState(catalogue=rig.catalogue, store=store, dead_letters=letters)
    MemoryEngine(processor=processor, dead_letters=letters, records=records).run()
    yield redis.Redis.from_url(redis_url)
    store.close()


@pytest.mark.usefixtures("filled")
def test_state_show_tells_what_is_known_of_a_symbol(run: Run) -> None:
    found = run("state", "show", "v", "BTC/USDT", "60m", "--json")
    assert found.returncode == 0, found.stderr
    (one,) = json.loads(found.stdout)
    assert one["kind"] == "indicators"
    assert one["event_time"] == times.to_text(times.from_datetime(LAST_HOUR))
    assert {name: float(one["fields"][name]) for name in ("rsi_14", "ema_50")} == {"rsi_14": 28.5, "ema_50": 64210.25}
    assert 0 < one["expires_in_s"] <= 4 * 3_600

    kinds = [one["kind"] for one in json.loads(run("state", "show", "v", "BTCUSDT", "--json").stdout)]
    assert kinds == ["indicators", "market"]
    assert "rsi_14" in run("state", "show", "v", "BTCUSDT").stdout


@pytest.mark.usefixtures("redis_url")
def test_state_show_of_what_is_unknown_says_so_and_fails(run: Run) -> None:
    found = run("state", "show", "v", "BTCUSDT")
    assert (found.returncode, found.stdout) == (1, "")
    assert "Nothing is known of v BTCUSDT" in found.stderr


def test_state_stats_find_the_key_that_nobody_declared_and_the_one_without_expiry(
    filled: redis.Redis, run: Run
) -> None:
    sound = run("state", "stats", "--json")
    assert sound.returncode == 0, sound.stdout + sound.stderr
    assert {one["kind"]: one["keys"] for one in json.loads(sound.stdout) if one["kind"] != "layout"} == {
        "indicators": 1,
        "market": 1,
    }
    filled.set("tradetape:1:mystery:x", "1")
    with filled:
        filled.persist("tradetape:1:indicators:{v:BTCUSDT}:1h")
    spoiled = run("state", "stats", "--json")
    assert spoiled.returncode == 4
    totals = {one["kind"]: one for one in json.loads(spoiled.stdout)}
    assert totals["undeclared"]["keys"] == 1
    assert totals["indicators"]["without_expiry"] == 1
