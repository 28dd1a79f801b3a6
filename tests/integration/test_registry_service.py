"""The registry of the local stack: started only for those who ask, and the ids that it gave once stay."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from tradetape.console.local.places import Places, default_cache
from tradetape.console.local.ports import LOOPBACK, PortBook
from tradetape.console.local.registry import Registry as Service
from tradetape.console.local.stack import LocalStack
from tradetape.schemas import CATALOGUE
from tradetape.schemas.registry import Registry, push, read
from tradetape.schemas.released import Archive, folder
from waiting import eventually

pytestmark = pytest.mark.local

TIMEOUT_S = 60.0


@pytest.fixture
def home() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(prefix="tradetape-registry-") as folder:
        home = Path(folder) / "a home"
        try:
            yield home
        finally:
            LocalStack(home, fixed_ports=False).down(wipe=True)


@pytest.fixture
def service(home: Path) -> Service:
    places = Places(home=home, cache=default_cache())
    places.make()
    return Service(places, PortBook(home / "ports.json"), fixed_ports=False)


def kill(service: Service) -> None:
    found = service.running()
    assert found is not None
    found[0].kill()
    eventually("the registry is gone", lambda: service.running() is None)


def ids(url: str) -> dict[str, list[int]]:
    with Registry(url, timeout_s=TIMEOUT_S) as registry:
        return {subject: list(versions) for subject, versions in read(registry, CATALOGUE).items()}


def push_all(url: str) -> None:
    with Registry(url, timeout_s=TIMEOUT_S) as registry:
        for one in CATALOGUE:
            push(registry, CATALOGUE.subject(one), Archive(folder()).versions(one.record))


@pytest.mark.long
def test_killed_at_once_after_a_push_it_comes_back_on_its_port_with_every_id(service: Service) -> None:
    port = service.up()
    url = service.variables(port)["SCHEMA_REGISTRY_URL"]
    push_all(url)
    before = ids(url)
    kill(service)
    assert all(before.values())
    assert service.up() == port
    assert ids(url) == before
    assert service.down()
    assert service.up() == port
    assert ids(url) == before


def test_it_listens_on_the_loopback_address_alone_and_writes_into_its_home_alone(service: Service, home: Path) -> None:
    port = service.up()
    found = service.running()
    assert found is not None
    sockets = [one for one in found[0].net_connections(kind="inet") if one.status == psutil.CONN_LISTEN]
    assert {one.laddr.ip.removeprefix("::ffff:") for one in sockets} == {LOOPBACK}
    written = [Path(file.path) for file in found[0].open_files() if "w" in file.mode or "a" in file.mode]
    assert written
    assert all(path.is_relative_to(home) for path in written), written
    assert any((home / "registry" / "tmp").iterdir()), "what it unpacks for itself lies elsewhere"

    assert service.up() == port
    assert service.running() == found, "a second up is harmless"


@pytest.mark.long
def test_the_stack_starts_it_only_when_asked_leaves_it_alone_and_stops_it(home: Path) -> None:
    stack = LocalStack(home, fixed_ports=False)

    def pid() -> int | None:
        return {one.name: one.pid for one in stack.status()}["registry"]

    assert "SCHEMA_REGISTRY_URL" not in stack.up()
    assert pid() is None
    assert not (home / "registry").exists()

    environment = stack.up(registry=True)
    started = pid()
    assert started is not None
    assert ids(environment["SCHEMA_REGISTRY_URL"]) == {CATALOGUE.subject(one): [] for one in CATALOGUE}

    assert stack.up() == environment
    assert pid() == started
    assert stack.down() == ["kafka", "postgres", "redis", "registry"]
    assert not psutil.pid_exists(started)
    assert "SCHEMA_REGISTRY_URL" not in stack.up()
    stack.down(wipe=True)
    assert [path for path in home.rglob("*") if path.is_file() and path.name != "lock"] == []
