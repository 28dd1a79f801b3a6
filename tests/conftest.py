"""Services for the tests: for each process that runs tests one stack, by default a local one, on free ports, in a folder of its own.

A test that needs no service asks for none, and nothing starts. The stack ends with the suite, also when that is
interrupted: the signal is turned into an exit, pytest then tears its fixtures down, and what is left is ended.
"""

from __future__ import annotations

import os
import signal
import tempfile
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import hypothesis
import psycopg
import pytest
import redis as redis_client
from psycopg import sql

import secure_clients
import service_stack
import suite_folder
from tradetape.console.local.places import Places, default_cache
from tradetape.console.local.ports import PortBook
from tradetape.console.local.registry import Registry
from tradetape.console.local.stack import LocalStack

if TYPE_CHECKING:
    from secure_stack import SecureStack

StackT = TypeVar("StackT", bound=LocalStack)
SERVICES = pytest.StashKey[Mapping[str, str]]()
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
UNIT = Path(__file__).resolve().parent / "unit"


def _exit(number: int, _: FrameType | None) -> None:
    # pytest takes a SystemExit for the failure of one test, and would go on with the next.
    pytest.exit(f"ended by signal {number}", returncode=128 + number)


def pytest_addoption(parser: pytest.Parser) -> None:
    """Where the services come from, and what is not for every machine or takes longer."""
    parser.addoption("--stack", choices=service_stack.KINDS, default=service_stack.LOCAL, help=service_stack.HELP)
    parser.addoption(
        "--docker", action="store_true", help="test the compose file too, on an engine and images that are here"
    )
    parser.addoption(
        "--secure", action="store_true", help="run the local stack with TLS, passwords and rights turned on"
    )


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a worker of pytest-xdist which services the environment named."""
    node.workerinput["services"] = node.config.stash[SERVICES]


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave out what brings its own local stack, or its own logins, where the suite's are others; the quick files come last.

    So no process of several is left alone with a file of minutes while the others have nothing to do any more.
    """
    items.sort(key=lambda item: UNIT in item.path.parents)
    for item in items:
        own = item.get_closest_marker(service_stack.MARK) is not None
        if own and (config.getoption("--stack") != service_stack.LOCAL or config.getoption("--secure")):
            item.add_marker(pytest.mark.skip(service_stack.REASON))
        if config.getoption("--secure") and "secure_stack" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.skip("brings its own logins to a guarded stack, with --secure or without"))


def pytest_configure(config: pytest.Config) -> None:
    """Leave by the front door when we are asked to end; take nothing from the environment of whoever runs us."""
    signal.signal(signal.SIGTERM, _exit)
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        # So a shell starts what runs in the background, and so would the commands be that tests press Ctrl-C at.
        signal.signal(signal.SIGINT, signal.default_int_handler)
    # How long one example takes says more of the machine than of the code.
    hypothesis.settings.register_profile("tests", deadline=None)
    hypothesis.settings.load_profile("tests")
    if not hasattr(config, "workerinput"):
        folder = suite_folder.make()
        config.add_cleanup(lambda: suite_folder.clear(folder))
    for name in list(os.environ):
        if name.startswith("TRADETAPE_") and name != "TRADETAPE_CACHE":
            del os.environ[name]
    config.stash[SERVICES] = getattr(config, "workerinput", {}).get("services") or service_stack.given()
    for name in service_stack.VARIABLES:
        os.environ.pop(name, None)
    if config.getoption("--secure"):
        secure_clients.install()


