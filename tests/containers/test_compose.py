"""`docker compose up -d --wait` and the demo, from a clean checkout: all is reconciled inside of containers, though workers crash."""

from __future__ import annotations

import pytest

from compose_set import SERVICES, WORKERS, ComposeSet, reconciled

pytestmark = pytest.mark.timeout(600)

RECORDS_OF_WORKERS = {"SignalDecision", "Trade", "TradeDispatch", "TradeClosed"}
"""Not fills: a market that is played so fast is past its signals before they are ordered, on a slow machine."""
IMAGE_UIDS = {"kafka": "appuser", "registry": "1001"}


@pytest.mark.parametrize("service", [*SERVICES, *WORKERS])
def test_no_container_has_more_rights_than_it_needs_or_more_memory_than_it_is_given(
    running: ComposeSet, service: str
) -> None:
    found = running.inspected(service)
    host, config = found["HostConfig"], found["Config"]
    assert config["User"] not in ("", "0", "root")
    assert (host["ReadonlyRootfs"], host["CapDrop"], host["CapAdd"]) == (True, ["ALL"], None)
    assert "no-new-privileges:true" in host["SecurityOpt"]
    assert not host["Privileged"]
    assert host["Memory"] > 0
    assert host["PidsLimit"] > 0
    assert host["RestartPolicy"]["Name"] == "unless-stopped"
    bound = [one["HostIp"] for ports in found["NetworkSettings"]["Ports"].values() for one in ports or ()]
    assert set(bound) <= {"127.0.0.1"}
    assert found["State"]["Health"]["Status"] == "healthy"


def test_real_candles_go_through_the_set_and_all_that_they_led_to_is_reconciled(running: ComposeSet) -> None:
    proof = reconciled(
        running.run("demo", "demo", "--services", "environment", "--symbols", "1", "--speed", "max", "--json")
    )
    lines = {line["record"]: line for line in proof["records"]}
    assert lines["Candle"]["in_postgres"] > 4_320
    assert lines.keys() >= RECORDS_OF_WORKERS
    assert all(lines[record]["in_postgres"] > 0 for record in RECORDS_OF_WORKERS)
    assert proof["state"]["equal"] > 0


def test_a_worker_that_crashes_under_load_comes_back_by_itself_and_nothing_is_lost_or_doubled(
    running: ComposeSet,
) -> None:
    demo = running.run("demo", "demo", "--services", "environment", "--symbols", "2", "--speed", "6000", "--json")
    try:
        for worker in WORKERS:
            restarts = running.container(worker).restarts
            running.crash_and_come_back(worker)
            assert running.container(worker).restarts == restarts + 1
        reconciled(demo)
    finally:
        demo.kill()
        demo.wait()
