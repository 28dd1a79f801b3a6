"""A backtest over the tape gives the signals that the bot gave live: the same ids, times, prices and inputs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import pytest

from topics_rig import TopicsRig
from tradetape.console.demo import backtest
from tradetape.console.demo.bars import SYMBOLS, by_minute, read_sample
from tradetape.console.demo.bot import SOURCE, Bot
from tradetape.producers import Producer
from tradetape.schemas import Action, RunMode
from tradetape.streams import Tape

VENUE = "demo1"
STAMPED_ANEW = {"emitted_at", "producer_run_id", "producer_seq", "run_mode"}


@pytest.mark.parametrize(
    ("symbols", "trades"), [(SYMBOLS[:2], 7), pytest.param(SYMBOLS, 15, marks=pytest.mark.long)], ids=["two", "all"]
)
def test_the_backtest_gives_the_live_signals_again_ids_included(
    symbols: Sequence[str], trades: int, kafka: str, topic_prefix: str, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    rig = TopicsRig(kafka, topic_prefix)
    with Producer(
        bootstrap_servers=kafka, source=SOURCE, run_mode=RunMode.PAPER, catalogue=rig.catalogue, overflow="wait"
    ) as producer:
        bot = Bot(tape=producer, venue=VENUE)
        for together in by_minute([read_sample(symbol) for symbol in symbols]):
            for minute in together:
                bot.on_minute(minute)
        assert producer.flush(60)
    with Tape(kafka=rig.kafka, catalogue=rig.catalogue, run_bytes=200_000) as tape:
        live = backtest.live(tape, VENUE)
        again = backtest.backtest(tape, VENUE)
    assert Counter(one.action for one in live) == {Action.ENTER: trades, Action.EXIT: trades}
    by_id = {one.event_id: one for one in live}
    assert {one.event_id for one in again} == set(by_id)
    for one in again:
        for name in set(one.__struct_fields__) - STAMPED_ANEW:
            assert getattr(one, name) == getattr(by_id[one.event_id], name), name
        assert one.run_mode is RunMode.BACKTEST

    monkeypatch.setenv("KAFKA_BOOTSTRAP_SERVERS", kafka)
    monkeypatch.setenv("TRADETAPE_TOPIC_PREFIX", topic_prefix)
    assert backtest.main([VENUE]) == 0
    assert f"{len(live)} the same" in capsys.readouterr().out