@pytest.fixture(scope="session")
def stack(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Iterator[LocalStack]:
    """A local stack that runs, for tests that look into it, or stop what is in it."""
    if pytestconfig.getoption("--stack") != service_stack.LOCAL:
        pytest.skip(service_stack.REASON)
    if pytestconfig.getoption("--secure"):
        secure = request.getfixturevalue("secure_stack")
        secure_clients.log_in(secure.kafka_options(), secure.environment())
        yield secure
        return
    with _running(lambda home: LocalStack(home, fixed_ports=False)) as local:
        yield local


@pytest.fixture(scope="session")
def secure_stack() -> Iterator[SecureStack]:
    """The same with TLS, passwords and rights."""
    # Here, since it imports clients of Kafka, which `--secure` has to come before.
    from secure_stack import SecureStack

    with _running(SecureStack) as secure:
        yield secure


@contextmanager
def _running(make: Callable[[Path], StackT]) -> Iterator[StackT]:
    """A stack in a folder of its own, until it is wiped with it."""
    with tempfile.TemporaryDirectory(prefix="tradetape-tests-") as home:
        made = make(Path(home))
        try:
            made.up()
            yield made
        finally:
            made.down(wipe=True)


@pytest.fixture(scope="session")
def services(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> Iterator[Mapping[str, str]]:
    """The variables by which a process finds a running Kafka, PostgreSQL and Redis."""
    kind = pytestconfig.getoption("--stack")
    if kind == service_stack.LOCAL:
        yield request.getfixturevalue("stack").environment()
    elif kind == service_stack.CONTAINERS:
        with service_stack.containers() as found:
            yield {**found, "TRADETAPE_RUN_MODE": "PAPER"}
    else:
        with service_stack.external(pytestconfig.stash[SERVICES]) as found:
            yield {**found, "TRADETAPE_RUN_MODE": "PAPER"}


@pytest.fixture(scope="session")
def kafka(services: Mapping[str, str]) -> str:
    """Bootstrap servers of a real Kafka; use topics of your own (`topic_prefix`)."""
    return services["KAFKA_BOOTSTRAP_SERVERS"]


@pytest.fixture(autouse=True)
def outboxes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for the outboxes of this test's producers, also of those in processes that it starts."""
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    return tmp_path / "state" / "tradetape" / "outbox"


@pytest.fixture
def topic_prefix() -> str:
    """A prefix that no other test uses."""
    return f"t{uuid.uuid4().hex[:12]}."


@pytest.fixture
def postgres(services: Mapping[str, str]) -> Iterator[str]:
    """The DSN of an empty database that lives as long as the test."""
    with _new_database(services) as dsn:
        yield dsn


@pytest.fixture
def second_postgres(services: Mapping[str, str]) -> Iterator[str]:
    """The DSN of another one."""
    with _new_database(services) as dsn:
        yield dsn


@contextmanager
def _new_database(services: Mapping[str, str]) -> Iterator[str]:
    owner = services["DATABASE_URL"]
    name = f"t{uuid.uuid4().hex[:12]}"
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(sql.Identifier(name)))
        yield _of_database(owner, name)
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(sql.Identifier(name)))


@pytest.fixture
def database(stack: LocalStack) -> Iterator[str]:
    """A database that no session of the suite stays connected to, so that the server may stop."""
    owner = stack.environment()["DATABASE_URL"]
    name = sql.Identifier("stopped")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(sql.SQL("CREATE DATABASE {}").format(name))
    yield _of_database(owner, "stopped")
    with psycopg.connect(owner, autocommit=True) as connection:
        connection.execute(sql.SQL("DROP DATABASE {} WITH (FORCE)").format(name))


def _of_database(dsn: str, name: str) -> str:
    return urlsplit(dsn)._replace(path=f"/{name}").geturl()


@pytest.fixture
def redis_url(services: Mapping[str, str]) -> str:
    """The address of an empty Redis."""
    with redis_client.Redis.from_url(services["REDIS_URL"]) as client:
        client.flushall()
    return services["REDIS_URL"]


@pytest.fixture(scope="session")
def registry(pytestconfig: pytest.Config) -> Iterator[Registry]:
    """A schema registry, apart from the stack, whose clients do not look for one. A test may kill it."""
    if pytestconfig.getoption("--stack") != service_stack.LOCAL:
        pytest.skip(service_stack.REASON)
    with tempfile.TemporaryDirectory(prefix="tradetape-tests-") as home:
        places = Places(home=Path(home), cache=default_cache())
        places.make()
        service = Registry(places, PortBook(places.home / "ports.json"), fixed_ports=False)
        try:
            yield service
        finally:
            service.down(wipe=True)


@pytest.fixture(scope="session")
def foreign_registry_url(pytestconfig: pytest.Config) -> Iterator[str]:
    """The address of a registry that is none of the local stack's."""
    if pytestconfig.getoption("--stack") == service_stack.CONTAINERS:
        with service_stack.registry() as url:
            yield url
    else:
        yield service_stack.external_registry(pytestconfig.stash[SERVICES])


@pytest.fixture
def registry_url(pytestconfig: pytest.Config, request: pytest.FixtureRequest) -> str:
    """The address of a running registry; use subjects of your own (`topic_prefix`)."""
    if pytestconfig.getoption("--stack") != service_stack.LOCAL:
        return str(request.getfixturevalue("foreign_registry_url"))
    # Each time: a test may have killed it.
    registry: Registry = request.getfixturevalue("registry")
    return registry.variables(registry.up())["SCHEMA_REGISTRY_URL"]


@pytest.fixture(scope="session")
def market_data() -> Path:
    """The folder of real market data; the test skips, saying so, where there is none."""
    if not (DATA / "klines").is_dir():
        pytest.skip("the shared market data is not beside this checkout")
    return DATA
