"""Doctor's judgements: what is well, what is not, what mends it, and the exit code that follows."""

from __future__ import annotations

import sys
from types import ModuleType

import pytest

from tradetape.console.commands.doctor import _exit_code
from tradetape.console.doctor import clocks, kafka, packages, postgres, redis, registry
from tradetape.console.doctor.examination import examine
from tradetape.console.doctor.finding import Finding, State
from tradetape.console.topics import Replicas
from tradetape.producers.settings import Settings

INFO = {"redis_version": "7.2.4", "maxmemory_policy": "noeviction", "used_memory": 10, "maxmemory": 1000}


def states(findings: list[Finding]) -> dict[str, State]:
    return {one.subject: one.state for one in findings}


def judged(**differing: object) -> dict[str, Finding]:
    return {one.subject: one for one in redis.judge({**INFO, **differing})}


@pytest.mark.parametrize(
    ("asked", "told", "answering", "state"),
    [
        (["a:9092"], ["a:9092"], [], State.OK),
        (["a:9092"], ["a:9092", "b:9092", "c:9092"], ["b:9092", "c:9092"], State.OK),
        (["a:9092"], ["a:9092", "b:9092"], [], State.FAIL),
        (["proxy:1"], ["a:9092"], ["a:9092"], State.WARN),
        (["localhost:9092"], ["kafka:9092"], [], State.FAIL),
    ],
    ids=["the same", "a cluster", "one of a cluster is away", "elsewhere and open", "elsewhere and closed"],
)
def test_clients_must_be_able_to_follow_the_advertised_addresses(
    asked: list[str], told: list[str], answering: list[str], state: State
) -> None:
    found = kafka.judge_addresses(asked, told, lambda address: address in answering)
    assert found.state is state
    assert found.unreachable is (state is State.FAIL)
    assert ("advertised.listeners" in found.mend) is (state is not State.OK)


def test_bootstrap_lists_are_read_as_clients_read_them() -> None:
    assert kafka.dialled("a:1, PLAINTEXT://b:2,c,[::1]:3,") == ["a:1", "b:2", "c:9092", "[::1]:3"]


@pytest.mark.parametrize(
    ("counts", "changed", "state", "mend"),
    [
        ({"a": 4, "b": 4}, [], State.OK, ""),
        ({"a": 4}, [], State.FAIL, "tradetape topics apply"),
        ({"a": 4, "b": 4}, ["b"], State.FAIL, "tradetape topics apply"),
    ],
    ids=["as declared", "missing", "other settings"],
)
def test_topics_must_be_as_declared(counts: dict[str, int], changed: list[str], state: State, mend: str) -> None:
    found = kafka.judge_topics(["a", "b"], counts, changed)
    assert (found.state, found.mend) == (state, mend)


def test_unequal_numbers_of_partitions_are_a_fault_that_apply_alone_cannot_mend() -> None:
    found = kafka.judge_topics(["a", "b"], {"a": 4, "b": 5}, [])
    assert found.state is State.FAIL
    assert "TRADETAPE_TOPIC_PREFIX" in found.mend


WHOLE, BEHIND, CLOSED, DEAD, ALONE = (
    Replicas(3, 3, True), Replicas(3, 2, True), Replicas(3, 1, True), Replicas(3, 0, False), Replicas(1, 1, True),
)  # fmt: skip


@pytest.mark.parametrize(
    ("places", "declared", "state", "word"),
    [
        ([WHOLE, WHOLE], 3, State.OK, "up to date: 3"),
        ([ALONE, ALONE], None, State.OK, "up to date: 1"),
        ([WHOLE, BEHIND], 3, State.WARN, "1 partitions are not whole"),
        ([WHOLE, CLOSED], 3, State.FAIL, "1 partitions take no records"),
        ([WHOLE, DEAD, CLOSED], 3, State.FAIL, "1 partitions have no leader"),
        ([ALONE, ALONE], 3, State.FAIL, "2 topics lie on fewer than 3 brokers"),
        ([WHOLE, ALONE], None, State.FAIL, "1 topics lie on fewer than 3 brokers"),
    ],
    ids=["whole", "one broker", "one is behind", "most are away", "all are away", "fewer than declared", "unequal"],
)
def test_each_topic_must_lie_whole_on_as_many_brokers_as_declared(
    places: list[Replicas], declared: int | None, state: State, word: str
) -> None:
    found = kafka.judge_replicas({f"t{number}": [one] for number, one in enumerate(places)}, declared)
    assert found.state is state
    assert word in found.detail
    assert bool(found.mend) is (state is not State.OK)


def test_a_redis_as_the_local_stack_runs_it_is_well() -> None:
    assert {one.state for one in judged(redis_version="6.2.14").values()} == {State.OK}


@pytest.mark.parametrize("version", ["6.0.16", "5.0.14", "2.8"])
def test_a_redis_without_what_the_script_needs_fails(version: str) -> None:
    assert judged(redis_version=version)["redis"].state is State.FAIL


def test_a_node_of_a_redis_cluster_fails_before_a_worker_waits_for_it() -> None:
    assert judged(redis_mode="cluster")["redis mode"].state is State.FAIL
    assert "redis mode" not in judged(redis_mode="standalone")


@pytest.mark.parametrize("policy", ["allkeys-lru", "volatile-ttl"])
def test_a_redis_that_drops_keys_fails_with_the_command_that_stops_it(policy: str) -> None:
    found = judged(maxmemory_policy=policy)["redis policy"]
    assert (found.state, found.mend) == (State.FAIL, "redis-cli CONFIG SET maxmemory-policy noeviction")


