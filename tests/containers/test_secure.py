"""The set with deploy/secure.yml: everything goes through TLS under least rights, and no container holds another's secret."""

from __future__ import annotations

import json
from collections.abc import Iterator

import pytest

from compose_set import WORKERS, ComposeSet, docker, reconciled
from tradetape.console.access.roles import ROLES

pytestmark = pytest.mark.timeout(900)
STALENESS = "staleness"
FILES = ("docker-compose.yml", "deploy/secure.yml")


@pytest.fixture(scope="module")
def guarded(images: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[ComposeSet]:
    """The guarded set, up and healthy, with credentials of its own."""
    made = ComposeSet(*FILES)
    folder = tmp_path_factory.mktemp("credentials")
    made.environment["CREDENTIALS"] = str(folder)
    try:
        made.build()
        in_image(made, "credentials", "make", "/credentials")
        made.start()
        yield made
    finally:
        made.remove()


@pytest.fixture(params=[*WORKERS, STALENESS])
def worker(guarded: ComposeSet, request: pytest.FixtureRequest) -> Iterator[str]:
    """Each worker. That of silent series runs for the test alone: candles that a demo plays again are all silent."""
    if request.param != STALENESS:
        yield request.param
        return
    guarded.compose("--profile", STALENESS, "up", "--detach", "--no-build", "--wait", STALENESS, timeout_s=120)
    try:
        yield STALENESS
    finally:
        guarded.compose("--profile", STALENESS, "stop", STALENESS)


def in_image(made: ComposeSet, *words: str, options: tuple[str, ...] = ()) -> str:
    """What root does to the credentials, as an operator would with nothing but the image."""
    folder, image = made.environment["CREDENTIALS"], made.environment["TRADETAPE_IMAGE"]
    volume = f"{folder}:/credentials"
    return docker("run", "--rm", "--user", "0", "--network", "none", "--volume", volume, *options, image, *words)


def secrets(made: ComposeSet) -> dict[str, str]:
    """Every password, by `<role>/<service>.password`."""
    script = "cd /credentials && for one in */*.password; do echo $one $(cat $one); done"
    told = in_image(made, "-c", script, options=("--entrypoint", "sh"))
    return dict(line.split() for line in told.splitlines())


def test_the_demo_is_reconciled_under_least_rights(guarded: ComposeSet) -> None:
    reconciled(guarded.run("demo", "demo", "--services", "environment", "--symbols", "1", "--speed", "max", "--json"))


def test_each_worker_may_do_what_its_role_has_to_and_no_more(guarded: ComposeSet, worker: str) -> None:
    told = guarded.compose("exec", "--no-TTY", worker, "tradetape", "doctor", "--role", worker, "--json")
    assert {one["state"] for one in json.loads(told)["checks"]} == {"ok"}


def test_no_container_holds_anothers_secret(guarded: ComposeSet, worker: str) -> None:
    passwords = secrets(guarded)
    others = {value for name, value in passwords.items() if not name.startswith(f"{worker}/")}
    assert len(others) > len(ROLES)
    held = guarded.compose("exec", "--no-TTY", worker, "sh", "-c", "cat /credentials/*.password; env")
    assert passwords[f"{worker}/kafka.password"] in held
    assert not [one for one in others if one in held]
    told = json.dumps(guarded.inspected(worker))
    assert not [one for one in passwords.values() if one in told]


def test_nobody_gets_in_without_tls(guarded: ComposeSet) -> None:
    refused = {
        "history": (
            "DATABASE_URL='postgresql://history@postgres:5432/tradetape?sslmode=disable'",
            "does not let us in",
        ),
        "state": ("REDIS_URL=redis://state@redis:6379/0", "Redis"),
    }
    for worker, (variable, said) in refused.items():
        script = f"{variable} timeout 30 tradetape doctor --role {worker}; test $? != 0"
        told = guarded.compose("exec", "--no-TTY", worker, "sh", "-c", script)
        assert "FAIL" in told
        assert said in told
