"""The commands of approval as a user has them: a worker with a policy file, a check of it, why, and whether still so."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from approval_rig import ApprovalRig, signal
from console_rig import clean_environment, tradetape
from streams_rig import WorkerProcess
from tradetape.producers import Producer
from tradetape.schemas import DecisionOutcome, Event, RunMode, SignalDecision
from tradetape.streams.effects import KafkaEffects

POLICY = """\
[openings]
one_open_trade_per_symbol = true

[python]
policy = "desk_rules:judge"
"""
DESK_RULES = """\
def judge(signal, facts):
    return ["DOGE is no money"] if signal.symbol.startswith("DOGE") else []
"""


def decision(of: Event, outcome: str, facts: dict[str, str]) -> SignalDecision:
    """A decision as somebody else might have written it."""
    return SignalDecision(
        event_time=of.event_time, run_mode=of.run_mode, correlation_id=of.correlation_id, venue=of.venue,
        symbol=of.symbol, signal_id=of.event_id, stage="approval", outcome=DecisionOutcome(outcome), score=0.7,
        facts=facts, trade_id="t",
    )  # fmt: skip


@pytest.fixture
def rig(kafka: str, topic_prefix: str, redis_url: str) -> Iterator[ApprovalRig]:
    made = ApprovalRig(kafka, topic_prefix, redis_url)
    yield made
    made.close()


@pytest.fixture
def policy(tmp_path: Path) -> Path:
    (tmp_path / "desk_rules.py").write_text(DESK_RULES)
    file = tmp_path / "policy.toml"
    file.write_text(POLICY)
    return file


@pytest.mark.parametrize("engine", ["faust", "kafka"])
def test_a_signal_is_approved_explained_and_decided_again_alike(
    rig: ApprovalRig, policy: Path, tmp_path: Path, engine: str
) -> None:
    variables = {
        "KAFKA_BOOTSTRAP_SERVERS": rig.kafka.bootstrap_servers, "REDIS_URL": rig.redis_url,
        "TRADETAPE_TOPIC_PREFIX": rig.catalogue.prefix, "TRADETAPE_REDIS_PREFIX": rig.redis_prefix,
        "TRADETAPE_RUN_MODE": "PAPER", "TRADETAPE_POLICY_FILE": str(policy),
    }  # fmt: skip
    environment = clean_environment(tmp_path, **variables)
    checked = tradetape("policy", "check", environment=environment)
    assert checked.returncode == 0
    assert "one_open_trade_per_symbol" in checked.stdout

    command = ["-m", "tradetape.console", "work", "approval", "--engine", engine, "--group", rig.redis_prefix]
    with WorkerProcess(command, environment=variables, log=tmp_path / "worker.log") as worker:
        servers = rig.kafka.bootstrap_servers
        with Producer(bootstrap_servers=servers, source="bot", catalogue=rig.catalogue, run_mode=RunMode.PAPER) as bot:
            given = [bot.emit(signal(minute=0)), bot.emit(signal(minute=1)), bot.emit(signal("DOGEUSDT"))]
        worker.until("three decisions", lambda: len(rig.decisions()) == 3)
        worker.until("its trade", lambda: len(rig.trades()) == 1)
        assert worker.stop() == 0
    assert [trade.signal_id for trade in rig.trades()] == [given[0].signal_id]

    why = tradetape("policy", "explain", given[1].signal_id, environment=environment)
    assert why.returncode == 0
    assert "approval: REJECTED" in why.stdout
    assert "because one_open_trade_per_symbol: the symbol has 1 open" in why.stdout
    assert (
        "because python: DOGE is no money"
        in tradetape("policy", "explain", given[2].signal_id, environment=environment).stdout
    )
    by_trade = tradetape("policy", "explain", rig.trades()[0].trade_id, "--json", environment=environment)
    assert json.loads(by_trade.stdout)["signal"]["signal_id"] == given[0].signal_id

    again = tradetape("policy", "recompute", "--json", environment=environment)
    assert (again.returncode, json.loads(again.stdout)) == (
        0, {"same": 3, "different": 0, "unchecked": 0, "listed": []},
    )  # fmt: skip


def test_a_decision_that_does_not_follow_from_its_facts_is_found(rig: ApprovalRig, tmp_path: Path) -> None:
    environment = clean_environment(
        tmp_path, KAFKA_BOOTSTRAP_SERVERS=rig.kafka.bootstrap_servers, TRADETAPE_TOPIC_PREFIX=rig.catalogue.prefix
    )
    first, second, third = rig.emit([signal(minute=number, run_mode=RunMode.PAPER) for number in range(3)])
    forger = KafkaEffects(worker="approval", codec=rig.codec, kafka=rig.kafka)
    forger.emit(
        [
            decision(
                first,
                "PASSED",
                {"is_opening": "true", "open_trades": "4", "price": "100", "limit.maximum_open_trades": "4"},
            ),
            decision(second, "PASSED", {"is_opening": "true", "price": "100", "limit.python": "gone:judge"}),
            decision(third, "PASSED", {"is_opening": "true", "price": "100"}),
        ]
    )
    forger.close()
    found = tradetape("policy", "recompute", environment=environment)
    assert found.returncode == 4
    assert f"different  {first.event_id}  outcome PASSED recorded, REJECTED found" in found.stdout
    assert f"unchecked  {second.event_id}  needs the policy" in found.stdout
    assert "1 come out alike, 1 differently, 1 are unchecked" in found.stdout


def test_a_wrong_policy_file_is_named_with_its_place_and_the_worker_does_not_start(tmp_path: Path) -> None:
    file = tmp_path / "policy.toml"
    file.write_text("[openings]\nmaximum_open_trade = 3\n")
    services = {"KAFKA_BOOTSTRAP_SERVERS": "127.0.0.1:1", "REDIS_URL": "redis://127.0.0.1:1"}
    for words in (["policy", "check", str(file)], ["work", "approval", "--policy", str(file)]):
        found = tradetape(*words, environment=clean_environment(tmp_path, **services))
        assert found.returncode == 2
        assert (
            "policy.toml, line 2: [openings] maximum_open_trade is not a rule; did you mean maximum_open_trades?"
            in found.stderr
        )


def test_a_signal_that_nobody_knows_is_said_to_be_unknown(rig: ApprovalRig, tmp_path: Path) -> None:
    environment = clean_environment(
        tmp_path, KAFKA_BOOTSTRAP_SERVERS=rig.kafka.bootstrap_servers, TRADETAPE_TOPIC_PREFIX=rig.catalogue.prefix
    )
    found = tradetape("policy", "explain", "0b4c1f3e-7c0b-5b5e-9d53-2f3d0b8f4a11", environment=environment)
    assert found.returncode == 1
    assert "No stage has decided" in found.stderr
