"""The README's examples run as they stand there."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from tradetape.console import topics
from tradetape.producers.connection import KafkaSettings
from tradetape.producers.settings import load
from tradetape.schemas import TradeSignal
from tradetape.streams import Tape
from tradetape.streams.state import SharedState
from waiting import eventually

README = (Path(__file__).resolve().parents[2] / "README.md").read_text(encoding="utf-8")
EMIT, READ, SHARE = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


@pytest.fixture
def environment(
    monkeypatch: pytest.MonkeyPatch, services: Mapping[str, str], topic_prefix: str, redis_url: str
) -> None:
    variables = {**services, "TRADETAPE_TOPIC_PREFIX": topic_prefix, "REDIS_URL": redis_url}
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    settings = load()
    topics.apply(topics.admin_client(KafkaSettings.of(settings)), settings.catalogue())


@pytest.mark.usefixtures("environment")
def test_what_the_readme_emits_is_what_it_reads(capsys: pytest.CaptureFixture[str]) -> None:
    emitted: dict[str, object] = {}
    exec(compile(EMIT, "README", "exec"), emitted)
    read: dict[str, object] = {}
    exec(compile(READ, "README", "exec"), read)
    assert read["now"] is None
    assert read["many"] == [None, None]
    assert read["busy"] == read["counts"] == []
    assert "BTCUSDT {'rsi_14': 28.4, 'ema_50': 64210.5}" in capsys.readouterr().out
    with Tape.from_env() as tape:
        eventually("the signal is on the tape", lambda: len(list(tape.read(TradeSignal))) == 1)
        (signal,) = tape.read(TradeSignal)
    assert signal.input_event_ids == (emitted["update"].event_id,)  # type: ignore[attr-defined]


@pytest.mark.usefixtures("environment")
def test_what_the_readme_shares_is_shared() -> None:
    shared: dict[str, object] = {}
    exec(compile(SHARE, "README", "exec"), shared)
    flag: Any = shared["COOL_DOWN"]
    with SharedState.from_env(flag) as state:
        raised = state.flag(flag, "binance:BTCUSDT")
    assert raised is not None
    assert raised.note == "stopped out"