@pytest.mark.parametrize(
    ("used", "limit", "state"),
    [(799, 1000, State.OK), (800, 1000, State.WARN), (1000, 1000, State.FAIL), (10, 0, State.WARN)],
)
def test_memory_is_a_warning_before_it_is_a_fault(used: int, limit: int, state: State) -> None:
    assert judged(used_memory=used, maxmemory=limit)["redis memory"].state is state


@pytest.mark.parametrize(("number", "state"), [(180004, State.OK), (140000, State.OK), (130022, State.WARN)])
def test_an_old_postgres_is_a_warning(number: int, state: State) -> None:
    assert postgres.judge_version(number).state is state


@pytest.mark.parametrize(
    ("off_s", "state", "word"),
    [
        (0, State.OK, "within"),
        (0.9, State.OK, "within"),
        (-2, State.WARN, "2.0 s behind"),
        (2, State.WARN, "2.0 s ahead"),
        (-31, State.FAIL, "31.0 s behind"),
        (3600, State.FAIL, "3600.0 s ahead"),
    ],
)
def test_a_clock_that_is_off_is_told_with_its_direction(off_s: float, state: State, word: str) -> None:
    found = clocks.compare("x", lambda: int((1_000 + off_s) * 1_000_000), clock_us=lambda: 1_000_000_000)
    assert found.state is state
    assert word in found.detail


def test_a_slow_answer_is_no_skew() -> None:
    ours = iter([0, 20_000_000])
    assert clocks.compare("x", lambda: 7_000_000, clock_us=lambda: next(ours)).state is State.OK


def test_a_package_that_replaced_its_own_module_counts_as_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    replaced = ModuleType("faust")
    assert replaced.__spec__ is None
    monkeypatch.setitem(sys.modules, "faust", replaced)
    assert [one.state for one in packages.check()] == [State.OK]


def test_each_extra_that_lacks_a_package_is_named_with_what_installs_it() -> None:
    found = list(packages.check(lambda package: package not in ("psycopg", "jgo", "talipp")))
    assert [(one.state, one.mend) for one in found] == [
        (State.WARN, "pip install 'tradetape[sinks]'"),
        (State.WARN, "pip install 'tradetape[local]'"),
        (State.WARN, "pip install 'tradetape[demo]'"),
    ]
    assert "jgo" in found[1].detail


def test_with_nothing_running_and_nothing_named_every_service_says_up() -> None:
    found = examine(Settings(), named=False)
    failed = [one for one in found if one.state is State.FAIL]
    assert {one.subject: one.mend for one in failed} == dict.fromkeys(("kafka", "redis", "postgres"), "tradetape up")
    assert _exit_code(found) == 3


def test_a_service_that_the_environment_leaves_out_is_a_warning() -> None:
    found = examine(Settings(redis_url="redis://127.0.0.1:1/0"), named=True)
    assert states(found)["kafka"] is State.WARN
    assert states(found)["postgres"] is State.WARN
    assert states(found)["redis"] is State.FAIL
    assert _exit_code(found) == 3


@pytest.mark.parametrize("url", ["127.0.0.1:6379", "redis://127.0.0.1:port/0"])
def test_a_damaged_redis_address_is_a_fault_of_the_address(url: str) -> None:
    (fault,) = [one for one in examine(Settings(redis_url=url), named=True) if one.state is State.FAIL]
    assert "REDIS_URL" in fault.detail
    assert not fault.unreachable


def test_a_damaged_database_address_is_told_without_its_password() -> None:
    settings = Settings(database_url="postgresql://bot:hunter2%@127.0.0.1/x")
    (fault,) = [one for one in examine(settings, named=True) if one.state is State.FAIL]
    assert "DATABASE_URL" in fault.detail
    assert "hunter2" not in repr(fault)


@pytest.mark.parametrize(
    ("findings", "code"),
    [
        ([Finding("a", State.OK, "")], 0),
        ([Finding("a", State.WARN, "")], 0),
        ([Finding("a", State.OK, ""), Finding("b", State.FAIL, "")], 1),
        ([Finding("a", State.FAIL, ""), Finding("b", State.FAIL, "", unreachable=True)], 3),
    ],
    ids=["well", "warned", "failed", "away"],
)
def test_the_exit_code_says_what_is_worst(findings: list[Finding], code: int) -> None:
    assert _exit_code(findings) == code


def test_a_registry_is_no_must() -> None:
    found = {one.subject: one for one in examine(Settings(), named=True)}
    assert found["registry"] == Finding("registry", State.OK, "none is used: ids come from the schemas")


def test_schemas_that_are_not_registered_are_a_fault_that_push_mends() -> None:
    assert registry.judge_schemas([], 9).state is State.OK
    found = registry.judge_schemas(["a-value", "b-value"], 9)
    assert (found.state, found.mend) == (State.FAIL, "tradetape schemas push")
    assert found.detail == "2 of 9 are not registered: a-value, b-value"


@pytest.mark.parametrize("level", [None, "NONE", "BACKWARD", "FULL"])
def test_a_subject_that_takes_anything_is_a_warning(level: str | None) -> None:
    assert registry.judge_compatibility({"a-value": "FULL_TRANSITIVE"}).state is State.OK
    found = registry.judge_compatibility({"a-value": "FULL_TRANSITIVE", "b-value": level})
    assert (found.state, found.mend) == (State.WARN, "tradetape schemas push")
    assert "b-value" in found.detail
    assert "a-value" not in found.detail
